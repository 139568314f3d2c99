from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.integrations.synthetic import SyntheticRun
from ww_callbacks.integrations import figures
from ww_callbacks.integrations.figures.alert_rules import score_threshold
from ww_callbacks.integrations.figures.first_look import first_look
from ww_callbacks.integrations.figures.layer_status import layer_statuses
from ww_callbacks.integrations.figures.palette import DARK, INK, PAPER, PURPLE
from ww_callbacks.integrations.figures.run_summary import headline
from ww_callbacks.integrations.figures.run_view import RunView, views
from ww_callbacks.integrations.figures.specs.alert_lane import alert_lane
from ww_callbacks.integrations.figures.specs.flow import EPOCH_SCALE, flow_panels
from ww_callbacks.integrations.figures.specs.heat_map import heat_map_panels
from ww_callbacks.integrations.figures.specs.history import history_panels
from ww_callbacks.integrations.figures.specs.spectrum import marchenko_pastur, spectrum_panels
from ww_callbacks.integrations.figures.specs.timeline import timeline_panels
from ww_callbacks.integrations.record import RecordSink
from ww_callbacks.integrations.schema import Alert, LayerInfo, LayerRow, RunInfo, Snapshot, Verdict
from ww_callbacks.spectral.aggregate.model_ranking import model_series

HTML_NAME = "block.<img src=x onerror=alert(1)>.weight"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    SyntheticRun(folder, layers=5, collapse_at=6, rand_distance=True).advance(11).close()
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "second"
    SyntheticRun(folder, layers=["net.0.weight", "net.1.weight", HTML_NAME], seed=1).advance(4)
    return folder


def traces(figure, **wanted):
    return [
        trace for trace in figure.data if all(getattr(trace, name, None) == value for name, value in wanted.items())
    ]


def test_timeline_has_the_alert_in_a_strip_above_the_loss_and_shades_the_verdict(run):
    figure = figures.timeline(run)
    (loss,) = traces(figure, name="first: train loss")
    (alert,) = traces(figure, name="critical alert")
    assert alert.x == (6.0,) and alert.yaxis != loss.yaxis  # the loss is not covered
    bar = figure.data[figure.data.index(alert) - 1]
    assert bar.x == (4.0, 10.0)  # since when, and now
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis2.domain[1]
    assert "scale collapse" in alert.text[0] and "Lower weight decay" in alert.text[0]
    rectangle = next(shape for shape in figure.layout.shapes if shape.type == "rect")
    assert (rectangle.x0, rectangle.x1) == (5.0, 10.0)
    said = " ".join(note.text for note in figure.layout.annotations)
    assert "collapsing since epoch 5" in said and "keep epoch 2.5" in said


def test_of_several_runs_the_strip_names_the_one_that_an_alert_is_of(run, other):
    lane = alert_lane(views([other, run]))
    assert [note["text"] for note in lane["layout"]["annotations"]] == ["first: scale collapse"]
    many = [RunView(views(run)[0].record, f"run {number}") for number in range(20)]
    lane = alert_lane(many)
    assert len(lane["layout"]["annotations"]) == 12 and lane["key"] == [("", "and 8 more in other runs")]
    assert lane["layout"]["height"] < 400


def test_evidence_shows_the_layer_that_crossed_the_threshold(run):
    figure = figures.evidence(run)
    (line,) = traces(figure, name="net.1.weight")
    np.testing.assert_allclose(np.asarray(line.y)[[0, 10]], [1.0, 0.25 * 9.0 / 8.3], atol=1e-6)
    threshold = next(shape for shape in figure.layout.shapes if shape.type == "line" and shape.yref == "y")
    assert threshold.y0 == pytest.approx(math.exp(-0.5))
    assert np.asarray(line.y)[-1] < threshold.y0 < np.asarray(line.y)[0]
    assert "scale collapse" in figure.layout.annotations[-1].text


