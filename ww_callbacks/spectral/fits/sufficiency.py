"""Whether the evidence for a fitted α is sufficient."""

from __future__ import annotations

import numpy as np

from ww_callbacks.spectral.fits.clauset import PowerLawFit

MIN_EIGENVALUES = 50
"""Minimum number of eigenvalues: with a true α of 2 and 50 eigenvalues, the fitted α is 2.1 ± 0.27."""

MIN_TAIL = 20
"""Minimum number of eigenvalues in the tail."""

MIN_SPAN = 1.1
"""Smallest xmax/xmin: below it (an orthogonal matrix) there is no tail, regardless of D."""

CRITICAL = 0.85
"""Largest D·√tail that counts as a good fit: the fits of 98 % of true Pareto samples are below (by simulation)."""

GOOD_D = 0.04
"""A D up to this is a good fit for any tail size: long tails reject every model because of irrelevant deviations."""


def evidence(fit: PowerLawFit) -> str:
    """``sufficient``, or the first reason why the fit's α should not be relied on.

    Args:
        fit: a power-law fit.

    Returns:
        ``no fit``, ``few eigenvalues`` (under 50), ``short tail`` (under 20), ``flat spectrum`` (the tail spans less
        than a factor of 1.1), ``poor fit`` (D above 0.85/√tail and above 0.04), or ``sufficient``.
    """
    if not np.isfinite(fit.alpha):
        return "no fit"
    if fit.eigenvalues < MIN_EIGENVALUES:
        return "few eigenvalues"
    if fit.tail < MIN_TAIL:
        return "short tail"
    if fit.xmax < MIN_SPAN * fit.xmin:
        return "flat spectrum"
    if max(CRITICAL / np.sqrt(fit.tail), GOOD_D) < fit.D:
        return "poor fit"
    return "sufficient"
