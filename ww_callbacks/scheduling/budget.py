"""What to measure, and when, so that the cost stays below a share of the training time."""

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
"""What a spectrum costs where none has been measured yet, per unit of :attr:`LayerSpec.cost`; rather too much."""


_FIXED_AT_MOST = 0.05
"""What a snapshot is taken to cost besides spectra while only the first is known, in seconds."""


class Known(Protocol):
    """What is known of a layer's cost."""

    @property
    def seconds(self) -> float | None:
        """What its spectrum cost last time."""

    @property
    def changed(self) -> bool:
        """Whether its weights had changed at the last snapshot."""

    @property
    def reference(self) -> object | None:
        """What is known of W_0; None where its spectrum has not been measured."""


@dataclass(frozen=True)
class Choice:
    """What one snapshot measures.

    Attributes:
        kind: ``full`` or ``cheap``.
        spectra: the layers whose spectra are measured; None for all.
        left_out: what is not, in words; empty if nothing.
    """

    kind: Kind
    spectra: frozenset[str] | None = None
    left_out: str = ""


class Budget:
    """Lets a snapshot have what the training time so far has earned, and no more.

    Nothing is measured on credit. Where all is not affordable, the layers whose spectra are oldest come first, the
    cheaper one of two equally old ones before the other; the rest get the quantities that need no spectrum. Where even
    these are not affordable, the snapshot is skipped; so is a full one after one that could pay for no spectrum, until
    it can pay for one, lest the small expenses leave nothing for the large. Costs are predicted from what the same
    layer cost last time.

    Args:
        share: the share of training time (0.01 is 1 %); None lets everything pass.
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
            known: what is known of each layer.
            meter: what has been spent.
            needed: whether it is measured whole in any case; what it costs is then saved later.
        """
        self._count += 1
        if self.share is None:
            return Choice(kind)
        if needed and self._count > 1:
            self._measured |= {spec.name: self._count for spec in specs}
            return Choice(kind, left_out=self.skipped_since_said())
        credit = meter.allowance(self.share) - self._fixed
        if credit < 0.0 and self._count > 1:
            self._skipped.append(step)
            return None
        if kind == "cheap":
            return Choice(kind, left_out=self.skipped_since_said())
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
        words = [_left_words([s.name for s in specs], chosen), self.skipped_since_said()]
        return Choice("full", frozenset(chosen), "; ".join(filter(None, words)))

    def paid(self, total: float, spectra: float) -> None:
        """Tell what a snapshot cost: seconds in all, and those that went into spectra."""
        rest = max(total - spectra, 0.0)
        # The first one bears what comes once (imports, opening files): later ones tell what is to be expected.
        if self._count <= 1:
            self._fixed = min(rest, _FIXED_AT_MOST)
        else:
            self._fixed = rest if self._count == 2 else max(0.5 * (self._fixed + rest), min(rest, 2.0 * self._fixed))

    def skipped_since_said(self) -> str:
        """What has been skipped since it was said last, in words; empty if nothing."""
        if not self._skipped:
            return ""
        first, last, count = self._skipped[0], self._skipped[-1], len(self._skipped)
        self._skipped = []
        where = f"at step {first}" if count == 1 else f"at steps {first} to {last}"
        return f"{count} snapshot{'' if count == 1 else 's'} {where} skipped"


def _predicted(spec: LayerSpec, own: Known, known: Mapping[str, Known], specs: Sequence[LayerSpec]) -> float:
    if not own.changed and own.seconds is not None:
        return 0.0  # it did not move last time: most likely frozen
    # Where W_0's spectrum is missing, it is measured with that of now.
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