def test_timeline_draws_the_recorded_medians(run):
    record = views(run)[0].record
    drawn = [list(trace.y) for trace in figures.timeline(run).data if trace.y is not None]
    assert list(record.model["alpha/median"]) in drawn
    assert list(record.model["scale_collapse/min"]) in drawn  # the layer at the bad end


def test_two_runs_differ_by_more_than_their_colour(run, other):
    losses = [trace for trace in figures.timeline([run, other]).data if str(trace.name).endswith("train loss")]
    assert len({trace.line.color for trace in losses}) == len({trace.line.dash for trace in losses}) == 2


def test_runs_with_several_losses_keep_their_dashes(tmp_path):
    """A dash tells the run, or, of a run alone, the loss; never both."""
    for name in ("a", "b"):
        SyntheticRun(tmp_path / name, layers=2, densities=False).advance(3)
        record = tmp_path / name / "spectral.jsonl"
        record.write_text(record.read_text().replace('"train_loss":', '"val_loss":0.5,"train_loss":'))
    both, alone = timeline_panels(views([tmp_path / "a", tmp_path / "b"])), timeline_panels(views(tmp_path / "a"))
    assert [one["title"] for one in both][:2] == ["train loss", "val loss"]
    for one in both[:2]:
        assert len({trace["line"]["dash"] for trace in one["data"]}) == 2
    assert alone[0]["title"] == "train loss (line), val loss (dotted)" and alone[0]["wide"]
    assert [trace["line"]["dash"] for trace in alone[0]["data"]] == ["solid", "dot"]


def test_heat_map_shows_unsure_cells_faintly_in_the_same_colours(run):
    view = views(run)[0]
    figure = figures.heat_map(run, "alpha")
    values, faint = (trace for trace in figure.data if trace.type == "heatmap")
    assert faint.opacity < 0.5 and faint.coloraxis == values.coloraxis
    assert np.isnan(np.asarray(values.z)[-1]).all()
    np.testing.assert_array_equal(np.asarray(faint.z)[-1], view.values("alpha")[-1])
    np.testing.assert_array_equal(np.asarray(values.z)[:-1], view.values("alpha")[:-1])
    assert set(faint.text[-1]) == {"few eigenvalues"}
    assert list(values.y) == view.layers  # depth order, and the full name in the hover label
    assert list(figure.layout.yaxis.ticktext) == view.short_names
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # the first layer at the top


def test_heat_map_says_the_error_of_what_is_estimated(tmp_path):
    """In its hover, and not as a separate quantity."""
    sink = RecordSink()
    layer = LayerInfo("fc", 0, "dense", "Linear", (4, 4), ((4, 4),))
    sink.open(RunInfo("id", "plain", "now", {}, {}, (layer,), str(tmp_path)), False)
    for epoch, errors in enumerate([{}, {"stable_rank": 0.02}]):
        row = LayerRow("fc", 0, {"stable_rank": 3.0, "frobenius_norm": 1.0}, errors=errors)
        sink.snapshot(Snapshot(epoch, float(epoch), "full", (row,), {}, {}, 0.0, 0.0, 0.0))
    sink.close(None)
    assert views(tmp_path)[0].quantities == ["stable_rank", "frobenius_norm"]
    (cells,) = [t for t in traces(figures.heat_map(tmp_path, "stable_rank"), type="heatmap") if t.text is not None]
    assert [list(row) for row in cells.text] == [["3", "3.00 ± 0.02"]]
    assert not [t for t in traces(figures.heat_map(tmp_path, "frobenius_norm"), type="heatmap") if t.text is not None]


def test_heat_map_relative_to_epoch_0(run):
    view = views(run)[0]
    ratio = figures.heat_map(run, "effective_rank", relative=True)
    first = view.values("effective_rank")[:, :1]
    np.testing.assert_allclose(np.asarray(ratio.data[0].z), view.values("effective_rank") / first)
    axis = ratio.layout.coloraxis
    assert (axis.cmin + axis.cmax) / 2 == pytest.approx(1)
    difference = figures.heat_map(run, "log_spectral_norm", relative=True)
    norms = view.values("log_spectral_norm")
    np.testing.assert_allclose(np.asarray(difference.data[0].z), norms - norms[:, :1])


