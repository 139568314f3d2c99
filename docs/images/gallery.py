"""Pictures of every view, to be looked at: many and few runs and layers, three widths, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from tests.integrations.served import FLAGS, PAGE, find_chromium, tensorboard
from tests.integrations.synthetic import SyntheticRun
from ww_callbacks.integrations.report import write_report

VIEWS = ("overview", "heat_map", "layer", "flow")
WIDTHS = {400: 1400, 800: 1200, 1400: 1100}
"""Width → height of the window, in px."""
PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
CASES = {"few": (1, 3), "deep": (2, 150), "many": (7, 20), "more": (20, 3), "huge": (1, 583)}
"""Case → its numbers of runs and of layers."""


def make_gallery(folder: Path) -> list[Path]:
    """Write every case's runs, and the pictures of them, into ``folder``; gives the pictures' paths.

    Each view of each case is taken once in the tab and once in the report; widths and themes take turns.
    """
    pictures = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        for turn, (name, (runs, layers)) in enumerate(CASES.items()):
            case = f"{name}-{runs}x{layers}"
            log = folder / "runs" / case
            paths = [_write_run(log / f"run-{i:02}", i, layers, 12 if layers > 100 else 30) for i in range(runs)]
            with tensorboard(log) as address:
                tab = f"{address}/{PAGE}"
                pictures += _take(chromium, tab, folder, f"tab-{case}", turn)
            report = write_report(paths, folder / f"{case}.html")
            pictures += _take(chromium, report.absolute().as_uri(), folder, f"report-{case}", turn + 1)
        chromium.close()
    return pictures


def _write_run(folder: Path, number: int, layers: int, epochs: int) -> Path:
    """The first run collapses; of the others, every third has no verdict yet and the rest are healthy."""
    names = [f"model.layers.{i // len(PARTS)}.{PARTS[i % len(PARTS)]}.weight" for i in range(layers)]
    run = SyntheticRun(folder, names, seed=number, rand_distance=True, collapse_at=None if number else epochs // 2)
    run.advance(epochs)
    if number % 3 != 2:
        run.close("healthy" if number else "collapsing")
    return folder


def _take(chromium: Browser, address: str, folder: Path, name: str, turn: int) -> list[Path]:
    pictures = []
    for number, view in enumerate(VIEWS):
        width = list(WIDTHS)[(turn + number) % len(WIDTHS)]
        theme: Any = ("light", "dark")[(turn + number // 2) % 2]
        page = chromium.new_page(viewport={"width": width, "height": WIDTHS[width]}, color_scheme=theme)
        page.goto(address)
        page.locator("[data-view=overview][data-drawn]").wait_for(timeout=120_000)
        every = page.get_by_role("button", name="all", exact=True)
        if every.is_visible():
            every.click()
        page.locator(f"button[data-tab={view}]").click()
        page.locator(f"[data-view={view}][data-drawn]").wait_for(timeout=120_000)
        page.wait_for_timeout(1000)  # for the figures that follow
        pictures.append(folder / f"{name}-{view}-{width}-{theme}.png")
        page.screenshot(path=pictures[-1])
        page.close()
    return pictures
