"""The tab SPECTRA in a real TensorBoard server, opened in a real browser while the record is being written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integrations.served import PAGE, tensorboard
from tests.integrations.synthetic import SyntheticRun
from ww_callbacks.integrations.record import RECORD_NAME

pytest.importorskip("tensorboard", reason="the tab needs the extra `tensorboard`")

HTML_NAME = "block.<img src=x onerror=document.title='hacked'>.weight"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> SyntheticRun:
    """A run that continues: 8 of its epochs are written, with an alert at the last."""
    folder = tmp_path_factory.mktemp("log") / "live" / "version_0"
    return SyntheticRun(folder, layers=6, collapse_at=7, rand_distance=True).advance(8)


@pytest.fixture(scope="module")
def server(live: SyntheticRun) -> Iterator[str]:
    """A server on that run, an older one with other layers, one half-written, one that is none."""
    root = live.folder.parents[1]
    older = SyntheticRun(root / "older", layers=["net.0.weight", HTML_NAME, "head.weight"], seed=1).advance(5)
    older.close("healthy")
    torn = SyntheticRun(root / "torn", layers=2, seed=2).advance(3).folder / RECORD_NAME
    torn.write_bytes(torn.read_bytes()[:-120])
    damaged = SyntheticRun(root / "damaged", layers=2, seed=3).advance(3).folder / RECORD_NAME
    damaged.write_bytes(damaged.read_bytes() + b"garbage\n")
    (root / "foreign").mkdir()
    (root / "foreign" / RECORD_NAME).write_text('{"loss": 1}\n')
    with tensorboard(root) as address:
        yield address


def opened(watched: Any, address: str) -> Any:
    """The plugin's page on its own, as it is in TensorBoard's frame."""
    watched.page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    watched.page.goto(f"{address}/{PAGE}")
    drawn(watched.page, "overview")
    return watched.page


def drawn(page: Any, view: str) -> None:
    page.locator(f"[data-view={view}][data-drawn]").wait_for()


def choose(page: Any, *names: str) -> None:
    """Tick these runs and no others."""
    page.get_by_role("button", name="none").click()
    for name in names:
        page.locator(f".runs input[data-run='{name}']").check()


def open_tab(page: Any, view: str) -> None:
    page.locator(f"button[data-tab={view}]").click()
    drawn(page, view)


def find(page: Any, layer: str) -> None:
    """Look for a layer by its name or a part of it."""
    page.locator("input[name=layer]").fill(layer)
    page.locator("input[name=layer]").press("Enter")
    page.locator(f"[data-figure=history][data-figure-of*='{layer[:12]}']").wait_for(state="attached")


def figure(page: Any, name: str, expression: str) -> Any:
    """What ``expression`` is of the view's first plotly figure, ``figure``, or of all its ``figures``."""
    found = "const figures = [...document.querySelectorAll(`[data-figure=${name}] .plot`)], figure = figures[0];"
    return page.evaluate(f"(name) => {{ {found} return {expression}; }}", name)


def test_the_tab_is_there_and_a_new_epoch_appears_without_reloading(watched, server, live):
    page = watched.page
    page.goto(f"{server}/#spectra")
    page.get_by_role("tab", name="Spectra").or_(page.get_by_text("SPECTRA", exact=True)).first.wait_for()
    tab = page.frame_locator("iframe")
    tab.locator("[data-view=overview][data-drawn]").wait_for()
    for name in ("live/version_0", "older"):
        tab.locator(f".runs input[data-run='{name}']").check()
    card = tab.locator(".card", has_text="live/version_0")
    card.get_by_text(f"epoch {live.epoch}, {live.epoch * 100} steps done").wait_for()
    assert "critical: scale collapse" in card.inner_text()
    assert "net.1.weight is shrinking towards zero. Since epoch 5." in card.inner_text()
    card.get_by_text("why").click()
    assert "net.1.weight (scale collapse since epoch 5)" in card.inner_text()
    assert "healthy" in tab.locator(".card", has_text="older").inner_text()
    assert tab.get_by_text("These runs watch different layers: 1 in common").is_visible()
    page.evaluate("window.notReloaded = true")
    frame = next(frame for frame in page.frames if "plugin_entry" in frame.url)
    frame.evaluate("window.notReloaded = true")
    live.advance()
    card.get_by_text(f"epoch {live.epoch}, {live.epoch * 100} steps done").wait_for()
    assert card.get_by_text("net.1.weight (scale").is_visible(), "what was opened stays open"
    assert page.evaluate("window.notReloaded") and frame.evaluate("window.notReloaded")
    frame.wait_for_function(
        "epoch => document.querySelector('[data-figure=timeline] .plot')._fullData.some(t => t.x?.at(-1) === epoch)",
        arg=live.epoch,
    )


