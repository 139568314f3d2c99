"""A real TensorBoard server and a real Chromium, for the tests, the benchmark and the screenshots."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGE = "data/plugin_entry.html?name=spectra"
"""The plugin's page on its own, as it is in TensorBoard's frame."""


_START = "import sys; sys.modules['tensorboard.compat.notf'] = sys; from tensorboard.main import run_main; run_main()"
"""Starts TensorBoard with its stub for TensorFlow, whose import takes seconds."""


def find_chromium() -> str | None:
    """The path of a Chromium: the environment variable ``CHROMIUM``, or what is installed."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """A TensorBoard server of its own on ``folder``; gives its address.

    Raises:
        RuntimeError: if it does not start, with what it said.
    """
    server = subprocess.Popen(
        [sys.executable, "-c", _START, "--port", "0", "--load_fast", "false", "--logdir", str(folder)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert server.stderr is not None
    said = []
    try:
        for line in server.stderr:
            said.append(line)
            found = re.search(r" at (http://\S+)", line)
            if found:
                threading.Thread(target=server.stderr.read, daemon=True).start()  # so that its pipe never fills
                yield found[1].rstrip("/")
                return
        raise RuntimeError(f"TensorBoard did not start: {''.join(said)}")
    finally:
        server.terminate()
        server.wait()
