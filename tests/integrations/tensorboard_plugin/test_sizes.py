"""The tab at the sizes that windows have, with few and many runs and layers, on a light page and on a dark one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.integrations.served import PAGE, tensorboard
from tests.integrations.synthetic import SyntheticRun

pytest.importorskip("tensorboard", reason="the tab needs the extra `tensorboard`")

VIEWS = ("overview", "heat_map", "layer", "flow")
WIDTHS = (1400, 800, 400)
PLOTS = """[...document.querySelectorAll('[data-view]:not([hidden]) .plot')].map((plot) => ({
    name: plot.closest('[data-figure]').dataset.figure, width: plot.clientWidth, height: plot.clientHeight,
    drawn: plot._fullLayout?.height, across: plot._fullLayout?.width,
    inner: plot._fullLayout?._size?.w, left: plot.getBoundingClientRect().left}))"""


def gpt(blocks: int) -> list[str]:
    parts = (
        "attn.c_attn.weight[q]",
        "attn.c_attn.weight[k]",
        "attn.c_attn.weight[v]",
        "mlp.c_fc.weight",
        "mlp.c_proj.weight",
    )
    return ["wte.weight", *(f"transformer.h.{i}.{part}" for i in range(blocks) for part in parts), "lm_head.weight"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sizes")
    SyntheticRun(root / "one" / "run", layers=3, collapse_at=6, rand_distance=True).advance(9).close()
    for i in range(7):
        run = SyntheticRun(
            root / "many" / f"decay{i % 2}" / f"seed_{i}", layers=gpt(1), seed=i, collapse_at=3 if i == 4 else None
        )
        run.advance(5).close("collapsing" if i == 4 else "healthy")
    for i in range(13):
        SyntheticRun(root / "more" / f"r{i:02}", layers=2, seed=i, densities=False).advance(3)
    moe = [
        f"model.layers.{b}.experts.{e}.{part}.weight"
        for b in range(12)
        for e in range(16)
        for part in ("w1", "w2", "w3")
    ]
    SyntheticRun(root / "huge" / "moe", layers=[*moe, *gpt(1)], collapse_at=1, densities=False).advance(3)
    deep = SyntheticRun(root / "deep" / "gpt", layers=gpt(30)[:150], collapse_at=3, densities=False)
    deep.advance(5)
    return root


@pytest.fixture(scope="module", params=["one", "many", "deep"])
def server(request: pytest.FixtureRequest, logs: Path) -> Iterator[str]:
    with tensorboard(logs / request.param) as address:
        yield address


def settle(page: Any, view: str) -> list[dict[str, Any]]:
    """The figures of the view, once they have their size."""
    page.locator(f"button[data-tab={view}]").click()
    page.locator(f"[data-view={view}][data-drawn]").wait_for()
    page.wait_for_function(f"{PLOTS}.every((plot) => plot.across && Math.abs(plot.across - plot.width) < 2)")
    return page.evaluate(PLOTS)


def look(watched: Any, server: str, theme: str = "light") -> Any:
    page = watched.page
    page.emulate_media(color_scheme=theme)
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    page.goto(f"{server}/{PAGE}")
    page.locator("[data-view=overview][data-drawn]").wait_for()
    if page.get_by_role("button", name="all", exact=True).is_visible():
        page.get_by_role("button", name="all", exact=True).click()
        page.wait_for_timeout(200)
    return page


def test_every_view_survives_every_resize_and_coming_back(watched, server):
    page = look(watched, server)
    first: dict[str, list[float]] = {}
    for width, view in itertools.product((*WIDTHS, WIDTHS[0]), VIEWS):
        page.set_viewport_size({"width": width, "height": 900})
        plots = settle(page, view)
        heights = [plot["drawn"] for plot in plots]
        assert plots and heights == first.setdefault(view, heights), f"{view} at {width}"
        for plot in plots:
            assert plot["drawn"] == plot["height"] and plot["width"] >= 300, (view, width, plot)
            assert plot["inner"] > 90, f"no room is left for the values: {view} at {width}: {plot}"
        assert len({round(plot["left"]) for plot in plots}) <= 4  # rows of at most three, and a wide one
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            f"{view} at {width} scrolls sideways"
        )


MANY = [f"many/decay{i % 2}/seed_{i}" for i in range(7)]
SHOWN = {
    "one": ["one/run"],
    "two": MANY[3:5],
    "seven": MANY,
    "twenty": [*MANY, *(f"more/r{i:02}" for i in range(13))],
    "150 layers": ["deep/gpt"],
    "583 layers": ["huge/moe"],
}
COMPLAINTS = r"""(() => {
    const view = document.querySelector('[data-view]:not([hidden])');
    const said = [];
    if (document.documentElement.scrollWidth > innerWidth) said.push('scrolls sideways');
    const drawn = [...view.querySelectorAll('.plot text')].map((text) => text.textContent);
    for (const text of [document.body.innerText, ...drawn]) {
        const wrong = text.match(/.{0,40}(\bNaN\b|undefined|Infinity|\[object).{0,40}/);
        if (wrong) said.push(wrong[0]);
    }
    const boxes = [...view.querySelectorAll('.panel, .card, .scroll')].filter((part) => !part.closest('details'))
        .map((part) => part.getBoundingClientRect()).filter((box) => box.height > 0);
    boxes.forEach((a, at) => boxes.slice(at + 1).forEach((b) => {
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > 1 && down > 1) said.push(`overlap by ${across} x ${down}`);
    }));
    // Of the panels beside one another, the titles have one line and the plots another.
    const rows = new Map();
    for (const panel of view.querySelectorAll('.panel')) {
        const [title, plot] = ['figcaption', '.plot'].map((part) => panel.querySelector(part).getBoundingClientRect());
        const ends = [panel.querySelector('figcaption').hidden ? null : Math.round(title.top), Math.round(plot.bottom)];
        const row = Math.round(panel.getBoundingClientRect().top);
        rows.set(row, [...(rows.get(row) ?? []), String(ends)]);
    }
    for (const ends of rows.values()) if (new Set(ends).size > 1) said.push(`a row is crooked: ${ends}`);
    const keys = [...view.querySelectorAll('.panel .key')].map((key) => key.innerText)
        .filter((text) => text.includes('hollow'));
    if (keys.length > 2 && new Set(keys).size === 1) said.push('what colours mean is said again and again');
    for (const plot of view.querySelectorAll('.plot')) {
        if (plot._fullLayout.height !== plot.clientHeight) said.push('a height is lost');
    }
    return said;
})()"""


@pytest.fixture(scope="module")
def whole(logs: Path) -> Iterator[str]:
    with tensorboard(logs) as address:
        yield address


@pytest.mark.parametrize("shown", SHOWN)
def test_every_view_is_sound_with_many_runs_and_layers_light_and_dark(watched, whole, shown):
    page = watched.page
    page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    runs = ",".join(quote(name, safe="") for name in SHOWN[shown])
    page.goto(f"{whole}/{PAGE}#{urlencode({'runs': runs})}")
    # Every view in one of the themes at each width; several runs at the outer widths alone, as their figures take long.
    widths = WIDTHS if len(SHOWN[shown]) == 1 else (WIDTHS[0], WIDTHS[-1])
    for width, theme in zip(widths, itertools.cycle(("dark", "light"))):
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": 900})
        for view in VIEWS:
            settle(page, view)
            assert page.evaluate(COMPLAINTS) == [], f"{view} at {width}, {theme}"
    assert page.locator(".runs input:checked").count() == len(SHOWN[shown])


def test_a_resize_while_another_view_is_open(watched, server):
    page = look(watched, server)
    before = [plot["drawn"] for plot in settle(page, "overview")]
    settle(page, "flow")
    for width in (400, 800):
        page.set_viewport_size({"width": width, "height": 900})
    after = settle(page, "overview")
    assert [plot["drawn"] for plot in after] == before


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_follow_the_system_at_once(watched, server, theme):
    page = look(watched, server, theme)
    backgrounds = "[...document.querySelectorAll('.plot')].map((plot) => plot.layout.paper_bgcolor)"
    papers = {"light": "#ffffff", "dark": "#1f2023"}
    assert set(page.evaluate(backgrounds)) == {papers[theme]}
    other = {"light": "dark", "dark": "light"}[theme]
    page.emulate_media(color_scheme=other)
    page.wait_for_function(f"{backgrounds}.every((colour) => colour === '{papers[other]}')")
    assert page.evaluate("document.documentElement.dataset.theme") == other


def test_many_runs_are_a_table_and_its_worst_is_first(watched, logs):
    with tensorboard(logs / "many") as server:
        page = look(watched, server)
        rows = page.locator("table.many tbody tr")
        rows.nth(6).wait_for()
        assert rows.count() == 7 and "seed_4" in rows.first.inner_text() and "collapsing" in rows.first.inner_text()
        settle(page, "layer")  # of the worst run, as long as no one chose another
        assert page.locator("select[name=run]").input_value() == "decay0/seed_4"
        assert page.locator("input[name=layer]").input_value() == gpt(1)[1]
        page.locator("select[name=run]").select_option("decay1/seed_5")
        page.get_by_role("button", name="none", exact=True).click()
        page.get_by_role("button", name="all", exact=True).click()
        settle(page, "layer")
        assert page.locator("select[name=run]").input_value() == "decay0/seed_4", "what was unticked is forgotten"
        page.locator("select[name=run]").select_option("decay1/seed_5")
        settle(page, "overview")
        settle(page, "layer")
        assert page.locator("select[name=run]").input_value() == "decay1/seed_5"
        settle(page, "overview")
        page.set_viewport_size({"width": 1300, "height": 900})
        rows.first.get_by_role("button", name="decay0/seed_4", exact=True).click()
        page.locator(".card", has_text="decay0/seed_4").wait_for()
        assert page.locator(".cards .card").count() == 1 and page.evaluate("location.hash") == "#runs=decay0%252Fseed_4"
        page.close()


def test_the_address_survives_a_reload_inside_tensorboard_and_dark_follows_it(watched, logs):
    with tensorboard(logs / "many") as server:
        page = watched.page
        page.emulate_media(color_scheme="dark")
        page.goto(f"{server}/#spectra")
        tab = page.frame_locator("iframe")
        tab.locator("[data-view=overview][data-drawn]").wait_for()
        assert page.evaluate("document.body.classList.contains('dark-mode')")
        assert tab.locator(":root").get_attribute("data-theme") == "dark"
        tab.get_by_role("button", name="none").click()
        for name in ("decay0/seed_4", "decay1/seed_3"):
            tab.locator(f".runs input[data-run='{name}']").check()
        tab.locator("button[data-tab=heat_map]").click()
        tab.locator("[data-view=heat_map][data-drawn]").wait_for()
        tab.locator("select[name=quantity]").select_option("effective_rank")
        tab.get_by_label("relative to epoch 0").check()
        page.wait_for_url("**relative=1**")
        page.reload()
        tab.locator("[data-view=heat_map][data-drawn]").wait_for()
        assert tab.locator("[data-view=heat_map] figcaption .name").all_inner_texts() == [
            f"{name}: effective rank against its first value" for name in ("decay0/seed_4", "decay1/seed_3")
        ]
        page.close()
