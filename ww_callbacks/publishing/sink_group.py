"""The sinks of a run: if one fails, the others still get everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ww_callbacks.faults import Faults
from ww_callbacks.integrations.schema import RunInfo, Verdict
from ww_callbacks.integrations.sinks.sink import Sink


class SinkGroup:
    """Passes every call on to all sinks.

    Args:
        sinks: the sinks, the record first.
        faults: reports errors of sinks.
    """

    def __init__(self, sinks: Iterable[Sink], faults: Faults) -> None:
        self._sinks = list(sinks)
        self._faults = faults

    def __len__(self) -> int:
        return len(self._sinks)

    def each(self, call: Callable[[Sink], None]) -> None:
        """Call ``call`` with every sink.

        A sink that raises is disabled for the rest of the run. After an operating-system error (full disk, network
        down), which may be temporary, it gets the next call again.
        """
        for sink in list(self._sinks):
            try:
                call(sink)
            except OSError as error:
                self._failed(sink, error, "")
            except Exception as error:
                self._sinks.remove(sink)
                message = f"{sink.name} failed and is disabled for the rest of the run; the other sinks continue"
                self._faults.fault(message, error)

    def open(self, run: RunInfo, resumed: bool) -> None:
        """Open every sink; one that cannot be opened is disabled, unless it keeps what it could not write."""
        for sink in list(self._sinks):
            try:
                sink.open(run, resumed)
            except OSError as error:
                if not keeps(sink):
                    self._sinks.remove(sink)
                self._failed(
                    sink, error, "" if keeps(sink) else "cannot be opened and is disabled; the other sinks continue"
                )
            except Exception as error:
                self._sinks.remove(sink)
                self._faults.fault(f"{sink.name} cannot be opened and is disabled; the other sinks continue", error)

    def close(self, verdict: Verdict | None) -> None:
        """Close every sink."""
        for sink in self._sinks:
            try:
                sink.close(verdict)
            except Exception as error:
                lacks = "lacks what could not be written" if keeps(sink) else "could not be closed"
                self._faults.fault(f"{sink.name} {lacks}", error)

    def _failed(self, sink: Sink, error: OSError, what: str) -> None:
        kept = "cannot be written now; the rows are kept in memory and written at the next snapshot"
        what = what or (kept if keeps(sink) else "failed and may miss this snapshot; it gets the next ones")
        self._faults.fault(f"{sink.name} {what}", error)


def keeps(sink: Sink) -> bool:
    """Whether ``sink`` keeps what it could not write and retries at the next call."""
    return getattr(sink, "keeps_what_failed", False)
