"""Alternative fits of the tail, measured on request: other estimates of α, its uncertainty, other laws."""

from __future__ import annotations

from typing import cast

import numpy as np

from ww_callbacks.spectral.estimates.leading import hill_alpha_of_top, leading_eigenvalues
from ww_callbacks.spectral.estimates.perturbation import hill_alpha_change
from ww_callbacks.spectral.fits.bootstrap import bootstrap_interval, bootstrap_p_value
from ww_callbacks.spectral.fits.clauset import RELATIVE_CUT
from ww_callbacks.spectral.fits.hill import hill_fit
from ww_callbacks.spectral.fits.interval import alpha_interval
from ww_callbacks.spectral.fits.likelihood_ratio import Alternative, Comparison, compare
from ww_callbacks.spectral.fits.truncated import TruncatedFit, truncated_fit
from ww_callbacks.spectral.fits.weightwatcher import weightwatcher_fit
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity
from ww_callbacks.spectral.quantities.shared import space_of


@quantity(
    "alpha_hill",
    title="Hill's α",
    definition="1 + k/Σ ln(λ_i/λ_{k+1}) over the k = M/2 largest λ",
    family="power law",
    worst="both",
)
def alpha_hill(sample: LayerWeights) -> float:
    """Hill's α with the upper half of the eigenvalues as tail: no xmin, so no jumps."""
    return hill_fit(sample.relative_eigenvalues).alpha


TOP = 16
"""Eigenvalues in the tail of `alpha_hill_top`, but at most a quarter of all."""


