r"""Bounds on the change of quantities of a known spectrum, given the change of the weights.

For V with singular values σ_i, and W with σ'_i, both descending, Mirsky's inequality states

.. math:: \sqrt{\textstyle\sum_i (σ'_i - σ_i)^2} \le \|W - V\|_F =: d.

So σ' is in a ball of radius d around σ, and each function here bounds its quantity's change over that ball. The bounds
are rigorous: they hold for every W at distance d, and for the pooled values of several matrices.

Reference:
    L. Mirsky: Symmetric gauge functions and unitarily invariant norms. Quarterly J. Math. 11 (1960).
"""

from __future__ import annotations

from math import inf, log10, sqrt

import numpy as np

_MULTIPLIERS = np.geomspace(0.25, 64.0, 9)
"""Lagrange multipliers to try, in units of the optimal one in the smooth case."""


def log_spectral_norm_change(largest: float, distance: float) -> float:
    """Bound on |Δ log10 λ_1|.

    Args:
        largest: σ_1(V).
        distance: d.

    Examples:
        >>> round(log_spectral_norm_change(2.0, 0.01), 6)
        0.004354
    """
    return -2.0 * log10(1.0 - distance / largest) if distance < largest else inf


def stable_rank_change(norm: float, largest: float, distance: float) -> float:
    """Bound on |Δ(‖W‖_F²/σ_1²)|.

    Args:
        norm: ‖V‖_F.
        largest: σ_1(V).
        distance: d.
    """
    if distance >= largest:
        return inf
    rank = (norm / largest) ** 2
    high = ((norm + distance) / (largest - distance)) ** 2
    low = max(1.0, ((norm - distance) / (largest + distance)) ** 2)
    return max(high - rank, rank - low)


def participation_ratio_change(singular_values: np.ndarray, distance: float) -> float:
    """Bound on |Δ (Σλ)²/Σλ²|, from ‖σ‖_4 being a norm that is at most ‖σ‖_2.

    Args:
        singular_values: σ of V.
        distance: d.
    """
    largest = float(np.max(singular_values, initial=0.0))
    if not largest > 0.0:
        return inf
    relative, step = singular_values / largest, distance / largest
    second, fourth = float(np.sum(relative**2)) ** 0.5, float(np.sum(relative**4)) ** 0.25
    if step >= fourth:
        return inf
    ratio = (second / fourth) ** 4
    high = ((second + step) / (fourth - step)) ** 4
    low = max(1.0, (max(second - step, 0.0) / (fourth + step)) ** 4)
    return max(high - ratio, ratio - low)


def hill_alpha_change(singular_values: np.ndarray, tail: int, distance: float) -> float:
    """Bound on |Δα| of Hill's α over the k = ``tail`` largest eigenvalues.

    With S = 2Σ_{i≤k} ln(σ_i/σ_{k+1}), α = 1 + k/S and |ΔS| ≤ 2d·√(Σ_{i≤k} 1/(σ_i−d)² + k²/(σ_{k+1}−d)²).

    Args:
        singular_values: σ of V, descending.
        tail: k.
        distance: d.
    """
    if len(singular_values) <= tail or singular_values[tail] <= distance:
        return inf
    top = singular_values[: tail + 1]
    total = 2.0 * float(np.sum(np.log(top[:tail] / top[tail])))
    slopes = 1.0 / (top - distance)
    slopes[tail] *= tail
    change = 2.0 * distance * float(np.linalg.norm(slopes))
    return tail / (total - change) - tail / total if total > change else inf


def effective_rank_change(singular_values: np.ndarray, distance: float) -> float:
    r"""Bound on |Δ exp(H)|, H = −Σ p ln p, p = σ/Σσ.

    With p̃ = σ'/Σσ, 1 + s = Σ p̃ and δ = d/Σσ, so that |s| ≤ √M·δ,

    .. math:: H' - H = \ln(1+s) + \frac{J - 1 - s}{1+s}, \qquad J = \sum_i f(\tilde p_i), \quad f(x) = (1-H)x - x\ln x,

    where J = 1 at p. As s ≤ (1+s)ln(1+s) ≤ s + s², J − 1 and J − 1 + s² over 1 + s bound the change. f is concave, and
    its slope −ln p − H at p has mean zero under p: the change is of first order in the spread of ln σ only.

    * Upwards the tangents at p + t, t = δ/√M, bound f.
    * Downwards f(y) − f(p) ≥ f'(p)(y−p) − (y−p)²/p, and if p is too small for this bound, f decreases by at most f(p).
    Weak Lagrange duality accounts for Σ(y−p)² ≤ δ².

    Args:
        singular_values: σ of V.
        distance: d.
    """
    total = float(np.sum(singular_values))
    if not total > 0.0:
        return inf
    p = singular_values / total
    step, side = distance / total, len(p)
    logs = np.log(np.where(p > 0.0, p, 1.0))
    entropy = -float(np.dot(p, logs))
    drift = sqrt(side) * step
    if not 0.0 < drift < 0.5:
        return inf if drift else 0.0
    raised = p + step / sqrt(side)
    slopes = -np.log(raised) - entropy
    # Σ of the tangents at p + t at their contact points, minus f(p), and the steepest direction in the ball.
    offset = float(np.sum(raised * (slopes + 1.0) - slopes * (raised - p)) - np.sum(p * (1.0 - logs - entropy)))
    up = offset + float(np.linalg.norm(slopes)) * step
    down = _loss(p, logs, entropy, step)
    return float(np.exp(entropy) * max(np.expm1((up + drift**2) / (1.0 - drift)), -np.expm1(-down / (1.0 - drift))))


def _loss(p: np.ndarray, logs: np.ndarray, entropy: float, step: float) -> float:
    """Upper bound on the decrease of Σ f over the ball of radius ``step``."""
    squared = (logs + entropy) ** 2
    value = np.where(p > 0.0, p * (1.0 - logs - entropy), 0.0)
    rising = p < np.exp(-entropy)  # there f decreases only for y < p, and is not below 0
    inverse = 1.0 / np.where(p > 0.0, p, np.inf)
    best = inf
    for multiplier in _MULTIPLIERS * max(float(np.sqrt(np.sum(squared * (p > 0.0)))) / (2.0 * step), 1e-300):
        with np.errstate(divide="ignore", over="ignore"):
            smooth = np.where(multiplier > inverse, squared / (4.0 * np.maximum(multiplier - inverse, 1e-300)), np.inf)
        losses = np.where(p > 0.0, np.where(rising, np.minimum(value, smooth), smooth), 0.0)
        best = min(best, float(np.sum(losses)) + multiplier * step**2)
    return best
