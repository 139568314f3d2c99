"""A terminal to run a program in: what a user would see on the screen at the end."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios

import pyte

COLUMNS, LINES = 80, 100


def screen(program: str, **environment: str) -> list[str]:
    """The lines on the screen, and above it, after ``program`` has run in a separate terminal.

    Raises:
        AssertionError: if the program fails, with what it showed.
    """
    child, terminal = pty.fork()
    if child == 0:
        inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "COLUMNS", "LINES")}
        own = {
            "TERM": "xterm-256color",
            "PYTHONPATH": os.environ["PYTHONPATH"],
            "OMP_NUM_THREADS": "1",
            "PYTHONIOENCODING": "utf-8",
        }
        os.execve(sys.executable, [sys.executable, "-c", program], {**inherited, **own, **environment})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    display = pyte.HistoryScreen(COLUMNS, LINES, history=1000)
    stream = pyte.ByteStream(display)
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the program has closed its end
            break
        if not data:
            break
        stream.feed(data)
    os.close(terminal)
    above = ["".join(line[column].data for column in range(COLUMNS)) for line in display.history.top]
    lines = [line.rstrip() for line in [*above, *display.display]]
    lines = [line for line in lines if line]
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, "\n".join(lines)
    return lines
