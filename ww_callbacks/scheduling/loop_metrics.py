"""What a training loop reports at a snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class LoopMetrics(dict[str, float]):
    """The metrics of a snapshot by name, with the losses within the epoch.

    Attributes:
        epoch_losses: mean training losses of equal parts of the epoch that just ended; empty if unknown.
    """

    epoch_losses: tuple[float, ...] = ()


def mean_over_processes(metrics: Sequence[Mapping[str, float]]) -> LoopMetrics:
    """Each metric's mean over the processes that report it; the losses within the epoch if all report them.

    Examples:
        >>> mean_over_processes([{"train_loss": 1.0, "learning_rate": 0.1}, {"train_loss": 3.0}])
        {'train_loss': 2.0, 'learning_rate': 0.1}
    """
    names = dict.fromkeys(name for m in metrics for name in m)
    out = LoopMetrics({n: sum(v) / len(v) for n in names if (v := [m[n] for m in metrics if n in m])})
    parts = [getattr(m, "epoch_losses", ()) for m in metrics]
    if parts and parts[0] and len({len(p) for p in parts}) == 1:
        out.epoch_losses = tuple(sum(p) / len(p) for p in zip(*parts, strict=True))
    return out
