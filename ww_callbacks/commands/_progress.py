"""Progress of a command: a bar that estimates the remaining time by cost, and a message on Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ww_callbacks.spectral.layers.names import printable

_NAMED = 3
"""Maximum number of layers in progress that are named."""


class LayersDone:
    """Called by ``spectral.analyze`` when a layer starts or finishes, and with the finished share of the work.

    Args:
        bar: rich's progress bar.
        task: its task.
        what: description of the work.
    """

    def __init__(self, bar: Any, task: Any, what: str) -> None:
        self._bar, self._task, self._what = bar, task, what
        self._share: float | None = None
        self.in_work: dict[str, None] = {}

    def begin(self, name: str) -> None:
        """The measurement of the layer ``name`` starts."""
        self.in_work[name] = None

    def share(self, done: float) -> None:
        """The finished share of the work, from 0 to 1."""
        self._share = done

    def __call__(self, done: int, total: int, name: str) -> None:
        """``done`` of ``total`` layers are measured, the last one ``name``."""
        from rich.markup import escape

        self.in_work.pop(name, None)
        share = done / max(1, total) if self._share is None else self._share
        text = f"{self._what} {escape(name)}"
        self._bar.update(self._task, completed=share, total=1.0, description=text, layers=f"{done}/{total}")

    def waits_for(self) -> str:
        """The layers in progress, in words."""
        names = list(self.in_work)
        if not names:
            return "no layer is in progress"
        named = ", ".join(map(printable, names[:_NAMED]))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        layers = "layers" if len(names) > 1 else "layer"
        return f"waiting for the {layers} in progress: {named}{more}"


@contextmanager
def progress(what: str, quiet: bool, command: str = "") -> Iterator[LayersDone]:
    """A progress bar on standard error, so that the output stays clean; none if that is not a terminal.

    While it is shown, Ctrl-C reports at once what it waits for, and a second one ends the process.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[layers]}"),
        TimeRemainingColumn(),
    )
    silent = quiet or not sys.stderr.isatty()
    console = Console(stderr=True, highlight=False)
    # A layer may take minutes, so the speed is averaged over the whole run, not over the last half minute.
    with Progress(
        *columns, console=console, transient=True, disable=silent, speed_estimate_period=1e9, refresh_per_second=4
    ) as bar:
        layers = LayersDone(bar, bar.add_task(what, total=None, layers=""), what)

        def say() -> None:
            text = f"ww-callbacks {command}: interrupted: {layers.waits_for()} (Ctrl-C again ends at once)"
            console.print(text, markup=False, soft_wrap=True)

        with _heeding_interrupts(say, console):
            yield layers


@contextmanager
def _heeding_interrupts(say: Any, console: Any) -> Iterator[None]:
    """Call ``say`` immediately on the first Ctrl-C, and end the process on the second.

    Python's handler waits until the main thread returns from LAPACK. The system's handler writes a byte to a socket,
    which a separate thread reads at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        interrupted = False
        while number := reader.recv(1):
            if number[0] != signal.SIGINT:
                continue
            if interrupted:
                console.show_cursor(True)
                os._exit(128 + signal.SIGINT)
            interrupted = True
            say()

    watcher = threading.Thread(target=watch, name="interrupts", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        watcher.join()
        reader.close()
