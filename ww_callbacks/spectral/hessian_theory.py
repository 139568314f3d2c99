"""Ranks of the Hessian of deep linear networks, in closed form.

Source: S. P. Singh, G. Bachmann, T. Hofmann, "Analytic Insights into Structure and Rank of Neural Network Hessian
Maps" (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Literal


@dataclass(frozen=True)
class HessianRanks:
    """Ranks of the loss Hessian H = H_outer + H_functional and of its two parts.

    Attributes:
        outer: rank of the outer-product (generalised Gauss–Newton) Hessian.
        functional: rank of the functional Hessian (loss gradient times the network's second derivatives).
        loss: rank of the loss Hessian.
        parameters: its side.
    """

    outer: int
    functional: int
    loss: int
    parameters: int


def linear_network_ranks(
    widths: Sequence[int],
    input_rank: int | None = None,
    loss: Literal["squared", "cross-entropy"] = "squared",
) -> HessianRanks:
    r"""Ranks for a linear network without bias at a generic point (away from the minima).

    With r the rank of the inputs' covariance, K outputs, L matrices, M_l the L − 1 hidden widths,
    q = min(r, K, M_1, …) and s = min(r, K):

    .. math::

        \operatorname{rank} H_o &= q(r + K - q) \\
        \operatorname{rank} H_f &= 2q\sum M_l + 2qs - Lq^2 \\
        \operatorname{rank} H_L &= 2q\sum M_l - Lq^2 + q(r + K)

    Cross-entropy takes one direction from the output, since logits count only up to a common shift: K − 1 stands for K.

    Args:
        widths: inputs, hidden widths …, outputs.
        input_rank: r; None for the inputs' full rank.
        loss: ``squared`` or ``cross-entropy``.

    Returns:
        The three ranks.

    Raises:
        ValueError: if there are fewer than two widths, one is no positive whole number, r is no whole number between 1
            and the inputs, the loss is unknown, or cross-entropy has fewer than two outputs.

    >>> linear_network_ranks([25, 5, 10, 10])
    HessianRanks(outer=150, functional=175, loss=250, parameters=275)
    """
    if len(widths) < 2 or not all(isinstance(width, Integral) and width >= 1 for width in widths):
        raise ValueError(f"Expected two or more positive whole numbers as widths, but got {list(widths)}.")
    rank = widths[0] if input_rank is None else input_rank
    if not isinstance(rank, Integral) or not 1 <= rank <= widths[0]:
        raise ValueError(f"Expected `input_rank` as a whole number between 1 and {widths[0]}, but got {input_rank}.")
    if loss not in ("squared", "cross-entropy"):
        raise ValueError(f"Expected `loss` to be 'squared' or 'cross-entropy', but got {loss!r}.")
    outputs = widths[-1] - (loss == "cross-entropy")
    if outputs < 1:
        raise ValueError("Expected two or more outputs for cross-entropy, but got one.")
    hidden = sum(widths[1:-1])
    matrices = len(widths) - 1
    q = min(rank, outputs, *widths[1:-1])
    s = min(rank, outputs)
    outer = q * (rank + outputs - q)
    # A single matrix is linear in its parameters: there is no functional part.
    functional = 2 * q * hidden + 2 * q * s - matrices * q * q if matrices > 1 else 0
    total = 2 * q * hidden - matrices * q * q + q * (rank + outputs)
    parameters = sum(a * b for a, b in pairwise(widths))
    return HessianRanks(outer, functional, total, parameters)
