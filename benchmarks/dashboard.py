"""How long TensorBoard's tab SPECTRA takes to open on a run of 100 layers and 1,000 epochs, every epoch drawn.

A real server, which has had time to read the record, and a real headless Chromium with an empty cache. Timed from the
request of the page, or the click on a view, until the view is drawn (``verdict``: until the words are there).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks import _report
from tests.integrations.served import FLAGS, PAGE, find_chromium, tensorboard
from tests.integrations.synthetic import SyntheticRun
from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.record import Follower

LAYERS, EPOCHS, TIMES = 100, 1000, 5
VIEWS = ("heat_map", "layer", "flow")


def main() -> None:
    """Run, print, and write the JSON if asked."""
    asked = _report.arguments(__doc__).parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        SyntheticRun(Path(folder, "run"), layers=LAYERS, collapse_at=EPOCHS // 2).advance(EPOCHS + 1).close("watch")
        rows.append(_read(Path(folder, "run")))
        with tensorboard(Path(folder)) as address, sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
            _wait_until_read(chromium.new_context().new_page(), address)
            for turn in range(TIMES):
                context = chromium.new_context(viewport={"width": 1300, "height": 900})
                rows.append({"turn": turn, **_open(context.new_page(), address)})
                context.close()
            chromium.close()
    opened = rows[1:]
    figures = {
        f"dashboard_{name}_s": statistics.median(row[name] for row in opened)
        for name in ("verdict", "overview", *VIEWS, "overview_in_tensorboard")
    }
    figures["dashboard_overview_worst_s"] = max(row["overview"] for row in opened)
    figures["dashboard_read_s"] = rows[0]["poll"] + rows[0]["record"]
    figures["dashboard_epochs_drawn"] = min(row["columns"] for row in opened)
    _report.write(asked.json, {"layers": LAYERS, "epochs": EPOCHS, "times": TIMES}, rows, figures)


def _read(folder: Path) -> dict[str, float]:
    """What the server does once, before anybody opens the page."""
    follower = Follower(folder)
    began = time.perf_counter()
    follower.poll()
    polled = time.perf_counter()
    assert follower.record is not None
    RunView(follower.record, "run").values("alpha")
    return {"poll": polled - began, "record": time.perf_counter() - polled}


def _wait_until_read(page: Page, address: str) -> None:
    page.goto(f"{address}/{PAGE}")
    page.locator("[data-view=overview][data-drawn]").wait_for(timeout=120_000)
    page.context.close()


def _open(page: Page, address: str) -> dict[str, float]:
    """Seconds until each view is drawn."""
    began = time.perf_counter()
    page.goto(f"{address}/{PAGE}", wait_until="commit")
    page.locator(".card").wait_for()
    seconds = {"verdict": time.perf_counter() - began}
    page.locator("[data-view=overview][data-drawn]").wait_for()
    seconds["overview"] = time.perf_counter() - began
    for view in VIEWS:
        began = time.perf_counter()
        page.locator(f"button[data-tab={view}]").click()
        page.locator(f"[data-view={view}][data-drawn]").wait_for()
        seconds[view] = time.perf_counter() - began
    seconds["columns"] = page.evaluate(
        "document.querySelector('[data-figure=heat_map] .plot').calcdata[0][0].z[0].length"
    )
    began = time.perf_counter()
    page.goto(f"{address}/#spectra")
    page.frame_locator("iframe").locator("[data-view=overview][data-drawn]").wait_for()
    seconds["overview_in_tensorboard"] = time.perf_counter() - began
    return seconds


if __name__ == "__main__":
    main()
