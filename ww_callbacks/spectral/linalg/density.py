"""The spectral density of one layer, reduced to what the views draw."""

from __future__ import annotations

from typing import Any

import numpy as np

from ww_callbacks.spectral.fits.clauset import RELATIVE_CUT, Scan, usable
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.random_matrix.marchenko_pastur import edges

BINS = 64
"""Bins of the histogram of log10 λ."""

CANDIDATES = 64
"""At most this many candidates for xmin are kept for the curve of D against xmin."""


def spectral_density(sample: LayerWeights) -> dict[str, Any]:
    """Histogram, power-law fit and Marchenko–Pastur edges of one layer.

    Args:
        sample: the layer.

    Returns:
        ``log10_lambda_edges`` (65 edges of equal width from the smallest to the largest eigenvalue that the fit
        considers), ``count`` (64); the fit's ``alpha``, ``xmin``, ``xmax``, ``D``, ``sigma``, ``num_pl_spikes``;
        ``mp_variance`` (variance s² of the elements), ``mp_minus`` and ``mp_plus`` (λ± for it); ``candidates`` with
        at most 64 ``xmin``, each with its ``D`` and ``alpha``, evenly over the candidates and the chosen one among
        them; ``shuffled_max``, the largest eigenvalue of the shuffled matrix where a null has been measured, else None.
        Empty lists where there is no eigenvalue above zero.
    """
    with np.errstate(all="ignore"):
        fit = sample.power_law
        variance = sample.element_variance
        minus, plus = edges(sample.shape, variance)
    shuffled = sample.scratch.get("shuffled_max")
    x = usable(sample.eigenvalues, RELATIVE_CUT)
    bins, count = _histogram(x)
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
        "candidates": _candidates(x, fit.xmin),
        "shuffled_max": float(shuffled) if isinstance(shuffled, int | float) else None,
    }


def _histogram(x: np.ndarray) -> tuple[list[float], list[int]]:
    """Edges and counts of log10 x; one bin's width around the value where all are equal."""
    if len(x) == 0:
        return [], []
    logs = np.log10(x)
    low, high = float(logs[0]), float(logs[-1])
    if high - low < 1e-6:
        low, high = low - 0.5, high + 0.5
    count, bins = np.histogram(logs, bins=BINS, range=(low, high))
    return bins.tolist(), count.tolist()


def _candidates(x: np.ndarray, chosen: float) -> dict[str, list[float]]:
    """D and α at candidates spread evenly over the scan, the chosen one among them."""
    scan = Scan(x)
    places = scan.candidates
    if len(places) > CANDIDATES:
        spread = np.linspace(0, len(places) - 1, CANDIDATES - 1).round().astype(int)
        places = np.unique(np.append(places[spread], np.argmin(np.abs(x - chosen))))
    return {
        "xmin": x[places].tolist(),
        "D": scan.distances(places).tolist(),
        "alpha": (1.0 + scan.beta[places]).tolist(),
    }
