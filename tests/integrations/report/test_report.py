"""The report in a real browser, opened from the disk with the network switched off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.integrations.synthetic import SyntheticRun
from ww_callbacks.integrations.record import RecordError
from ww_callbacks.integrations.report import write_report
from ww_callbacks.integrations.report.packing import pack, rounded

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