def test_overview(watched, server, live):
    page = opened(watched, server)
    choose(page, "live/version_0")
    page.get_by_role("heading", name="Layers now: 1 of 6 with an alert").wait_for()
    row = page.locator("table.layers tbody tr").first  # the worst first
    assert "net.1.weight" in row.inner_text() and "✕ scale collapse since epoch 5" in row.inner_text()
    unsure = page.locator("tr", has_text="net.5.weight").first
    assert "α unsure: few eigenvalues" in unsure.inner_text()
    assert unsure.locator("td.unsure").inner_text().startswith("(")
    assert "critical alert" in figure(page, "alerts", "figure.data.map(trace => trace.name)")
    assert "live/version_0: train loss" in figure(page, "timeline", "figure.data.map(trace => trace.name)")
    assert "net.1.weight" in figure(page, "evidence", "figure.data.map(trace => trace.name)")
    assert "relative to its highest" in page.locator("[data-figure=evidence] figcaption").inner_text()
    page.get_by_text("Settings and versions").click()
    assert page.get_by_role("cell", name="2.13.0").is_visible()
    page.get_by_text("What the quantities mean").click()
    assert page.get_by_role("cell", name="exp(−Σ p ln p)").first.is_visible()


def test_heat_map_of_any_quantity_and_a_click_into_a_layer(watched, server, live):
    page = opened(watched, server)
    choose(page, "live/version_0", "older")
    open_tab(page, "heat_map")
    # It opens on what raised the alert of the worse run, and reports it.
    assert page.locator("select[name=quantity]").input_value() == "frobenius_norm"
    assert page.get_by_label("relative to epoch 0").is_checked()
    assert "“scale collapse” of live/version_0" in page.locator(".hint").inner_text()
    page.get_by_label("relative to epoch 0").uncheck()
    page.locator("select[name=quantity]").select_option("alpha")
    page.wait_for_function(
        "document.querySelector('[data-figure=heat_map]').dataset.figureOf.includes('\"alpha\",\"relative\":false')"
    )
    epochs = live.epoch + 1
    assert figure(page, "heat_map", "figure.calcdata[0][0].z.length") == 6
    assert figure(page, "heat_map", "figure.calcdata[0][0].z[0].length") == epochs
    assert page.get_by_text("faint: too little evidence for α").count() == 1, "of both runs, said once"
    page.locator("select[name=quantity]").select_option("effective_rank")
    page.wait_for_function(
        "document.querySelector('[data-figure=heat_map]').dataset.figureOf.includes('effective_rank')"
    )
    assert page.locator(".definition", has_text="exp(−Σ p ln p)").is_visible()
    assert figure(page, "heat_map", "figures.length") == 2
    # Click the cell of the third layer at epoch 2.
    box, x, y = figure(
        page,
        "heat_map",
        "(({x, y}, l) => [{x, y}, l.xaxis._offset + l.xaxis.d2p(2), l.yaxis._offset + l.yaxis.d2p('net.2.weight')])"
        "(figure.getBoundingClientRect(), figure._fullLayout)",
    )
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.click(box["x"] + x, box["y"] + y)
    drawn(page, "layer")
    assert page.locator("input[name=layer]").input_value() == "net.2.weight"
    page.wait_for_function("document.querySelector('.slider output')?.value.startsWith('2 of ')")


