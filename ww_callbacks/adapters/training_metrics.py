"""Metrics that the training loop already has: the loss of each step, and the logged metrics."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PARTS = 10
"""Number of parts of an epoch whose mean loss is kept."""
_MOST = 64 * PARTS
"""Maximum number of losses kept before neighbours are merged."""

_VALIDATION = r"(?:val|valid|validation|eval|dev)"
_TRAINING = r"(?:train|training|tr)"
_SCORE = (
    r"(?:acc|accuracy|acc1|top1|top_1|(?:multiclass|binary|multilabel|sparse_categorical|categorical)_?accuracy|"
    r"f1|f1_score|f1score|auc|auroc|mean_token_accuracy)(?:_\d+)?"
)
_SUFFIX = r"(?:_epoch|/epoch)?(?:/dataloader_idx_0)?"
_PATTERNS = {
    "val_loss": rf"{_VALIDATION}[_/.\-]?(?:loss|nll|ce|mse){_SUFFIX}",
    "val_accuracy": rf"{_VALIDATION}[_/.\-]?{_SCORE}{_SUFFIX}",
    "train_accuracy": rf"(?:{_TRAINING}[_/.\-])?{_SCORE}{_SUFFIX}",
}
_TRAIN_LOSS = rf"(?:{_TRAINING}[_/.\-]?)?(?:loss|nll|ce|mse){_SUFFIX}"
_OF_AN_OUTPUT = r"(?!(?:\w*_)?top_?k)\w+[_/.\-]"
_ONE_OUTPUT = {
    "val_loss": rf"{_VALIDATION}[_/.\-]{_OF_AN_OUTPUT}loss",
    "val_accuracy": rf"{_VALIDATION}[_/.\-]{_OF_AN_OUTPUT}{_SCORE}",
    "train_accuracy": rf"(?!(?:{_VALIDATION}|test)[_/.\-])(?:{_TRAINING}[_/.\-])?{_OF_AN_OUTPUT}{_SCORE}",
}
"""A metric of one output among several (``val_a_accuracy``); it is used if no other output has one."""


def recognised(names: Iterable[str], aliases: Mapping[str, str] | None = None) -> dict[str, str]:
    """Maps the detectors' metrics to the names under which the loop logs them.

    Args:
        names: the names that the loop logs.
        aliases: metric → its name in the loop, given by the user.

    Returns:
        Metric → name; metrics that are not logged are left out.

    Examples:
        >>> recognised(["loss", "eval_loss", "eval_accuracy", "my_acc"], {"train_accuracy": "my_acc"})
        {'val_loss': 'eval_loss', 'val_accuracy': 'eval_accuracy', 'train_accuracy': 'my_acc'}
    """
    names, aliases = list(names), aliases or {}
    found: dict[str, str] = {}
    for metric, pattern in _PATTERNS.items():
        if metric in aliases:
            continue
        matches = [n for n in names if re.fullmatch(pattern, n, re.IGNORECASE)]
        # Prefer the mean over the epoch if a loop logs both it and the last step's value.
        matches.sort(key=lambda n: (not n.endswith("epoch"), len(n)))
        if matches:
            found[metric] = matches[0]
    for metric, pattern in _ONE_OUTPUT.items():
        if metric in found or metric in aliases:
            continue
        matches = [n for n in names if re.fullmatch(pattern, n, re.IGNORECASE)]
        if len(matches) == 1:
            found[metric] = matches[0]
    found |= {metric: name for metric, name in aliases.items() if name in names}
    return found


def train_loss_name(names: Iterable[str], aliases: Mapping[str, str] | None = None) -> str | None:
    """Under which of these names a loop that reports its own training loss does so; None if under none.

    Examples:
        >>> train_loss_name(["loss", "val_loss"]), train_loss_name(["loss", "train/loss"])
        ('loss', 'train/loss')
    """
    names = list(names)
    if (name := (aliases or {}).get("train_loss")) is not None:
        return name if name in names else None
    matches = [n for n in names if re.fullmatch(_TRAIN_LOSS, n, re.IGNORECASE)]
    return max(matches, key=lambda n: (n == "train_loss", n.endswith("epoch"), len(n)), default=None)


def values_of(logged: Mapping[str, Any], aliases: Mapping[str, str] | None = None) -> dict[str, float]:
    """The metrics that the detectors read among the logged values; values that are not numbers are skipped."""
    out = {}
    for metric, name in recognised(logged, aliases).items():
        try:
            out[metric] = float(logged[name])
        except (TypeError, ValueError, RuntimeError):
            continue
    return out


def misspelt(names: Iterable[str], aliases: Mapping[str, str] | None = None) -> dict[str, str]:
    """Names that are not recognised but similar to that of a missing metric.

    Examples:
        >>> misspelt(["val_los", "train_loss", "perplexity"])
        {'val_los': 'val_loss'}
    """
    names = list(names)
    found = recognised(names, aliases)
    if (loss := train_loss_name(names, aliases)) is not None:
        found["train_loss"] = loss
    missing = [m for m in (*_PATTERNS, "train_loss", "learning_rate") if m not in found and m not in names]
    unknown = [n for n in names if n not in found.values()]
    near = {n: difflib.get_close_matches(n.lower(), missing, n=1, cutoff=0.85) for n in unknown}
    return {name: matches[0] for name, matches in near.items() if matches}


def in_words(found: Mapping[str, str]) -> str:
    """Which names are recognised, and how to name others: one line, printed once."""
    named = ", ".join(f"{metric} from `{name}`" for metric, name in found.items())
    missing = [m for m in ("val_loss", "val_accuracy") if m not in found]
    if len(missing) == 2:
        more = " No validation values are logged under common names; map others: metrics={'val_loss': 'your name'}."
    else:
        more = f" For other names: metrics={{{missing[0]!r}: 'your name'}}." if missing else ""
    return f"metrics recognised: {named or 'none'}.{more}"


class StepLosses:
    """The training losses of an epoch's steps, each of a batch before its update.

    They stay on the training's device until the epoch ends, so no step waits for one. Memory is constant: beyond 640
    losses, neighbours are summed.
    """

    def __init__(self) -> None:
        self._sums: list[Any] = []
        self._span = 1
        self._open = 0
        self._last: float | None = None
        self._first: float | None = None

    def add(self, loss: Any, scale: float = 1.0) -> None:
        """Add one step's loss, times ``scale``; None is skipped."""
        if loss is None:
            return
        loss = loss.detach() if hasattr(loss, "detach") else loss
        if scale != 1.0:
            loss = loss * scale
        if self._open == 0:
            self._sums.append(loss)
        else:
            self._sums[-1] = self._sums[-1] + loss
        self._open = (self._open + 1) % self._span
        if self._open == 0 and len(self._sums) >= _MOST:
            self._sums = [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)]
            self._span *= 2

    @property
    def first(self) -> float | None:
        """Loss of the run's first step (in an epoch of more than 640 steps, of its first few); None before it."""
        if self._first is None and self._sums:
            self._first = _floats(self._sums[:1])[0] / min(self._span, self.steps)
        return self._first

    @property
    def steps(self) -> int:
        """Steps since the last reset."""
        return len(self._sums) * self._span - ((self._span - self._open) if self._open else 0)

    def _means(self) -> tuple[list[float], list[int]]:
        counts = [self._span] * len(self._sums)
        if self._open and counts:
            counts[-1] = self._open
        return _floats(self._sums), counts

    def mean(self) -> float | None:
        """Mean since the last reset; if nothing was added since, the mean before it, or None."""
        if not self._sums:
            return self._last
        sums, _ = self._means()
        return sum(sums) / self.steps

    def parts(self) -> tuple[float, ...]:
        """Mean losses of ten equal parts of the epoch; empty with fewer than ten steps."""
        total = self.steps
        if total < PARTS:
            return ()
        sums, counts = self._means()
        edges, reached, done, taken = [], 0.0, 0, 0.0
        wanted = [total * k / PARTS for k in range(1, PARTS + 1)]
        for value, count in zip(sums, counts, strict=True):
            while wanted and wanted[0] <= done + count:
                taken = reached + value * (wanted.pop(0) - done) / count
                edges.append(taken)
            reached, done = reached + value, done + count
        while len(edges) < PARTS:  # rounding at the very end
            edges.append(reached)
        return tuple((b - a) * PARTS / total for a, b in zip([0.0, *edges], edges, strict=False))

    def reset(self) -> None:
        """Start the next epoch."""
        self._first = self.first
        self._last = self.mean()
        self._sums, self._span, self._open = [], 1, 0

    def state(self) -> list[Any]:
        """The state as plain numbers."""
        return [_floats(self._sums), self._span, self._open, self.first]

    def restore(self, state: Sequence[Any]) -> None:
        """Restore what :meth:`state` returned.

        Raises:
            TypeError, ValueError: if the state is invalid.
        """
        sums, span, opened, first = state
        self._sums, self._span, self._open = [float(s) for s in sums], int(span), int(opened)
        self._first = None if first is None else float(first)


def _floats(values: Sequence[Any]) -> list[float]:
    """Numbers or arrays of one element as floats, copied from a device in one transfer."""
    if values and hasattr(values[0], "detach"):
        import torch

        on_device = [v if isinstance(v, torch.Tensor) else torch.tensor(float(v)) for v in values]
        return [float(x) for x in torch.stack([v.double().reshape(()) for v in on_device]).cpu()]
    jax = sys.modules.get("jax")
    if jax is not None and values and isinstance(values[0], jax.Array):
        values = jax.device_get(list(values))
    return [float(v) for v in values]