def _top(sample: LayerWeights) -> int:
    return min(TOP, sum(min(w.shape) for w in sample.matrices) // 4)


@quantity(
    "alpha_hill_top",
    title="Hill's α of the top",
    definition="1 + k/Σ ln(λ_i/λ_{k+1}) over the k = min(16, M/4) largest λ",
    family="power law",
    worst="both",
    estimate=lambda layer: hill_alpha_of_top(leading_eigenvalues(space_of(layer), _top(layer) + 1), _top(layer)),
    change=lambda layer, distance: hill_alpha_change(
        np.sort(layer.pooled_singular_values)[::-1], _top(layer), distance
    ),
)
def alpha_hill_top(sample: LayerWeights) -> float:
    """Hill's α of the largest eigenvalues only, which can be estimated; NaN with fewer than eight eigenvalues."""
    top = _top(sample)
    values = sample.relative_eigenvalues[-top - 1 :]
    if top < 2 or not values[0] > RELATIVE_CUT:
        return np.nan
    return hill_fit(values, tail=top).alpha


@quantity(
    "alpha_low",
    title="lower end of α",
    definition="lower end of the 95 % confidence interval of α, widened for the choice of xmin",
    family="power law",
)
def alpha_low(sample: LayerWeights) -> float:
    """Lower end of α's 95 % confidence interval, see :func:`ww_callbacks.spectral.fits.interval.alpha_interval`."""
    return alpha_interval(sample.power_law)[0]


@quantity(
    "alpha_high",
    title="upper end of α",
    definition="upper end of the 95 % confidence interval of α, widened for the choice of xmin",
    family="power law",
)
def alpha_high(sample: LayerWeights) -> float:
    """Upper end of α's 95 % confidence interval, see :func:`ww_callbacks.spectral.fits.interval.alpha_interval`."""
    return alpha_interval(sample.power_law)[1]


@quantity(
    "alpha_weightwatcher",
    title="WeightWatcher's α",
    definition="α as WeightWatcher 0.7.7 fits it: λ > 1e-5 only, another formula below 20 of them",
    family="power law",
    worst="both",
)
def alpha_weightwatcher(sample: LayerWeights) -> float:
    """WeightWatcher's α with its absolute cut and small-sample formula; it depends on the scale of W."""
    return weightwatcher_fit(sample.eigenvalues).alpha


@quantity(
    "warning",
    title="WeightWatcher's label",
    definition="`over-trained` for α < 2, `under-trained` for α > 6; empty between, and without sufficient evidence",
    family="power law",
    text=True,
)
def warning(sample: LayerWeights) -> str:
    """WeightWatcher's label of a layer, given only where the evidence for α suffices."""
    from ww_callbacks.spectral.quantities.tail.power_law import alpha_evidence

    if alpha_evidence(sample) != "sufficient":
        return ""
    alpha = sample.power_law.alpha
    return "over-trained" if alpha < 2.0 else "under-trained" if alpha > 6.0 else ""


@quantity(
    "alpha_truncated",
    title="α of the truncated law",
    definition="α of p(λ) ∝ λ^−α e^−Λλ over λ ≥ xmin",
    family="power law",
    cost="request",
)
def alpha_truncated(sample: LayerWeights) -> float:
    """Exponent of the power law with an exponential cut-off, on the tail of the pure power law's fit."""
    return _truncated(sample).alpha


@quantity(
    "Lambda",
    title="cut-off rate",
    definition="Λ of p(λ) ∝ λ^−α e^−Λλ over λ ≥ xmin, in units of 1/λ",
    family="power law",
    cost="request",
)
def cut_off(sample: LayerWeights) -> float:
    """Rate Λ of the exponential cut-off (WeightWatcher's `Lambda`, there only for `fit='TPL'`)."""
    largest = float(sample.eigenvalues[-1])
    return _truncated(sample).Lambda / largest if largest > 0.0 else np.nan


@quantity(
    "lognormal_ratio",
    title="power law against lognormal",
    definition="Vuong's normalised log-likelihood ratio; positive favours the power law",
    family="power law",
    cost="request",
    worst="low",
)
def lognormal_ratio(sample: LayerWeights) -> float:
    """Vuong's ratio of the power law to a lognormal on the same tail; within ±2 it is undecided."""
    return _comparison(sample, "lognormal").ratio


@quantity(
    "exponential_ratio",
    title="power law against exponential",
    definition="Vuong's normalised log-likelihood ratio; positive favours the power law",
    family="power law",
    cost="request",
    worst="low",
)
def exponential_ratio(sample: LayerWeights) -> float:
    """Vuong's ratio of the power law to an exponential on the same tail; within ±2 it is undecided."""
    return _comparison(sample, "exponential").ratio


@quantity(
    "truncated_p_value",
    title="p-value of no cut-off",
    definition="probability of so much better a truncated law by chance, χ² of one degree of freedom",
    family="power law",
    cost="request",
    worst="low",
)
def truncated_p_value(sample: LayerWeights) -> float:
    """Likelihood-ratio test of the pure against the truncated power law; small: the tail is cut off."""
    return _comparison(sample, "truncated").p_value


@quantity(
    "alpha_p_value",
    title="p-value of the power law",
    definition="share of bootstrap samples of the fitted law that fit as badly (Clauset et al. 2009)",
    family="power law",
    cost="request",
    worst="low",
)
def alpha_p_value(sample: LayerWeights) -> float:
    """Semi-parametric bootstrap p-value; below 0.1 the power law is rejected."""
    return bootstrap_p_value(sample.relative_eigenvalues, seed=sample.seed)


@quantity(
    "alpha_bootstrap_low",
    title="lower bootstrap end of α",
    definition="2.5 % quantile of α over resamples of the eigenvalues",
    family="power law",
    cost="request",
)
def alpha_bootstrap_low(sample: LayerWeights) -> float:
    """Lower end of the 95 % percentile interval of α over resamples, each with its own xmin."""
    return _bootstrap(sample)[0]


@quantity(
    "alpha_bootstrap_high",
    title="upper bootstrap end of α",
    definition="97.5 % quantile of α over resamples of the eigenvalues",
    family="power law",
    cost="request",
)
def alpha_bootstrap_high(sample: LayerWeights) -> float:
    """Upper end of the 95 % percentile interval of α over resamples, each with its own xmin."""
    return _bootstrap(sample)[1]


def _truncated(sample: LayerWeights) -> TruncatedFit:
    """The truncated power law of the eigenvalues relative to λ_1, fitted once."""
    if "truncated_fit" not in sample.scratch:
        sample.scratch["truncated_fit"] = truncated_fit(sample.relative_eigenvalues)
    return cast(TruncatedFit, sample.scratch["truncated_fit"])


def _comparison(sample: LayerWeights, alternative: Alternative) -> Comparison:
    """The power law against another on the eigenvalues relative to λ_1."""
    return compare(sample.relative_eigenvalues, sample.relative_power_law, alternative)


def _bootstrap(sample: LayerWeights) -> tuple[float, float]:
    """The bootstrap interval, drawn once."""
    if "bootstrap_interval" not in sample.scratch:
        sample.scratch["bootstrap_interval"] = bootstrap_interval(sample.relative_eigenvalues, seed=sample.seed)
    return cast("tuple[float, float]", sample.scratch["bootstrap_interval"])