def test_the_first_look_is_never_a_wall_without_evidence(tmp_path):
    SyntheticRun(tmp_path / "sure", layers=6).advance(3).close("healthy")
    assert first_look(views(tmp_path / "sure")[0]).quantity == "alpha"
    SyntheticRun(tmp_path / "unsure", layers=1).advance(3)  # its one layer has too few eigenvalues
    look = first_look(views(tmp_path / "unsure")[0])
    assert look.quantity == "effective_rank" and look.relative and "0%" in look.why


@pytest.mark.parametrize(
    ("kind", "quantity", "relative"),
    [
        ("scale collapse", "frobenius_norm", True),
        ("rank collapse", "effective_rank", True),
        ("explosion", "frobenius_norm", True),
        ("dead layer", "relative_update_norm", False),
        ("alpha out of range", "alpha", False),
        ("overtraining", "alpha", False),  # no quantity of a layer raised it
    ],
)
def test_the_first_look_is_at_what_raised_the_finding(tmp_path, kind, quantity, relative):
    run = SyntheticRun(tmp_path, layers=6, densities=False).advance(9)
    run.sink.alert(replace(run.collapse(), kind=kind))
    run.close("collapsing")
    look = first_look(views(tmp_path)[0])
    assert (look.quantity, look.relative) == (quantity, relative)
    assert (kind in look.why) == (kind != "overtraining")


def test_a_row_with_an_alert_is_named_where_there_is_no_room_for_every_name(tmp_path):
    names = [f"model.layers.{i // 6}.{part}.weight" for i, part in enumerate("qkvoud" * 50)]
    SyntheticRun(tmp_path, names, collapse_at=3, densities=False).advance(5)
    (one,) = heat_map_panels(views(tmp_path), "frobenius_norm")
    labels = dict(zip(one["layout"]["yaxis"]["tickvals"], one["layout"]["yaxis"]["ticktext"], strict=True))
    assert labels[names[1]] == "layers.0.k" and names[0] not in labels, "instead of its block"
    rows = sorted(names.index(name) for name in labels)
    assert len(rows) > 20 and min(np.diff(rows)) * 900 / 300 >= 13


def test_heat_map_of_a_norm_knows_no_doubt(run):
    figure = figures.heat_map(run, "log_spectral_norm")
    (values,) = [trace for trace in figure.data if trace.type == "heatmap"]
    assert np.isfinite(np.asarray(values.z)).all()


def test_heat_map_marks_the_alert_in_the_row_of_its_layer_and_only_where_its_quantity_is_shown(run):
    (alert,) = traces(figures.heat_map(run, "frobenius_norm"), name="critical alert")
    assert (alert.x, alert.y) == ((6.0,), ("net.1.weight",))
    assert not traces(figures.heat_map(run, "alpha"), name="critical alert")


def test_heat_map_says_which_quantities_there_are(run):
    with pytest.raises(ValueError, match=r"No run measured the quantity `alfa`\. Expected one of: .*alpha"):
        figures.heat_map(run, "alfa")


def test_layer_names_are_never_html(other):
    for figure in (
        figures.heat_map(other),
        figures.layer_history(other, HTML_NAME),
        figures.layer_spectrum(other, HTML_NAME),
        figures.correlation_flow(other),
        figures.timeline(other),
    ):
        data = [trace.to_plotly_json() for trace in figure.data]
        for trace in data:
            trace.pop("meta", None)  # for our own script, which makes text nodes of it
        assert "<img" not in str(data) and "<img" not in str(figure.layout.annotations)


