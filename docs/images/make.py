"""Make the pictures of this folder: two small real trainings, seen in TensorBoard and in the report.

    python -m docs.images.make
    python -m docs.images.make --all FOLDER

The second call makes 40 pictures of made-up runs in FOLDER instead: every view, with few and many runs and
layers, in narrow and wide windows, light and dark. They are for looking at before a change of the views is merged.

One run trains as it should and logs a validation loss; in the other a far too strong weight decay on one layer makes
its scale collapse. Needs the extras ``tensorboard`` and ``dev``, torch, and a Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from docs.images.gallery import make_gallery
from examples.data import digits
from tests.integrations.served import FLAGS, find_chromium, tensorboard
from ww_callbacks.integrations.report import write_report

HERE = Path(__file__).parent
WIDTHS = (64, 300, 300, 200, 200, 100, 10)
EPOCHS = 16
LAYER = "fc3.weight"


def main() -> None:
    """Make the pictures of this folder or, if asked, all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="make pictures of every view in FOLDER instead")
    folder = parser.parse_args().all
    if folder:
        for picture in make_gallery(folder):
            print(picture)
    else:
        make_pictures()


def make_pictures() -> None:
    """Train, open each view, and write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder)
        runs = [log / "healthy", log / "too-much-decay"]
        for run, decay in zip(runs, (0.0, 40.0), strict=True):
            train(run, decay)
        with contextlib.chdir(log):  # so that the page names no temporary folder
            report = write_report([run.name for run in runs], "report.html").absolute()
        with tensorboard(log) as address, sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
            page = chromium.new_page(viewport={"width": 1280, "height": 880})
            page.goto(f"{address}/#spectra")
            frame = page.frame_locator("iframe")
            for run in runs:
                frame.locator(f".runs input[data-run='{run.name}']").check()
            for view in ("overview", "heat_map", "layer", "flow"):
                page.set_viewport_size({"width": 1280, "height": 560 if view == "heat_map" else 880})
                show(frame, view)
                keep(page, f"tensorboard-{view.replace('_', '-')}.png")
            page.set_viewport_size({"width": 1280, "height": 500})
            page.goto(report.as_uri())
            show(page, "heat_map")
            keep(page, "report.png")
            chromium.close()


def train(folder: Path, decay: float) -> None:
    """Train a small net on scikit-learn's digits, with ``decay`` on one of its layers."""
    import torch
    from torch import nn

    from ww_callbacks import SpectralMonitor

    torch.manual_seed(0)
    (images, labels), (fresh, right_labels) = digits()
    inputs, targets = torch.from_numpy(images).flatten(1), torch.from_numpy(labels)
    modules: dict[str, nn.Module] = {}
    for number, (before, after) in enumerate(itertools.pairwise(WIDTHS), start=1):
        modules |= {f"fc{number}": nn.Linear(before, after), f"relu{number}": nn.ReLU()}
    modules.popitem()
    net = nn.Sequential(OrderedDict(modules))
    groups = [{"params": [p], "weight_decay": decay * (n == LAYER)} for n, p in net.named_parameters()]
    optimiser = torch.optim.AdamW(groups, lr=1e-3)
    step = 0
    with SpectralMonitor(net, log_dir=str(folder), quantities=["default", "rand_distance"], verbose=0) as monitor:
        for epoch in range(EPOCHS):
            loss_sum, right = 0.0, 0
            for batch in torch.randperm(len(inputs)).split(16):
                outputs = net(inputs[batch])
                loss = nn.functional.cross_entropy(outputs, targets[batch])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                step += 1
                loss_sum += loss.item() * len(batch)
                right += int((outputs.argmax(1) == targets[batch]).sum())
            metrics = {"train_loss": loss_sum / len(inputs), "train_accuracy": right / len(inputs)}
            if not decay:  # without validation values it could not be called healthy
                with torch.no_grad():
                    outputs = net(torch.from_numpy(fresh).flatten(1))
                metrics["val_loss"] = nn.functional.cross_entropy(outputs, torch.from_numpy(right_labels)).item()
            monitor.observe(step=step, epoch=epoch + 1, metrics=metrics)


def show(page: Any, view: str) -> None:
    """Open a view and, in that of one layer, the layer that the decay is on."""
    page.locator(f"button[data-tab={view}]").click()
    page.locator(f"[data-view={view}][data-drawn]").wait_for()
    if view == "layer":
        page.locator("select[name=run]").select_option("too-much-decay")
        page.locator("input[name=layer]").fill(LAYER)
        page.locator("input[name=layer]").press("Enter")
        page.locator("[data-figure=history][data-figure-of*='fc3']").wait_for()


def keep(page: Page, name: str) -> None:
    """Keep what the page shows, in a small file."""
    from PIL import Image

    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    page.screenshot(path=HERE / name)
    Image.open(HERE / name).convert("RGB").save(HERE / name, optimize=True)


if __name__ == "__main__":
    main()
