"""What a sink is: something that snapshots, alerts and the verdict are sent to."""

from __future__ import annotations

from typing import Protocol

from ww_callbacks.integrations.schema import Alert, RunInfo, Snapshot, Verdict


class Sink(Protocol):
    """A destination of records.

    What a sink raises is caught and said once. After an ``OSError``, which may pass, the sink gets the next
    call; after an error of ``open`` or any other error it gets nothing more. A sink that keeps what it could not write
    and tries again says so with an attribute ``keeps_what_failed = True``; it gets all calls.
    """

    name: str

    def open(self, run: RunInfo, resumed: bool) -> None:
        """Prepare for the run; ``resumed`` says that the same run goes on."""

    def snapshot(self, snapshot: Snapshot) -> None:
        """Take one snapshot."""

    def alert(self, alert: Alert) -> None:
        """Take one alert."""

    def close(self, verdict: Verdict | None) -> None:
        """Flush and close; called once, also when training ended with an exception."""