def test_spectrum_draws_the_fit_the_bulk_and_xmin_of_each_epoch(run):
    density = views(run)[0].record.density("net.2.weight")
    figure = figures.layer_spectrum(run, "net.2.weight")
    assert len(figure.frames) == len(density) == len(figure.layout.sliders[0].steps) == 11
    assert figure.data[0].name == "epoch 0" and figure.data[0].meta["role"] == "ghost"
    for frame, recorded in zip(figure.frames, density, strict=True):
        assert frame.traces[0] == 1  # the ghost stays
        bars, _, fit, shuffled, xmin, curve, chosen = frame.data
        # The bars hold the whole density: it integrates to one.
        assert np.nansum(np.asarray(bars.y) * np.asarray(bars.width)) == pytest.approx(1)
        slope = np.diff(np.log(fit.y)) / np.diff(np.log(fit.x))
        assert slope[0] == pytest.approx(-recorded["alpha"])
        assert fit.x[0] == xmin.x[0] == chosen.x[0] == pytest.approx(recorded["xmin"])
        assert shuffled.x[0] == pytest.approx(recorded["shuffled_max"])
        np.testing.assert_allclose(curve.y, recorded["candidates"]["D"])
        assert f"± {recorded['sigma']:.2g}" in fit.name


def test_spectrum_of_a_layer_without_evidence_is_dashed_and_says_so(run):
    fit = figures.layer_spectrum(run, "net.4.weight").data[3]
    assert fit.line.dash == "dash"
    assert "unsure: few eigenvalues" in fit.name


def test_labels_of_many_decades_are_few_and_upright(tmp_path):
    wide = SyntheticRun(tmp_path, layers=2)
    wide.bulk = wide.bulk * 1e-12
    wide.advance(1).close()
    density, distance = spectrum_panels(views(tmp_path)[0], "net.0.weight")
    for axis in (density["layout"]["xaxis"], density["layout"]["yaxis"], distance["layout"]["xaxis"]):
        assert axis["dtick"] >= 2 and axis["tickangle"] == 0


def test_one_epoch_of_a_spectrum_is_the_nearest_one(run):
    view = views(run)[0]
    density, _ = spectrum_panels(view, "net.2.weight", 3.4)
    assert density["layout"]["meta"] == {"epochs": [float(epoch) for epoch in range(11)], "at": 3, "missing": ""}
    whole = figures.layer_spectrum(run, "net.2.weight").frames[3].data[0]
    np.testing.assert_array_equal(density["data"][1]["y"], whole.y)  # behind it the ghost of epoch 0
    assert len(spectrum_panels(view, "net.2.weight", 0)[0]["data"]) == len(density["data"]) - 1


@pytest.mark.parametrize(("rows", "columns", "variance"), [(300, 200, 0.01), (400, 400, 1.0), (1000, 50, 0.3)])
def test_marchenko_pastur_is_the_law_of_random_matrices(rows, columns, variance):
    plus, minus = (variance * (math.sqrt(rows) + sign * math.sqrt(columns)) ** 2 for sign in (1, -1))
    x, y = marchenko_pastur(minus, plus, plus * 1e-7)
    assert np.trapezoid(y, x) == pytest.approx(1, abs=0.02)
    matrix = np.random.default_rng(0).normal(0, math.sqrt(variance), (rows, columns))
    eigenvalues = np.linalg.svd(matrix, compute_uv=False) ** 2
    median = np.interp(0.5, np.concatenate([[0], np.cumsum(np.diff(x) * (y[1:] + y[:-1]) / 2)]), x)
    assert median == pytest.approx(np.median(eigenvalues), rel=0.06)


def test_history_shows_the_standard_error_and_hollow_marks(run):
    view = views(run)[0]
    figure = figures.layer_history(run, "net.0.weight", ["alpha"])
    low, high, line = figure.data
    np.testing.assert_allclose(np.asarray(high.y) - np.asarray(low.y), 2 * view.values("sigma")[0])
    np.testing.assert_allclose(line.y, view.values("alpha")[0])
    unsure = figures.layer_history(run, "net.4.weight", ["alpha"])
    assert np.isnan(np.asarray(unsure.data[2].y)).all()
    assert unsure.data[3].marker.symbol == "circle-open"


