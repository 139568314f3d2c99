"""The tab without a mouse and without a picture: by the Tab key, and as a screen reader has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integrations.served import PAGE, tensorboard
from tests.integrations.synthetic import SyntheticRun

pytest.importorskip("tensorboard", reason="the tab needs the extra `tensorboard`")

FOCUSED = """(() => {
    const at = document.activeElement;
    if (at === document.body) return null;
    const looks = getComputedStyle(at), box = at.getBoundingClientRect();
    const name = at.getAttribute('aria-label') ?? at.labels?.[0]?.textContent.trim() ?? at.textContent;
    return {tag: at.tagName, name,
        seen: box.width > 0 && box.right > 0 && looks.outlineStyle !== 'none' && looks.outlineWidth !== '0px'};
})()"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("keyboard")
    SyntheticRun(root / "bad", layers=14, collapse_at=3).advance(6).close()
    SyntheticRun(root / "good", layers=14, seed=1).advance(6).close("healthy")
    with tensorboard(root) as address:
        yield address


@pytest.fixture
def page(watched: Any, server: str) -> Any:
    watched.page.route("**/favicon.ico", lambda route: route.fulfill(status=204))
    watched.page.goto(f"{server}/{PAGE}")
    watched.page.locator("[data-view=overview][data-drawn]").wait_for()
    return watched.page


def press(page: Any, *keys: str) -> dict[str, Any]:
    """What has the focus after ``keys``, once everything is drawn."""
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    return page.evaluate(FOCUSED)


def drawn(page: Any, view: str) -> None:
    page.locator(f"[data-view={view}][data-drawn]:not([hidden])").wait_for()


def test_every_stop_of_the_tab_key_has_a_name_and_is_seen(page):
    stops: list[dict[str, Any]] = []
    while len(stops) < 120:
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        if found is None or found in stops[:1]:  # past the end, or at the start again
            break
        stops.append(found)
    assert len(stops) < 120, "|".join(stop["name"] for stop in stops)
    assert [stop for stop in stops if not stop["name"] or not stop["seen"]] == []
    names = [stop["name"] for stop in stops]
    assert names[:2] == ["Skip to the figures", "Overview"] and names[3:6] == ["all", "none", "✕bad"], names
    for wanted in ("only good", "why", "across", "layers of bad", "filter layers"):
        assert any(wanted in name for name in names), f"{wanted} cannot be reached: {names}"
    assert not {"Zoom in", "Share chart..."} & set(names), "plotly's buttons are for the mouse"
    assert names.count("net.1.weight") == 2, "each layer of the tables"


def test_skip_and_the_tabs(page):
    assert press(page, "Tab")["name"] == "Skip to the figures"
    assert press(page, "Enter")["tag"] == "MAIN"
    page.locator("#tab-overview").focus()
    for key, view in (("ArrowRight", "heat_map"), ("End", "flow"), ("ArrowRight", "overview"), ("ArrowLeft", "flow")):
        press(page, key)
        drawn(page, view)
        assert page.evaluate("document.activeElement.id") == f"tab-{view}"
        assert page.locator("[role=tab][aria-selected=true]").get_attribute("id") == f"tab-{view}"
    assert press(page, "Home")["name"] == "Overview"


def test_the_focus_stays_where_something_is_chosen(page):
    box = page.locator(".runs input[data-run='good']")
    box.focus()
    for checked in (False, True):
        assert press(page, "Space")["name"] == "✓good" and box.is_checked() is checked
    sort = page.locator("table.layers th button").nth(2)
    sort.focus()
    assert press(page, "Enter")["name"].startswith("α") and page.locator("th[aria-sort=descending]").count() == 1
    assert press(page, "Enter")["name"].startswith("α") and page.locator("th[aria-sort=ascending]").count() == 1
    page.locator("#tab-heat_map").focus()
    press(page, "Enter")
    drawn(page, "heat_map")
    page.locator("select[name=quantity]").focus()
    assert press(page, "ArrowDown")["name"].startswith("quantity")
    page.get_by_label("relative to epoch 0").focus()
    assert press(page, "Space")["name"] == "relative to epoch 0"


def test_a_layer_is_opened_and_left_for_the_next_by_keys(page):
    page.locator("table.layers").first.get_by_role("button", name="net.1.weight").focus()
    press(page, "Enter")
    drawn(page, "layer")
    page.get_by_role("button", name="next").focus()
    for layer in ("net.2.weight", "net.3.weight"):
        assert press(page, "Enter")["name"] == "next"
        assert page.locator("input[name=layer]").input_value() == layer
    page.locator(".slider input").wait_for()
    page.locator(".slider input").focus()
    press(page, "ArrowLeft", "ArrowLeft")
    page.wait_for_function("document.querySelector('.slider input').getAttribute('aria-valuetext') === 'epoch 3'")


def test_no_button_sends_a_figure_to_another_host(page):
    titles = "[...document.querySelectorAll('.modebar-btn')].map((button) => button.dataset.title)"
    for view in ("overview", "heat_map", "layer", "flow"):
        page.locator(f"#tab-{view}").click()
        drawn(page, view)
        found = set(page.evaluate(titles))
        assert "Download plot" in found and not {
            title for title in found if "share" in title.lower() or "cloud" in title
        }


def test_what_a_screen_reader_has(page):
    said = page.locator("body").aria_snapshot()
    for wanted in (
        'tablist "views"',
        'tab "Overview" [selected]',
        'tabpanel "Overview"',
        'complementary "runs"',
        'checkbox "bad bad" [checked]',  # the sign in words, then the name
        'region "layers of bad"',
        'img "bad: scale collapse: norm',
        'button "only good"',
        "status",
    ):
        assert wanted in said, f"{wanted} is missing in\n{said}"
    assert page.locator("[role=status]").inner_text() == "", "nothing is said while nothing is new"
    unnamed = "[...document.querySelectorAll('[role=img], input, select')].filter((found) => !found.hidden && "
    unnamed += "!found.getAttribute('aria-label') && !found.labels?.length).map((found) => found.outerHTML)"
    for view in ("overview", "heat_map", "layer", "flow"):
        page.locator(f"#tab-{view}").click()
        drawn(page, view)
        assert page.evaluate(unnamed) == [], view