def test_one_layer(watched, server, live):
    page = opened(watched, server)
    choose(page, "live/version_0")
    open_tab(page, "layer")
    assert page.locator("#layers option").count() == 6
    assert page.locator("input[name=layer]").input_value() == "net.1.weight", "the layer with the alert first"
    find(page, "net.0.weight")
    names = figure(page, "spectrum", "figure.data.map(trace => trace.name)")
    assert (
        names[0] == "epoch 0"
        and names[1].startswith("eigenvalues")
        and any("power law: α = " in name for name in names)
    )
    assert any("Marchenko" in name for name in names) and any("shuffled" in name for name in names)
    assert figure(page, "spectrum", "[figure.layout.xaxis.type, figure.layout.yaxis.type]") == ["log", "log"]
    assert figure(page, "history", "figure.data.filter(trace => trace.fill === 'tonexty').length") == 1
    last = figure(page, "spectrum", "figure.data[3].name")
    page.locator(".slider input").fill("0")
    page.wait_for_function("document.querySelector('[data-figure=spectrum] .plot').layout.meta.at === 0")
    assert figure(page, "spectrum", "figure.data[2].name") != last  # no ghost of epoch 0 behind itself
    assert "epoch=0" in page.url or "epoch=0" in page.evaluate("location.hash")
    # The epoch that a user looks at stays while training continues; at the end of the slider the view follows.
    live.advance()
    page.wait_for_function("epoch => document.querySelector('.slider input').max === String(epoch)", arg=live.epoch)
    assert page.locator(".slider input").input_value() == "0"
    page.locator(".slider input").fill(str(live.epoch))
    spectrum = "document.querySelector('[data-figure=spectrum] .plot')"
    page.wait_for_function(f"epoch => {spectrum}.layout.meta.at === epoch", arg=live.epoch)
    find(page, "4.weight")
    page.get_by_role("button", name="next").click()
    page.wait_for_function(f"{spectrum}.data[3].name.includes('unsure: few eigenvalues')")
    assert page.get_by_role("button", name="next").is_disabled()


def test_flow_and_histograms(watched, server):
    page = opened(watched, server)
    choose(page, "live/version_0", "older")
    open_tab(page, "flow")
    titles = page.locator("[data-view=flow] figcaption .name").all_inner_texts()
    assert "live/version_0: α against depth" in titles and "older: α against depth" in titles
    assert titles.count("live/version_0: distance from the shuffle against α") == 1, "only of the run that measured it"
    assert figure(page, "flow", "figure.data.filter(trace => trace.meta?.role === 'flow').length") > 7
    names = figure(page, "histograms", "figure.data.map(trace => trace.name)")
    assert len(names) == 2 and names[1] == "older, epoch 4"


def test_a_name_with_html_is_a_name(watched, server):
    page = opened(watched, server)
    choose(page, "older")
    for view in ("overview", "heat_map", "layer", "flow"):
        open_tab(page, view)
    open_tab(page, "layer")
    find(page, HTML_NAME)
    page.wait_for_function("name => document.querySelector('[data-figure=history]').dataset.figureOf.includes('img')")
    open_tab(page, "overview")
    assert page.locator("td", has_text=HTML_NAME).first.is_visible()
    assert page.locator("img").count() == 0 and page.title() != "hacked"


def test_records_that_cannot_be_read_are_said_and_torn_ones_are_shown(watched, server):
    page = opened(watched, server)
    assert "foreign: " in page.locator(".note", has_text="foreign").inner_text()
    assert "not a spectral record" in page.locator(".note", has_text="foreign").inner_text()
    choose(page, "torn")
    # The last snapshot has lost its end: the two before it are there.
    page.get_by_text("torn: epoch 1, 100 steps done").wait_for()
    choose(page, "damaged")
    page.get_by_text("damaged: epoch 2, 200 steps done").wait_for()
    assert page.get_by_text("damaged: The rest could not be read").is_visible()
    choose(page)
    page.get_by_text("No run is chosen.").wait_for()


def test_without_a_record_the_tab_says_what_to_do_and_fills_by_itself(watched, tmp_path):
    with tensorboard(tmp_path) as server:
        page = watched.page
        page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
        page.goto(f"{server}/{PAGE}")
        page.get_by_text(f"No record of a run was found in {tmp_path}").wait_for()
        assert "--logdir" in page.locator(".empty").inner_text()
        SyntheticRun(tmp_path / "first", layers=2).advance(2)
        page.get_by_text("first: epoch 1, 100 steps done").wait_for()
        page.close()  # before its server goes


def test_a_hundred_layers_and_a_thousand_epochs_are_all_there(watched, tmp_path):
    SyntheticRun(tmp_path, layers=100, densities=False, collapse_at=700).advance(1001)
    with tensorboard(tmp_path) as server:
        page = opened(watched, server)
        assert figure(page, "timeline", "Math.max(...figure.calcdata.map(trace => trace.length))") == 1001
        open_tab(page, "heat_map")
        assert figure(page, "heat_map", "figure.calcdata[0][0].z.length") == 100
        assert figure(page, "heat_map", "figure.calcdata[0][0].z[99].length") == 1001
        page.close()