def test_bands_of_many_runs_do_not_hide_one_another(run):
    record = views(run)[0].record
    filled = [
        sum("fill" in trace for trace in history_panels(many, "net.0.weight", ["alpha"])[0]["data"])
        for many in ([RunView(record, f"run {number}") for number in range(count)] for count in (3, 4))
    ]
    assert filled == [3, 0]


def test_history_refuses_what_is_not_there(run):
    with pytest.raises(ValueError, match="No run watches the layer `nothing`"):
        figures.layer_history(run, "nothing")
    with pytest.raises(ValueError, match="No run measured `nothing`"):
        figures.layer_history(run, "net.0.weight", ["nothing"])


def test_flow_overlays_epochs_without_the_layers_that_say_nothing(run):
    view = views(run)[0]
    figure = figures.correlation_flow(run)
    lines = [trace for trace in figure.data if trace.meta and trace.meta["role"] == "flow"]
    assert next(trace.meta["epoch"] for trace in lines) == 0.0 and lines[-1].meta["epoch"] == 10.0
    np.testing.assert_allclose(lines[-1].y, [*view.values("alpha")[:4, -1], np.nan])
    scatter = traces(figure, yaxis="y2")
    assert lines[-1].text[0] == "net.0.weight"
    np.testing.assert_allclose(scatter[0].y, view.values("rand_distance")[:4, -1])
    np.testing.assert_allclose(scatter[0].x, view.values("alpha")[:4, -1])


