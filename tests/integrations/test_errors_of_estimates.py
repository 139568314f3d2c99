"""A real run at a tolerance: every view shows the errors of its estimates, and none of an exact value."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from tests.integrations.report.test_report import figure, find, open_tab, until
from ww_callbacks import SpectralMonitor, spectral
from ww_callbacks.commands import main
from ww_callbacks.commands._screen import screen
from ww_callbacks.integrations import figures
from ww_callbacks.integrations.figures.run_view import RunView, views
from ww_callbacks.integrations.figures.specs.spectrum import missing_epochs
from ww_callbacks.integrations.record import read_run
from ww_callbacks.integrations.report import write_report
from ww_callbacks.integrations.report.describe import describe_layers
from ww_callbacks.integrations.report.view import draw
from ww_callbacks.integrations.scalars import describe, evidence_text, layer_scalars, outliers, scalars
from ww_callbacks.integrations.schema import Alert, Snapshot
from ww_callbacks.integrations.sinks.console import legend, snapshot_line
from ww_callbacks.integrations.sinks.tensorboard import worst_table
from ww_callbacks.spectral.detectors import Observation
from ww_callbacks.spectral.detectors.layerwise.rank_collapse import RankCollapse
from ww_callbacks.spectral.number_text import with_error

NORM = "log_spectral_norm"
PLUS_MINUS = re.compile(r"(-?[\d.]+(?:e[-+]\d+)?) ± ([\d.]+(?:e[-+]\d+)?)")


def with_spikes(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((rows, 8)), rng.standard_normal((8, columns))
    spikes = (left * (0.3 * 0.6 ** np.arange(8))) @ right
    return ((rng.standard_normal((rows, columns)) + 1.2 * spikes) / np.sqrt(rows)).astype(np.float32)


def moved(array: np.ndarray, relative: float, seed: int) -> None:
    step = np.random.default_rng(seed).standard_normal(array.shape)
    array += (relative * np.linalg.norm(array) / np.linalg.norm(step) * step).astype(np.float32)


class Snapshots:
    """A sink that keeps what it gets."""

    name = "snapshots"

    def __init__(self) -> None:
        self.kept: list[Snapshot] = []

    def open(self, run, resumed): ...

    def snapshot(self, snapshot):
        self.kept.append(snapshot)

    def alert(self, alert): ...

    def close(self, verdict): ...


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Snapshot], SpectralMonitor]:
    """The folder of a run whose layers are estimated, reused and exact, its snapshots, and its monitor."""
    folder = tmp_path_factory.mktemp("estimates") / "run"
    weights = {"estimated": with_spikes(600, 520), "reused": with_spikes(300, 260), "exact": with_spikes(60, 40)}
    kept = Snapshots()
    quantities = [NORM, "effective_rank", "stable_rank", "frobenius_norm", "relative_distance_from_init"]
    with SpectralMonitor(
        weights, log_dir=folder, accuracy=0.01, quantities=quantities, sinks=[kept], verbose=0
    ) as monitor:
        for epoch in range(1, 4):
            for name, relative in (("estimated", 0.0015), ("reused", 3e-5), ("exact", 0.01)):
                moved(weights[name], relative, epoch)
            monitor.observe(step=epoch, epoch=epoch, train_loss=1.0 / epoch)
    return folder, kept.kept, monitor


@pytest.fixture
def run(made) -> RunView:
    return views(made[0])[0]


def said(text: str) -> list[tuple[float, float]]:
    return [(float(value), float(error)) for value, error in PLUS_MINUS.findall(text)]


def test_the_run_has_estimated_reused_and_exact_layers(made):
    table = made[2].history
    last = table[table["step"] == 3].set_index("layer")
    errors = last[f"{NORM}_error"]
    assert 0.0 < errors["estimated"] < 1e-2 * last[NORM]["estimated"]
    assert 0.0 < errors["reused"] < 1e-2 * last[NORM]["reused"] and np.isnan(errors["exact"])
    assert set(last.columns) >= {"effective_rank_error", f"{NORM}_error"}
    summary = made[2].summary.iloc[-1]
    assert summary[f"{NORM}/estimated"] == 2.0
    assert summary[f"{NORM}/median_error"] == pytest.approx(errors["reused"], rel=1e-6)
    assert summary[f"{NORM}/max_error"] == pytest.approx(errors["estimated"], rel=1e-6)
    assert summary[f"{NORM}/min_error"] == 0.0
    assert made[2].summary[f"{NORM}/median_error"].iloc[0] == 0.0, "the first snapshot is exact"


def test_the_report_and_the_tab(run):
    rows = {row["layer"]: row for row in describe_layers(run)}
    for layer in ("estimated", "reused"):
        ((value, error),) = said(rows[layer]["texts"][NORM])
        known = run.errors(NORM)[run.layers.index(layer), -1]
        assert value == pytest.approx(rows[layer]["values"][NORM], abs=0.51 * error + 1e-4)
        assert error == pytest.approx(known, rel=0.5) or error > known
    assert NORM not in rows["exact"]["texts"] and "frobenius_norm" not in rows["reused"]["texts"]


def hovers(panels: list[dict]) -> list[tuple[str, dict]]:
    return [(trace.get("hovertemplate", ""), trace) for panel in panels for trace in panel["data"]]


@pytest.mark.parametrize(
    ("quantity", "relative"), [(NORM, False), (NORM, True), ("effective_rank", False), ("effective_rank", True)]
)
def test_the_heat_map(run, quantity, relative):
    """Relative values, too: the difference of logarithms, the ratio of ranks."""
    panels = draw("heat_map", [run], quantity, relative=relative)
    (cells,) = [trace for hover, trace in hovers(panels) if "%{text}" in hover]
    text = dict(zip(cells["meta"]["layers"], cells["text"], strict=True))
    assert [["±" in cell for cell in text[name]] for name in run.layers] == [
        [False, *(3 * [name != "exact"])] for name in run.layers
    ]
    now, first = run.values(quantity)[1, [-1, 0]]
    ((value, error),) = said(text["reused"][-1])
    expected = now if not relative else now - first if quantity == NORM else now / first
    assert value == pytest.approx(expected, abs=error)
    assert error >= 0.5 * run.errors(quantity)[1, -1] / (first if relative and quantity != NORM else 1.0)
    assert not [trace for hover, trace in hovers(draw("heat_map", [run], "frobenius_norm")) if "%{text}" in hover]


def test_the_timeline_says_how_its_medians_are_made(run):
    panels = {panel["about"].partition(":")[0]: panel for panel in draw("timeline", [run])}
    (median, *_) = [t for h, t in hovers([panels[NORM]]) if "%{text}" in h]
    assert "±" not in median["text"][0]
    assert median["text"][-1].endswith(", 2 of the layers estimated") and said(median["text"][-1])
    assert not [t for h, t in hovers([panels["relative_distance_from_init"]]) if "%{text}" in h]
    assert not [name for name in panels if "error" in name or "estimated" in name]


def test_why_there_is_no_spectrum(run):
    words = missing_epochs(run, "reused")
    assert words.endswith("3 needed none, because estimates or earlier values are near enough (`accuracy=`).")
    assert missing_epochs(run, "exact") == ""


def test_the_history_of_a_layer(run):
    panels = {panel["about"].partition(":")[0]: panel for panel in draw("history", [run], layer="reused")}
    (line,) = [t for h, t in hovers([panels[NORM]]) if "%{text}" in h]
    assert line["text"][-1] == with_error(run.values(NORM)[1, -1], run.errors(NORM)[1, -1])
    low, high = [t["y"] for _, t in hovers([panels[NORM]]) if t["meta"]["part"] in ("low", "high")]
    assert high - low == pytest.approx(2.0 * np.nan_to_num(run.errors(NORM)[1])) and high[0] == low[0]
    exact = {panel["about"].partition(":")[0]: panel for panel in draw("history", [run], layer="exact")}
    assert not any("±" in text for _, t in hovers([exact[NORM]]) for text in t.get("text", ()))


@pytest.mark.parametrize("width", [50, 80, 160])
def test_watch(run, width):
    console = Console(width=width, record=True, file=StringIO())
    console.print(screen(run, 5, width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    (stable,) = [line for line in text.splitlines() if line.strip().startswith("log spectral norm")]
    assert said(stable)
    if width == 160:
        (reused,) = [line for line in text.splitlines() if line.split()[:1] == ["reused"]]
        assert len(said(reused)) >= 2
        (exact,) = [line for line in text.splitlines() if line.split()[:1] == ["exact"]]
        assert not said(exact)


def test_lines_of_the_terminal(made):
    first, last = made[1][0], made[1][-1]
    assert "±" not in snapshot_line(first, 0)
    assert re.search(r"rank [\d.]+±[\d.]+", snapshot_line(last, 0)) and len(snapshot_line(last, 0)) < 80
    assert "± the error of estimates" in legend(first)


def test_scalars_and_the_worst_layers(made):
    last = made[1][-1]
    of_layers = layer_scalars(last)
    assert of_layers[f"spectral_layers/reused/{NORM}_error"] > 0.0
    assert f"spectral_layers/exact/{NORM}_error" not in of_layers
    assert describe(f"spectral_layers/reused/{NORM}_error").startswith("log spectral norm: error of the estimate")
    assert describe(f"spectral/{NORM}/median_error").startswith("log spectral norm: error of the median")
    sent = {name for name in scalars(last) if name.startswith(f"spectral/{NORM}/")}
    names = ("mean", "median", "q10", "q90", "min", "max", "median_error", "estimated")
    assert sent == {f"spectral/{NORM}/{name}" for name in names}
    worst = {(o.quantity.name, o.layer): o for o in outliers(last)}
    assert worst["effective_rank", "reused"].error > 0.0 == worst["effective_rank", "exact"].error
    assert said(worst_table(last))


def test_an_alert_shows_the_error_of_its_evidence():
    detector = RankCollapse(persistence=1)
    for step, (rank, error) in enumerate([(80.0, {}), (12.3456, {"effective_rank": 0.12})]):
        layers, errors = {"fc": {"effective_rank": rank}}, {"fc": error}
        found = detector.update(Observation(step, float(step), layers, errors=errors))
    assert "fell from 80 to 12.3 ± 0.1." in found[0].message
    alert = Alert(**vars(found[0]), step=1, epoch=1.0)
    assert evidence_text(alert).startswith("effective_rank 12.3 ± 0.1, highest 80, ")


def test_the_record_in_a_notebook_and_as_json(made, capsys):
    html = read_run(made[0])._repr_html_()
    assert said(html)
    assert main(["watch", str(made[0]), "--once", "--json"]) == 0
    layers = {row["layer"]: row for row in json.loads(capsys.readouterr().out)["layers"]}
    assert said(layers["reused"]["texts"]["effective_rank"])


def test_analyze_and_its_pages(tmp_path, capsys):
    names = [NORM, "stable_rank", "frobenius_norm"]
    weights = {"large.weight": with_spikes(600, 520), "small.weight": with_spikes(60, 40)}
    result = spectral.analyze(weights, names, accuracy=0.01)
    assert result.summary[f"{NORM}/estimated"] == 1.0
    assert result.statistics().loc[NORM, "max_error"] + result.statistics().loc[NORM, "min_error"] == pytest.approx(
        result.layers[f"{NORM}_error"].max(), rel=1e-6
    )
    assert said(repr(result).split("\n\n")[-1]) and "max_error" not in repr(result)
    save_file(weights, tmp_path / "model.safetensors")
    page, table = tmp_path / "page.html", tmp_path / "table.csv"
    arguments = ["--quantities", *names, "--accuracy", "0.01", "-o", str(page), "-o", str(table)]
    assert main(["analyze", str(tmp_path / "model.safetensors"), *arguments]) == 0
    printed = capsys.readouterr().out
    (large,) = [line for line in printed.splitlines() if line.strip().startswith("large")]
    (small,) = [line for line in printed.splitlines() if line.strip().startswith("small")]
    assert len(said(large)) == 2 and not said(small)
    assert said(page.read_text("utf-8")) and f"{NORM}_error" in table.read_text("utf-8")


def test_wandb_and_plotly_figures_have_the_errors(made):
    figure = figures.heat_map(made[0], NORM)
    assert any("±" in cell for trace in figure.data if trace.type == "heatmap" for row in trace.text for cell in row)


def test_the_page_in_a_browser(watched, made, run, tmp_path):
    """What the report computes in the browser has the same words as the figures."""
    page = watched.page
    page.goto(write_report(made[0], tmp_path / "report.html").as_uri())
    page.locator("[data-view=overview][data-drawn]").wait_for()
    cells = {row.split("\t")[0]: row for row in page.locator("table.layers tbody tr").all_inner_texts()}
    assert said(cells["reused"]) and said(cells["estimated"]) and not said(cells["exact"])
    open_tab(page, "layer")
    find(page, "reused")
    until(page, "document.querySelector('[data-figure=history]').dataset.figureOf?.includes('reused')")
    drawn = figure(page, "history", "figures.map((plot) => plot.data.map((t) => [t.meta.part, t.text, [...t.y]]))")
    for own, right in zip(drawn, draw("history", [run], layer="reused"), strict=True):
        assert [part for part, *_ in own] == [trace["meta"]["part"] for trace in right["data"]]
        for (part, text, y), trace in zip(own, right["data"], strict=True):
            assert (text or None) == trace.get("text"), part
            np.testing.assert_allclose(np.array(y, dtype=float), trace["y"], rtol=1e-3)
    open_tab(page, "heat_map")
    page.locator("select[name=quantity]").select_option("effective_rank")
    if not page.get_by_label("relative to epoch 0").is_checked():
        page.get_by_label("relative to epoch 0").check()
    until(
        page, """document.querySelector('[data-figure=heat_map]').dataset.figureOf.includes('effective_rank","rel')"""
    )
    (right,) = [t for h, t in hovers(draw("heat_map", [run], "effective_rank", relative=True)) if "%{text}" in h]
    assert figure(page, "heat_map", "figure.data[0].text") == right["text"]
