"""The spectral density of one layer, reduced to the data that the views draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ww_callbacks.spectral.fits.clauset import RELATIVE_CUT, Scan, Scanned, usable
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.random_matrix.marchenko_pastur import edges

BINS = 64
"""Bins of the histogram of log10 λ."""

CANDIDATES = 64
"""Maximum number of candidates for xmin in the curve of D against xmin."""

CURVES = "curves of the density"
"""Key of the curves in a sample's ``scratch``, if they were computed for several layers at once."""

_NARROW = 1e-6

Curves = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]
"""Edges and counts of the histogram, and the candidates."""


def spectral_density(sample: LayerWeights) -> dict[str, Any]:
    """Histogram, power-law fit and Marchenko–Pastur edges of one layer.

    Args:
        sample: the layer.

    Returns:
        ``log10_lambda_edges`` (65 edges of equal width from the smallest to the largest eigenvalue that the fit
        considers), ``count`` (64); the fit's ``alpha``, ``xmin``, ``xmax``, ``D``, ``sigma``, ``num_pl_spikes``;
        ``mp_variance`` (variance s² of the elements), ``mp_minus`` and ``mp_plus`` (λ± for it); ``candidates`` with
        at most 64 ``xmin``, each with its ``D`` and ``alpha``, evenly over the candidates and the chosen one among
        them; ``shuffled_max``, the largest eigenvalue of the shuffled matrix if a null was measured, otherwise None.
        Empty arrays if there is no eigenvalue above zero.
    """
    with np.errstate(all="ignore"):
        fit = sample.power_law
        variance = sample.element_variance
        minus, plus = edges(sample.shape, variance)
    shuffled = sample.scratch.get("shuffled_max")
    drawn = sample.scratch.get(CURVES)
    bins, count, candidates = drawn if isinstance(drawn, tuple) else _curves(sample.eigenvalues, fit.xmin)
    return {
        "log10_lambda_edges": bins,
        "count": count,
        "alpha": fit.alpha,
        "xmin": fit.xmin,
        "xmax": fit.xmax,
        "D": fit.D,
        "sigma": fit.sigma,
        "num_pl_spikes": fit.tail,
        "mp_minus": minus,
        "mp_plus": plus,
        "mp_variance": variance,
        "candidates": candidates,
        "shuffled_max": float(shuffled) if isinstance(shuffled, int | float) else None,
    }


def _curves(eigenvalues: np.ndarray, xmin: float) -> Curves:
    x = usable(eigenvalues, RELATIVE_CUT)
    return *_histogram(x), _candidates(x, xmin)


def curves(eigenvalues: np.ndarray, scanned: Sequence[Scanned | None]) -> list[Curves | None]:
    """Histogram and candidates of several layers at once.

    Args:
        eigenvalues: λ of one layer per row, ascending.
        scanned: the fit of each with its candidates.

    Returns:
        For each layer the curves of :func:`spectral_density`; None if it has no such fit, more than :data:`CANDIDATES`
        candidates, or nearly equal eigenvalues.
    """
    logs = np.log10(np.maximum(eigenvalues, np.finfo(np.float64).tiny))
    low, high = logs[:, :1], logs[:, -1:]
    width = high - low
    # Like `numpy.histogram`: by proportion, then corrected where rounding put a value beyond its bin's edge.
    steps = np.arange(BINS + 1.0) * (width / BINS) + low
    steps[:, -1:] = high
    with np.errstate(all="ignore"):
        place = np.minimum(((logs - low) / width * BINS), BINS - 1).astype(np.intp)
    np.clip(place, 0, BINS - 1, out=place)
    place -= logs < np.take_along_axis(steps, place, axis=1)
    place += (logs >= np.take_along_axis(steps, place + 1, axis=1)) & (place != BINS - 1)
    row = np.arange(len(logs))[:, None] * BINS
    counts = np.bincount((place + row).ravel(), minlength=len(logs) * BINS).reshape(-1, BINS)
    wide = (width[:, 0] >= _NARROW).tolist()
    found: list[Curves | None] = []
    for at, scan in enumerate(scanned):
        if scan is None or not wide[at] or len(scan.beta) > CANDIDATES:
            found.append(None)
            continue
        candidates = {"xmin": eigenvalues[at, :-1], "D": scan.distance, "alpha": 1.0 + scan.beta}
        found.append((steps[at], counts[at], candidates))
    return found


def _histogram(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges and counts of log10 x; one bin around the value if all are equal."""
    if len(x) == 0:
        return np.empty(0), np.empty(0, np.intp)
    logs = np.log10(x)
    low, high = float(logs[0]), float(logs[-1])
    if high - low < _NARROW:
        low, high = low - 0.5, high + 0.5
    count, bins = np.histogram(logs, bins=BINS, range=(low, high))
    return bins, count


def _candidates(x: np.ndarray, chosen: float) -> dict[str, np.ndarray]:
    """D and α at candidates spread evenly over the scan, including the chosen one."""
    scan = Scan(x)
    places = scan.candidates
    if len(places) > CANDIDATES:
        spread = np.linspace(0, len(places) - 1, CANDIDATES - 1).round().astype(int)
        places = np.unique(np.append(places[spread], np.argmin(np.abs(x - chosen))))
    return {"xmin": x[places], "D": scan.distances(places), "alpha": 1.0 + scan.beta[places]}