def luminance(colour: str) -> float:
    parts = np.array(list(bytes.fromhex(colour[1:]))) / 255
    return float(np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("page", [PAPER, DARK[PAPER]])
def test_the_lines_of_every_epoch_show_on_a_light_page_and_on_a_dark_one(page):
    for _, colour in EPOCH_SCALE:
        low, high = sorted(luminance(one) for one in (page, DARK.get(colour, colour) if page != PAPER else colour))
        assert (high + 0.05) / (low + 0.05) >= 3, (page, colour)  # what WCAG 2 asks of graphics


def test_long_layer_names_below_the_flow_have_room_of_their_own(tmp_path):
    inner = []
    for name in ("a", "block.with_a_name_that_is_long"):
        SyntheticRun(tmp_path / name, [f"{name}.{i}.weight" for i in range(3)]).advance(2)
        layout = flow_panels(views(tmp_path / name))[0]["layout"]
        margin = layout["margin"]
        longest = max(map(len, layout["xaxis"]["ticktext"]))
        assert margin["b"] >= 40 + 3.5 * longest, "the axis title lies on the names"
        inner.append(layout["height"] - margin["b"])
    assert inner[0] <= inner[1] + 30 and inner[1] > 200


def test_histograms_count_only_what_counts(run, other):
    figure = figures.histograms([run, other])
    # Each bin is drawn by its two ends: alpha of both, then log spectral norm.
    assert [int(sum(line.y)) // 2 for line in figure.data if line.y is not None and line.y[0] is not None][:4] == [
        4,
        2,
        5,
        3,
    ]
    assert len({(line.line.color, line.line.dash) for line in figure.data[:2]}) == 2
    alone = figures.histograms(run)
    assert [line.name for line in alone.data[:2]] == ["epoch 0", "epoch 10"]


@pytest.mark.parametrize("count", [2, 7, 20])
def test_many_runs_are_told_apart_and_none_is_left_out(run, count):
    record = views(run)[0].record
    many = [RunView(record, f"run {number}") for number in range(count)]
    losses = [trace for trace in figures.timeline(many).data if str(trace.name).endswith("train loss")]
    assert len({(trace.line.color, trace.line.dash) for trace in losses}) == count
    panels = [axis for name, axis in figures.heat_map(many).layout.to_plotly_json().items() if name.startswith("xaxis")]
    assert len(panels) == count
    widths = [(axis["domain"][1] - axis["domain"][0]) * 1100 for axis in panels]
    assert min(widths) > 250 and len({tuple(axis["domain"]) for axis in panels}) <= 3  # rows of at most three
    drawn = figures.histograms(many).data
    assert sum("run" in str(trace.name) for trace in drawn) >= 2 * count
    flow = figures.correlation_flow(many)
    assert len({trace.xaxis for trace in flow.data if trace.meta and trace.meta["role"] == "flow"}) == count


def test_a_dark_figure_has_dark_colours_and_the_same_data(run):
    light, dark = figures.timeline(run), figures.timeline(run, dark=True)
    assert dark.layout.paper_bgcolor == DARK["#ffffff"] and dark.layout.font.color == DARK[INK]
    for one, other in zip(light.data, dark.data, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(np.asarray(one.x), np.asarray(other.x))


def test_runs_with_the_same_folder_name_get_labels_that_differ(tmp_path):
    for name in ("a", "b"):
        SyntheticRun(tmp_path / name / "version_0", layers=2).advance(1)
    labels = [view.label for view in views([tmp_path / "a" / "version_0", tmp_path / "b" / "version_0"])]
    assert labels == ["a/version_0", "b/version_0"]


@pytest.mark.parametrize(
    ("state", "tone"), [("healthy", "good"), ("no sign of overtraining", "open"), ("watch", "watch")]
)
def test_only_healthy_is_good(tmp_path, state, tone):
    SyntheticRun(tmp_path, layers=2).advance(2).close(state)
    assert headline(views(tmp_path)[0]).tone == tone


def test_without_a_verdict_nothing_is_good_yet(tmp_path):
    SyntheticRun(tmp_path, layers=2).advance(2)
    said = headline(views(tmp_path)[0])
    assert (said.title, said.tone) == ("no alert so far", "open")


def test_standings_say_since_when(run):
    rows = {row.layer: row for row in layer_statuses(views(run)[0])}
    assert rows["net.1.weight"].in_words == "scale collapse since epoch 4"
    assert rows["net.1.weight"].severity == "critical"
    assert rows["net.4.weight"].in_words == "no alert; α unsure: few eigenvalues"
    assert rows["net.0.weight"].in_words == "no alert"


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run whose second layer turns NaN after its first epoch, with an alert about the whole model."""
    folder = tmp_path_factory.mktemp("runs") / "broken"
    layers = tuple(LayerInfo(f"fc{i}", i, "dense", "Linear", (9, 9), ((9, 9),)) for i in range(2))
    sink = RecordSink(folder)
    sink.open(RunInfo("id", "plain", "2026-01-01T00:00:00+00:00", {}, {}, layers, str(folder)), resumed=False)
    for epoch in range(3):
        bad = epoch > 0
        rows = (
            LayerRow("fc0", 0, {"alpha": 3.0, "alpha_evidence": "sufficient"}),
            LayerRow("fc1", 1, {"alpha": math.nan if bad else 3.5, "alpha_evidence": "" if bad else "sufficient"},
                     status="non-finite" if bad else "ok"),
        )  # fmt: skip
        sink.snapshot(Snapshot(epoch * 10, float(epoch), "full", rows, {}, {}, 0.1, 0.01, float(epoch)))
    sink.alert(
        Alert("internal error", "info", (), {}, 10, 1.0, "The disk was full.", "Free some space.", step=20, epoch=2.0)
    )
    return folder


def test_broken_layers_have_a_colour_of_their_own(broken):
    figure = figures.heat_map(broken)
    cells = next(trace for trace in figure.data if trace.type == "heatmap" and trace.colorscale)
    assert cells.colorscale[0][1] == PURPLE
    np.testing.assert_array_equal(np.isfinite(np.asarray(cells.z)), [[False, False, False], [False, True, True]])
    assert cells.text[1][2] == "non-finite"


def test_an_alert_about_the_whole_model_has_a_row_of_its_own(broken):
    (panel,) = heat_map_panels(views(broken), notes=True)
    alert = next(trace for trace in panel["data"] if trace.get("name") == "info alert")
    assert alert["y"] == ["whole model"] and panel["layout"]["yaxis"]["categoryarray"][0] == "whole model"
    assert not traces(figures.heat_map(broken), name="info alert"), "notes are off until they are asked for"


def test_a_run_without_losses_densities_or_summaries_is_drawn(broken):
    assert any("no loss" in note.text for note in figures.timeline(broken).layout.annotations)
    assert "No spectral density" in figures.layer_spectrum(broken, "fc0").layout.annotations[0].text
    lane = alert_lane(views(broken), notes=True)
    assert lane is not None and alert_lane(views(broken)) is None


def test_a_moment_measured_twice_is_shown_once_as_it_was_measured_last(tmp_path):
    run = SyntheticRun(tmp_path, layers=3).advance(1)
    run.epoch -= 1
    run.advance(3)  # epoch 0 again, then 1 and 2
    view = views(tmp_path)[0]
    assert list(view.steps) == [0, 0, 100, 200] and list(view.measured("alpha")) == [1, 2, 3]
    rows = view.record.layers
    np.testing.assert_array_equal(view.values("alpha").T.ravel(), rows["alpha"])
    assert list(figures.heat_map(tmp_path).data[0].x) == [0, 1, 2]


def test_a_run_that_has_only_begun_is_drawn(tmp_path):
    SyntheticRun(tmp_path, layers=2)
    assert "No run has a finding" in figures.evidence(tmp_path).layout.annotations[0].text
    for figure in (figures.timeline(tmp_path), figures.heat_map(tmp_path), figures.correlation_flow(tmp_path),
                   figures.histograms(tmp_path), figures.layer_history(tmp_path, "net.0.weight")):  # fmt: skip
        assert "appear" in figure.layout.annotations[0].text


def test_a_metric_against_accuracy_with_one_line_a_series():
    small = model_series([2.0, 3.0, 4.0], [70.0, 80.0, 90.0], ["a", "b", "<b>"])
    large = model_series([5.0, 4.5, 7.0, np.nan], [60.0, 55.0, 75.0, 1.0])
    figure = figures.metric_against_accuracy({"small": small, "large": large}, "alpha", "accuracy in %")
    marks, lines = traces(figure, mode="markers"), traces(figure, mode="lines")
    assert [len(trace.x) for trace in marks] == [3, 3], "a model without a metric is left out"
    assert marks[0].name == f"small: RMSE {small.rmse:.3g}, τ = 1.00 (p = 0.33, 3 models)"
    assert marks[0].text[2] == "&lt;b&gt;"
    assert (list(lines[0].x), [round(y, 9) for y in lines[0].y]) == ([2.0, 4.0], [70.0, 90.0])
    assert (lines[1].y[1] - lines[1].y[0]) / (7.0 - 4.5) == pytest.approx(large.slope)
    assert figure.layout.xaxis.title.text == "alpha" and figure.layout.yaxis.title.text == "accuracy in %"


def test_a_series_without_a_line_says_so():
    figure = figures.metric_against_accuracy(model_series([3.0, 3.0], [1.0, 2.0]))
    assert not traces(figure, mode="lines") and "no line" in figure.data[0].name
    assert "No model" in figures.metric_against_accuracy(model_series([], [])).layout.annotations[0].text


def test_no_run_is_refused():
    with pytest.raises(ValueError, match="at least one run"):
        figures.timeline([])


@pytest.mark.parametrize("name", ["figure.html", "figure.json"])
def test_figures_are_saved(run, tmp_path, name):
    written = figures.save(figures.histograms(run), tmp_path / name)
    assert written.stat().st_size > 1000
    if written.suffix == ".html":
        assert '"showSendToCloud": false' in written.read_text(), "no button that uploads the figure"


@pytest.mark.filterwarnings("ignore:The kopts argument is ignored")
def test_figures_are_saved_as_images(run, tmp_path, chromium, monkeypatch, request):
    kaleido = pytest.importorskip("kaleido", reason="images need the extra `figures`")
    monkeypatch.setenv("BROWSER_PATH", chromium)
    kaleido.start_sync_server(silence_warnings=True)  # one browser for both images
    request.addfinalizer(lambda: kaleido.stop_sync_server(silence_warnings=True))
    png = figures.save(figures.histograms(run), tmp_path / "figure.png", scale=1).read_bytes()
    assert png.startswith(b"\x89PNG") and int.from_bytes(png[16:20], "big") == 1100
    svg = figures.save(figures.histograms(run), tmp_path / "figure.svg").read_text()
    assert svg.startswith("<svg") and "over the layers" in svg


def test_unknown_endings_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"Expected a name that ends with .*\.svg"):
        figures.save(figures.histograms(run), tmp_path / "figure.doc")


def test_cheap_snapshots_count_only_for_what_they_measured(tmp_path):
    layers = (LayerInfo("fc", 0, "dense", "Linear", (9, 9), ((9, 9),)),)
    sink = RecordSink(tmp_path)
    sink.open(RunInfo("id", "plain", "2026-01-01T00:00:00+00:00", {}, {}, layers, str(tmp_path)), resumed=False)
    for step in range(0, 50, 10):  # a full one at 0, 20 and 40; at 40 a cheap one came just before
        for kind in ("cheap", "full") if step == 40 else ("full",) if step == 20 or not step else ("cheap",):
            values = {"frobenius_norm": float(step)} | ({"effective_rank": 5.0 + step} if kind == "full" else {})
            row = LayerRow("fc", 0, values)
            sink.snapshot(Snapshot(step, step / 20, kind, (row,), {}, {}, 0.1, 0.01, float(step)))
    cheap, full = (
        figures.heat_map(tmp_path, "frobenius_norm").data[0],
        figures.heat_map(tmp_path, "effective_rank").data[0],
    )
    assert list(cheap.x) == [0, 0.5, 1, 1.5, 2] and list(np.asarray(cheap.z)[0]) == [0, 10, 20, 30, 40]
    assert list(full.x) == [0, 1, 2] and list(np.asarray(full.z)[0]) == [5, 25, 45]
    assert layer_statuses(views(tmp_path)[0])[0].values == {"frobenius_norm": 40.0, "effective_rank": 45.0}


@pytest.mark.parametrize("validated", [True, False])
def test_the_evidence_of_overtraining_is_what_it_was_judged_by(tmp_path, validated):
    layers = (LayerInfo("fc", 0, "dense", "Linear", (9, 9), ((9, 9),)),)
    sink = RecordSink(tmp_path)
    sink.open(RunInfo("id", "plain", "2026-01-01T00:00:00+00:00", {}, {}, layers, str(tmp_path)), resumed=False)
    for epoch in range(6):
        metrics = {"train_loss": 1 / (1 + epoch), **({"val_loss": 1 + abs(epoch - 2) / 10} if validated else {})}
        model = {"overtraining/score": epoch / 6}
        row = LayerRow("fc", 0, {"frobenius_norm": 1.0 + epoch})
        sink.snapshot(Snapshot(epoch * 10, float(epoch), "full", (row,), model, metrics, 0.1, 0.01, float(epoch)))
    common = {"kind": "overtraining", "severity": "critical", "layers": ("fc",), "evidence": {"score": 1.0}}
    sink.alert(Alert(**common, since_step=20, since_epoch=2.0, step=50, epoch=5.0, message="m", recommendation="r"))
    signals = {"overtraining/score": 1.0}
    sink.close(
        Verdict("overtraining", "m", signals=signals, since_step=20, since_epoch=2.0, best_step=20, best_epoch=2.0)
    )
    figure = figures.evidence(tmp_path)
    level = next(shape.y0 for shape in figure.layout.shapes if shape.yref == "y")
    assert level == pytest.approx(1.0 if validated else score_threshold())
    assert ("validation loss" if validated else "probability") in [
        trace.name for trace in figure.data if len(trace.x) > 1
    ]
    assert any("keep epoch 2" in note.text for note in figure.layout.annotations)
    timeline = figures.timeline(tmp_path)
    assert any("probability that further training" in note.text for note in timeline.layout.annotations)
