"""Chooses what to measure so that the cost stays below a share of the training time."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ww_callbacks.engine.snapshot_kind import Kind
from ww_callbacks.scheduling.meter import Meter
from ww_callbacks.spectral.layers.spec import LayerSpec

_SECONDS_A_LAYER = 2e-3
_SECONDS_A_UNIT = 3e-10
"""Assumed cost of a spectrum per unit of :attr:`LayerSpec.cost` before one was measured; a high estimate."""


_FIXED_AT_MOST = 0.05
"""Assumed cost in seconds of a snapshot without its spectra, while only the first snapshot was measured."""


class Known(Protocol):
    """What is known about a layer's cost."""

    @property
    def seconds(self) -> float | None:
        """The last measured cost of its spectrum, in seconds."""

    @property
    def changed(self) -> bool:
        """Whether its weights had changed at the last snapshot."""

    @property
    def reference(self) -> object | None:
        """The values at W_0; None if its spectrum has not been measured."""


@dataclass(frozen=True)
class Choice:
    """What one snapshot measures.

    Attributes:
        kind: ``full`` or ``cheap``.
        spectra: the layers whose spectra are measured; None for all.
        left_out: a description of what is not measured; empty if nothing.
    """

    kind: Kind
    spectra: frozenset[str] | None = None
    left_out: str = ""


class Budget:
    """Limits each snapshot to the time that the training so far has earned.

    Nothing is measured in advance of its budget. If the budget does not cover all layers, those with the oldest spectra
    come first, and the cheaper of two equally old ones; the rest get the quantities that need no spectrum. If the
    budget does not cover even these, the snapshot is skipped. A full snapshot that could afford no spectrum is followed
    by skipped ones until it can afford one, so that small costs do not use up the budget of large ones. The predicted
    cost of a layer is its last measured cost.

    Args:
        share: the share of training time (0.01 is 1 %); None for no limit.
    """

    def __init__(self, share: float | None) -> None:
        self.share = share
        self._fixed = 0.0
        self._count = 0
        self._measured: dict[str, int] = {}
        self._skipped: list[int] = []
        self._bare = False

    def choose(
        self,
        kind: Kind,
        step: int,
        specs: Sequence[LayerSpec],
        known: Mapping[str, Known],
        meter: Meter,
        needed: bool = False,
    ) -> Choice | None:
        """What may be measured now; None if nothing.

        Args:
            kind: what is due.
            step: optimiser steps done.
            specs: the layers.
            known: what is known about each layer.
            meter: the time spent so far.
            needed: whether to measure everything regardless of the budget; later snapshots then make up for the cost.
        """
        self._count += 1
        if self.share is None:
            return Choice(kind)
        if needed and self._count > 1:
            self._measured |= {spec.name: self._count for spec in specs}
            return Choice(kind, left_out=self.take_skipped())
        credit = meter.allowance(self.share) - self._fixed
        if credit < 0.0 and self._count > 1:
            self._skipped.append(step)
            return None
        if kind == "cheap":
            return Choice(kind, left_out=self.take_skipped())
        wanted = sorted(specs, key=lambda s: (self._measured.get(s.name, -1), s.cost))
        chosen: list[str] = []
        for spec in wanted:
            seconds = _predicted(spec, known[spec.name], known, specs)
            if seconds <= credit:
                credit -= seconds
                chosen.append(spec.name)
        if not chosen and self._bare:
            self._skipped.append(step)
            return None
        self._bare = not chosen
        for name in chosen:
            self._measured[name] = self._count
        words = [_left_words([s.name for s in specs], chosen), self.take_skipped()]
        return Choice("full", frozenset(chosen), "; ".join(filter(None, words)))

    def paid(self, total: float, spectra: float) -> None:
        """Record the cost of a snapshot: total seconds, and seconds spent on spectra."""
        rest = max(total - spectra, 0.0)
        # The first snapshot includes one-time costs (imports, opening files); later ones are better predictors.
        if self._count <= 1:
            self._fixed = min(rest, _FIXED_AT_MOST)
        else:
            self._fixed = rest if self._count == 2 else max(0.5 * (self._fixed + rest), min(rest, 2.0 * self._fixed))

    def take_skipped(self) -> str:
        """A description of what was skipped since the last call; empty if nothing."""
        if not self._skipped:
            return ""
        first, last, count = self._skipped[0], self._skipped[-1], len(self._skipped)
        self._skipped = []
        where = f"at step {first}" if count == 1 else f"at steps {first} to {last}"
        return f"{count} snapshot{'' if count == 1 else 's'} {where} skipped"


def _predicted(spec: LayerSpec, own: Known, known: Mapping[str, Known], specs: Sequence[LayerSpec]) -> float:
    if not own.changed and own.seconds is not None:
        return 0.0  # its weights did not change last time: most likely frozen
    # If W_0's spectrum is missing, it is measured together with the current one.
    times = 1.0 if own.reference is not None else 2.0
    if own.seconds is not None:
        return times * own.seconds
    rates = [s / x.cost for x in specs if (s := known[x.name].seconds) is not None and x.cost > 0]
    rate = max(rates) if rates else math.nan
    return times * (
        _SECONDS_A_LAYER + spec.cost * (_SECONDS_A_UNIT if math.isnan(rate) else min(rate, _SECONDS_A_UNIT))
    )


def _left_words(names: Sequence[str], chosen: Collection[str]) -> str:
    left = [name for name in names if name not in chosen]
    if not left:
        return ""
    some = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
    return f"spectra of {len(left)} of {len(names)} layers ({some})"
