"""The report in a real browser, opened from the disk with the network switched off."""

from __future__ import annotations

import gzip
import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.integrations.synthetic import SyntheticRun
from ww_callbacks import SpectralMonitor
from ww_callbacks.integrations.figures.run_view import views
from ww_callbacks.integrations.figures.specs.heat_map import heat_map_panels
from ww_callbacks.integrations.figures.specs.history import history_panels
from ww_callbacks.integrations.figures.specs.spectrum import spectrum_panels
from ww_callbacks.integrations.record import RecordError
from ww_callbacks.integrations.report import write_report
from ww_callbacks.integrations.report.describe import DEFAULTS
from ww_callbacks.integrations.report.packing import compact, pack, rounded
from ww_callbacks.integrations.report.plotly_script import SHA256, VERSION, plotly_gzipped

HTML_NAME = "block.</script><img src=x onerror=document.title='hacked'>.weight"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    SyntheticRun(folder / "first", layers=5, collapse_at=6, rand_distance=True).advance(11).close()
    SyntheticRun(folder / "second", layers=["net.0.weight", "net.1.weight", HTML_NAME], seed=1).advance(60)
    return write_report([folder / "first", folder / "second"], folder / "report.html")


@pytest.fixture
def page(watched: Any, report: Path) -> Any:
    watched.page.context.set_offline(True)
    watched.page.goto(report.as_uri())
    watched.page.locator("[data-view=overview][data-drawn]").wait_for()
    return watched.page


def until(page: Any, expression: str) -> None:
    """Wait until ``expression`` holds in the page; the page's own policy forbids Playwright's way, which is eval."""
    for _ in range(300):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"It never came to hold: {expression}")


def open_tab(page: Any, view: str) -> None:
    page.locator(f"button[data-tab={view}]").click()
    page.locator(f"[data-view={view}][data-drawn]").wait_for()


def figure(page: Any, name: str, expression: str) -> Any:
    found = "const figures = [...document.querySelectorAll(`[data-figure=${name}] .plot`)], figure = figures[0];"
    return page.evaluate(f"(name) => {{ {found} return {expression}; }}", name)


def find(page: Any, layer: str) -> None:
    page.locator("input[name=layer]").fill(layer)
    page.locator("input[name=layer]").press("Enter")


def test_the_page_has_every_view_and_loads_nothing(page):
    # Verdict in words, settings, versions, meanings.
    card = page.locator(".card", has_text="first").inner_text()
    assert "collapsing" in card and "is shrinking towards zero" in card and "Keep the weights of epoch 2.5" in card
    page.locator(".card", has_text="first").get_by_text("why").click()
    assert "0.61 decades below" in page.locator(".card", has_text="first").inner_text()
    for text in ("2.13.0", "cautious", "exp(−Σ p ln p), p = σ/Σσ (Roy & Vetterli 2007)"):
        assert page.get_by_role("cell", name=text).first.is_visible()
    assert "spectral.jsonl" in page.locator("h1").inner_text()  # run and date are in its text, too
    assert page.locator("h3", has_text="Settings").first.locator("xpath=..").inner_text().split() == [
        *("Settings", "early_stopping", "cautious", "max_overhead", "0.01"),  # none that is the default
    ]
    assert "first: train loss" in figure(page, "timeline", "figure.data.map(trace => trace.name)")

    open_tab(page, "heat_map")
    assert figure(page, "heat_map", "figure.calcdata.find(c => c[0].trace.type === 'heatmap')[0].z.length") == 5
    page.locator("select[name=quantity]").select_option("log_spectral_norm")
    until(page, "document.querySelector('[data-figure=heat_map]').dataset.figureOf.includes('log_spectral')")

    open_tab(page, "layer")
    find(page, "net.2.weight")
    page.locator("[data-figure=spectrum] .key", has_text="power law").wait_for()
    page.locator(".slider input").fill("3")
    until(page, "document.querySelector('[data-figure=spectrum] .plot').layout.meta.at === 3")
    assert page.locator(".slider output").inner_text() == "3 of 10"

    open_tab(page, "flow")
    assert "second: α against depth" in page.locator("[data-figure=flow] figcaption .name").all_inner_texts()
    assert figure(page, "histograms", "figures.length * figure.data.length") == 4


