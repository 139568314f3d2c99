"""The interface of a sink, a destination for snapshots, alerts and the verdict."""

from __future__ import annotations

from typing import Protocol

from ww_callbacks.integrations.schema import Alert, RunInfo, Snapshot, Verdict


class Sink(Protocol):
    """A destination for snapshots, alerts and the verdict.

    Errors of a sink are caught and reported once. After an ``OSError``, which may be temporary, the sink gets the next
    call; after an error in ``open`` or any other error, it is disabled for the rest of the run. Set the attribute
    ``keeps_what_failed = True`` if your sink keeps unwritten data and retries; it then gets all calls.
    """

    name: str

    def open(self, run: RunInfo, resumed: bool) -> None:
        """Prepare for the run; ``resumed`` is True if an earlier run continues."""

    def snapshot(self, snapshot: Snapshot) -> None:
        """Receive a snapshot."""

    def alert(self, alert: Alert) -> None:
        """Receive an alert."""

    def close(self, verdict: Verdict | None) -> None:
        """Flush and close. Called once, also if training ended with an exception."""
