"""How long TensorBoard's tab SPECTRA takes to open, and how large reports are and how long they take to write.

Opened are runs of 100 layers and 1,000 epochs and of 583 layers and 300 epochs, every epoch drawn, in a real headless
Chromium with an empty cache, from a real server that has had time to read the record. Timed from the request of the
page, or the click on a view, until the view is drawn (``verdict``: until the words are there). Written are reports on
150 layers and 300 epochs, and on 583 layers and 30 epochs, with all spectra recorded.
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
from ww_callbacks.integrations.report import write_report

OPENED = {"100x1000": (100, 1000), "583x300": (583, 300)}
WRITTEN = {"150x300": (150, 300), "583x30": (583, 30)}
TIMES = 5
VIEWS = ("heat_map", "layer", "flow")


def main() -> None:
    """Run, print, and write the JSON if asked."""
    asked = _report.arguments(__doc__).parse_args()
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    for name, (layers, epochs) in OPENED.items():
        with tempfile.TemporaryDirectory() as folder:
            SyntheticRun(
                Path(folder, "run"), layers=layers, collapse_at=epochs // 2, densities=layers * epochs <= 1e5
            ).advance(epochs + 1).close("watch")
            rows.append({"run": name, **_read(Path(folder, "run"))})
            opened = _open_often(Path(folder))
            rows += [{"run": name, "turn": turn, **row} for turn, row in enumerate(opened)]
        figures[f"open_seconds_{name}"] = statistics.median(row["overview"] for row in opened)
        for view in ("verdict", *VIEWS, "overview_in_tensorboard"):
            figures[f"{view}_seconds_{name}"] = statistics.median(row[view] for row in opened)
        figures[f"epochs_drawn_{name}"] = min(row["columns"] for row in opened)
    for name, (layers, epochs) in WRITTEN.items():
        with tempfile.TemporaryDirectory() as folder:
            SyntheticRun(Path(folder), layers=layers, collapse_at=epochs // 2).advance(epochs + 1).close("watch")
            began = time.perf_counter()
            size = write_report(folder, Path(folder, "report.html")).stat().st_size / 1e6
            rows.append({"report": name, "seconds": time.perf_counter() - began, "mb": size})
    written = {row["report"]: row for row in rows if "report" in row}
    figures["report_mb_150x300"] = written["150x300"]["mb"]
    figures["report_write_seconds_583"] = written["583x30"]["seconds"]
    _report.write(asked.json, {"opened": OPENED, "written": WRITTEN, "times": TIMES}, rows, figures)


def _open_often(folder: Path) -> list[dict[str, float]]:
    """What each opening of the tab on ``folder`` took."""
    with tensorboard(folder) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        _wait_until_read(chromium.new_context().new_page(), address)
        opened = []
        for _ in range(TIMES):
            context = chromium.new_context(viewport={"width": 1300, "height": 900})
            opened.append(_open(context.new_page(), address))
            context.close()
        chromium.close()
    return opened


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