def test_what_the_file_holds_once_is_drawn_as_the_figures_draw_it(page, report):
    runs = views([report.parent / name for name in ("first", "second")])
    open_tab(page, "layer")
    drawn = "figures.map((plot) => plot.data.map((trace) => [trace.meta.part, ...['x', 'y', 'customdata'].map("
    drawn += "(name) => Array.from(trace[name] ?? [], (value) => Number.isFinite(value) ? value : null))]))"
    for layer in ("net.1.weight", "net.4.weight"):  # the one in both runs, the other without evidence
        find(page, layer)
        until(page, f"document.querySelector('[data-figure=history]').dataset.figureOf?.includes('{layer}')")
        wanted = [one["data"] for one in history_panels(runs, layer)]
        for own, traces in zip(figure(page, "history", drawn), wanted, strict=True):
            assert [part for part, *_ in own] == [trace["meta"]["part"] for trace in traces]
            for (_, *arrays), trace in zip(own, traces, strict=True):
                for name, array in zip(("x", "y", "customdata"), arrays, strict=True):
                    right = trace.get(name, np.empty(0))
                    # A standard error is the product of two rounded numbers.
                    np.testing.assert_allclose(np.array(array, dtype=float), right, rtol=1e-3, err_msg=name)

    open_tab(page, "heat_map")
    page.get_by_label("relative to epoch 0").check()
    for quantity, by in (("effective_rank", "ratio"), ("log_spectral_norm", "difference")):
        page.locator("select[name=quantity]").select_option(quantity)
        until(
            page, f"""document.querySelector('[data-figure=heat_map]').dataset.figureOf.includes('{quantity}","rel')"""
        )
        shown = figure(page, "heat_map", "figure.data[0].z.map((row) => Array.from(row))")
        (right,) = (
            t for t in heat_map_panels(runs[:1], quantity, relative=True)[0]["data"] if t["meta"].get("by") == by
        )
        np.testing.assert_allclose(np.array(shown, dtype=float), right["z"], rtol=1e-3, atol=1e-3)


def test_a_spectrum_of_the_file_is_the_recorded_one(page, report):
    run = views(report.parent / "first")[0]
    open_tab(page, "layer")
    find(page, "net.2.weight")
    until(page, "document.querySelector('[data-figure=spectrum]').dataset.figureOf?.includes('net.2.weight')")
    numbers = "figures.map((plot) => plot.data.map((trace) => [trace.name, Array.from(trace.x), Array.from(trace.y)]))"
    for side, right in zip(figure(page, "spectrum", numbers), spectrum_panels(run, "net.2.weight"), strict=True):
        for (name, x, y), trace in zip(side, right["data"], strict=True):
            assert name == trace["name"]
            np.testing.assert_allclose(np.array(x, dtype=float), trace["x"], rtol=1e-3)
            np.testing.assert_allclose(np.array(y, dtype=float), trace["y"], rtol=1e-3)


def test_layers_and_epochs_need_little_room(tmp_path):
    SyntheticRun(tmp_path, layers=6).advance(300)
    besides = write_report(tmp_path, tmp_path / "report.html").stat().st_size - 4 / 3 * len(plotly_gzipped())  # base64
    assert besides < 260_000, "60 kB of scripts, 30 kB a layer with 300 epochs and 48 spectra"


def test_the_charting_library_is_the_published_one():
    text = gzip.decompress(plotly_gzipped())
    assert hashlib.sha256(text).hexdigest() == SHA256
    assert f"plotly.js (cartesian - minified) v{VERSION}".encode() in text[:200] and b"MIT license" in text[:300]


