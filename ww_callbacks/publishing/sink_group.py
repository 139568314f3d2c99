"""The sinks of a run: one that fails is left out, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ww_callbacks.faults import Faults
from ww_callbacks.integrations.sink import Sink


class SinkGroup:
    """Hands everything to every sink.

    Args:
        sinks: the sinks, the record first.
        faults: where a sink's error goes.
    """

    def __init__(self, sinks: Iterable[Sink], faults: Faults) -> None:
        self._sinks = list(sinks)
        self._faults = faults

    def __len__(self) -> int:
        return len(self._sinks)

    def each(self, call: Callable[[Sink], None]) -> None:
        """Call ``call`` with every sink; one that raises gets nothing from then on."""
        for sink in list(self._sinks):
            try:
                call(sink)
            except Exception as error:
                self._sinks.remove(sink)
                self._faults.fault(f"{sink.name} failed and gets nothing from now on; the others go on", error)
