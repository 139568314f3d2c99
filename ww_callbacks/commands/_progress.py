"""How far a command has got: a bar whose time left goes by cost, and what Ctrl-C waits for."""

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
"""Layers in work that are named."""


class LayersDone:
    """Told by ``spectral.analyze`` of every layer that is begun and done, and of the share of the work that is done.

    Args:
        bar: rich's bar.
        task: its task.
        what: what is done with the layers.
    """

    def __init__(self, bar: Any, task: Any, what: str) -> None:
        self._bar, self._task, self._what = bar, task, what
        self._share: float | None = None
        self.in_work: dict[str, None] = {}

    def begin(self, name: str) -> None:
        """The layer ``name`` is being measured from now on."""
        self.in_work[name] = None

    def share(self, done: float) -> None:
        """A share of the work is done, from 0 to 1."""
        self._share = done

    def __call__(self, done: int, total: int, name: str) -> None:
        """``done`` of ``total`` layers are measured, the last one ``name``."""
        from rich.markup import escape

        self.in_work.pop(name, None)
        share = done / max(1, total) if self._share is None else self._share
        text = f"{self._what} {escape(name)}"
        self._bar.update(self._task, completed=share, total=1.0, description=text, layers=f"{done}/{total}")

    def waits_for(self) -> str:
        """The layers in work, in words."""
        names = list(self.in_work)
        if not names:
            return "no layer is in work"
        named = ", ".join(map(printable, names[:_NAMED]))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        layers = "layers" if len(names) > 1 else "layer"
        return f"waiting for the {layers} in work: {named}{more}"


@contextmanager
def progress(what: str, quiet: bool, command: str = "") -> Iterator[LayersDone]:
    """A progress bar on standard error, so that the output stays clean; none where that is no terminal.

    While it is shown, Ctrl-C says at once what it waits for, and a second one ends the process.
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
    # A layer may take minutes: its speed is that of the whole run, not of the last half minute.
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
    """Call ``say`` on the first Ctrl-C as it comes, and end the process on the second.

    Python's own handler waits until the main thread comes back from LAPACK. The byte that the system's handler writes
    into a socket is read by a thread of its own, at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        said = False
        while number := reader.recv(1):
            if number[0] != signal.SIGINT:
                continue
            if said:
                console.show_cursor(True)
                os._exit(128 + signal.SIGINT)
            said = True
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