def test_a_name_with_html_is_a_name(page):
    assert page.locator("td", has_text=HTML_NAME).first.is_visible()
    open_tab(page, "layer")
    page.locator("select[name=run]").select_option("second")
    find(page, HTML_NAME)
    # Of its 60 epochs the report keeps 48 spectra, the first and the last among them.
    until(page, "document.querySelector('.slider input').max === '47'")
    assert page.locator(".slider output").inner_text() == "59 of 59"
    for view in ("heat_map", "flow", "overview"):
        open_tab(page, view)
    assert page.title() == "Spectra of first, second, 2026-01-01" and page.locator("img").count() == 0


def test_a_run_that_has_only_begun_says_so_in_every_view(watched, tmp_path):
    SyntheticRun(tmp_path / "new", layers=2)
    watched.page.goto(write_report(tmp_path / "new", tmp_path / "report.html").as_uri())
    assert "nothing measured yet" in watched.page.locator(".card").inner_text()
    for view in ("heat_map", "layer", "flow", "overview"):
        open_tab(watched.page, view)


def test_the_file_names_no_other_host_to_load_from(report):
    text = report.read_text("utf-8")
    head = text[: text.index("<script")]
    assert "http" not in head.replace("http-equiv", "")
    assert 'src="http' not in text and "@import" not in head
    assert "default-src 'none'" in head


def test_a_report_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "spectral.jsonl").write_text("nothing\n")
    target = tmp_path / "report.html"
    target.write_text("the one before")
    with pytest.raises(RecordError, match="not a spectral record"):
        write_report(tmp_path, target)
    assert target.read_text() == "the one before"
    assert {path.name for path in tmp_path.iterdir()} == {"spectral.jsonl", "report.html"}


def test_the_settings_that_are_left_out_are_the_defaults():
    arguments = inspect.signature(SpectralMonitor).parameters
    defaults = {name: argument.default for name, argument in arguments.items()}
    assert {name: defaults[name] for name in DEFAULTS} == DEFAULTS
    others = {name: value for name, value in defaults.items() if name not in DEFAULTS}
    assert not [name for name, value in others.items() if value and value is not inspect.Parameter.empty]


def test_compact_numbers_come_back():
    values = np.random.default_rng(0).lognormal(0, 9, (7, 30))
    values[2, 5], values[3] = np.nan, -values[3]
    data = compact({"z": values, "name": "a", "few": np.array([1.0, -0.5])}, bits=12)
    length, shift = np.frombuffer(data[:8], "<u4")
    told = orjson.loads(data[8 : 8 + length])
    planes = np.frombuffer(data[8 + length :], "u1").reshape(3, -1).astype("<u4")
    steps = planes[0] | planes[1] << 8 | planes[2] << 16
    bits = (np.cumsum(steps, dtype=np.uint64) & 0xFFFFFF).astype("<u4") << shift
    for name, right in (("z", values), ("few", [1.0, -0.5])):
        place = told[name]
        came = bits.view("<f4")[place["floats"] : place["floats"] + place["count"]]
        np.testing.assert_allclose(came, np.ravel(right), rtol=2.0**-12)
    assert told["name"] == "a" and told["z"]["rows"] == 7


def test_packed_arrays_keep_what_a_page_shows():
    values = np.random.default_rng(0).lognormal(0, 20, 2000)
    np.testing.assert_allclose(rounded(values), values.astype(np.float32), rtol=2.0**-15)
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0])
    np.testing.assert_array_equal(rounded(special), special)
    packed = orjson.loads(pack({"z": np.zeros((3, 4)), "n": np.arange(3), "t": np.array(["a"]), "v": float("nan")}))
    assert packed["z"]["shape"] == "3, 4" and packed["n"]["dtype"] == "i4"
    assert packed["t"] == ["a"] and packed["v"] is None
    with pytest.raises(TypeError):
        pack({"x": object()})
