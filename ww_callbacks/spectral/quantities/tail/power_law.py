"""The power law fitted to the tail of the eigenvalues, and quantities derived from its exponent."""

from __future__ import annotations

import numpy as np

from ww_callbacks.spectral.fits.sufficiency import evidence
from ww_callbacks.spectral.linalg.spectrum import scaling_exponent
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity
from ww_callbacks.spectral.quantities.shared import once, spikes
from ww_callbacks.spectral.random_matrix.independent_entries import independent_entries
from ww_callbacks.spectral.random_matrix.spikes import bulk_distance, bulk_tolerance
from ww_callbacks.spectral.random_matrix.tracy_widom import z_score

CHANCE = 2.0234
"""The Tracy–Widom variable that a random matrix exceeds in 1 % of cases."""

OUTSTANDING = 0.1
"""Share of the tail that must be beyond the random bulk. Noise with a mean has at most 0.05; of 31 layers of a trained
transformer with a good fit, all but one have more than 0.3."""

UNEQUAL = 1.2
"""Up to this inequality of their magnitudes the eigenvalues of independent entries nearly follow Marchenko–Pastur."""

FAR = 2.5
"""How many times the tolerance of a random bulk is too far from that law for them."""


@quantity(
    "alpha",
    title="α",
    definition="exponent of p(λ) ∝ λ^−α over λ ≥ xmin, by maximum likelihood; xmin at the smallest D",
    family="power law",
    default=True,
    headline=True,
    worst="both",
)
def alpha(sample: LayerWeights) -> float:
    """Exponent α of the Clauset–Shalizi–Newman fit to the pooled eigenvalues; scale-free: α(c·W) = α(W)."""
    return sample.power_law.alpha


@quantity(
    "alpha_evidence",
    title="evidence for α",
    definition="`sufficient`, or why α should not be relied on",
    family="power law",
    default=True,
    text=True,
)
def alpha_evidence(sample: LayerWeights) -> str:
    """Whether the eigenvalues suffice for α to mean anything.

    The reasons of :func:`.sufficiency.evidence`, and then ``random bulk``: the eigenvalues follow the
    Marchenko–Pastur law, and the largest is no larger than chance gives (Tracy–Widom, 1 %) to a random matrix of this
    shape and mean square element, or fewer than a tenth of the tail is beyond the law's edge. Fresh Gaussian or
    uniform initialisations are like that, and noise with a mean, whose one spike is no tail. At last ``independent
    entries``: the eigenvalues are as unequal as independent entries of these magnitudes make them (zeros, rows of
    unequal variance, heavy-tailed elements), so that the tail shows no correlation; see
    :mod:`ww_callbacks.spectral.random_matrix.independent_entries`.
    """
    reason = evidence(sample.relative_power_law)
    if reason != "sufficient":
        return reason
    if _is_bulk(sample):
        return "random bulk"
    return "independent entries" if _is_independent(sample) else "sufficient"


def _is_bulk(sample: LayerWeights) -> bool:
    """Whether the tail is no more than the upper part of a random bulk."""
    # In units of λ_1, so that the verdict does not depend on the scale of W either; ‖W‖_F² = Σλ, and a mean counts in.
    values = sample.relative_eigenvalues
    chance = z_score(1.0, sample.shape, float(np.sum(values)) / sample.elements) <= CHANCE
    found = spikes(sample)
    few = len(found.eigenvalues) < OUTSTANDING * sample.relative_power_law.tail
    if not chance and not few:
        return False
    distance = bulk_distance(values, sample.shape, found)
    # NaN where no one law holds, as for matrices of several shapes
    return not distance > bulk_tolerance(len(values)) if chance else distance <= bulk_tolerance(len(values))


@once
def _is_independent(sample: LayerWeights) -> bool:
    """Whether the eigenvalues are no more unequal than independent entries of these magnitudes make them."""
    exponent = scaling_exponent(sample.largest)
    moment = independent_entries(sample.matrices, sample.singular_values, exponent)
    if moment is None:
        return False
    values = sample.relative_eigenvalues
    nearly_equal = moment.inequality < UNEQUAL
    # NaN where no one law holds
    return not (
        nearly_equal and bulk_distance(values, sample.shape, spikes(sample)) > FAR * bulk_tolerance(len(values))
    )


@quantity(
    "xmin",
    title="start of the tail",
    definition="λ from which the power law is fitted",
    family="power law",
    default=True,
)
def xmin(sample: LayerWeights) -> float:
    """The eigenvalue at which the fitted tail begins."""
    return sample.power_law.xmin


@quantity("xmax", title="end of the tail", definition="largest λ of the fit", family="power law")
def xmax(sample: LayerWeights) -> float:
    """The largest eigenvalue of the fitted tail."""
    return sample.power_law.xmax


@quantity(
    "D",
    title="Kolmogorov–Smirnov distance",
    definition="largest gap between the tail's and the fit's distribution functions",
    family="power law",
    default=True,
    worst="high",
)
def distance(sample: LayerWeights) -> float:
    """Kolmogorov–Smirnov distance D between the tail and the fitted power law."""
    return sample.power_law.D


@quantity(
    "sigma",
    title="standard error of α",
    definition="(α−1)/√(tail size)",
    family="power law",
    default=True,
    worst="high",
)
def sigma(sample: LayerWeights) -> float:
    """Standard error of α for a tail whose start is known; choosing xmin adds to it."""
    return sample.power_law.sigma


@quantity("num_pl_spikes", title="tail size", definition="#{λ ≥ xmin}", family="power law", default=True, worst="low")
def num_pl_spikes(sample: LayerWeights) -> float:
    """Number of eigenvalues in the fitted tail; NaN without a fit."""
    return float(sample.power_law.tail) if np.isfinite(sample.power_law.alpha) else np.nan


@quantity(
    "alpha_weighted",
    title="weighted α",
    definition="α·log10 λ_1",
    family="power law",
    default=True,
    worst="high",
)
def alpha_weighted(sample: LayerWeights) -> float:
    """α·log10 λ_1 (WeightWatcher's α-hat)."""
    return sample.power_law.alpha * sample.log_spectral_norm


@quantity("log_alpha_norm", title="log α-norm", definition="log10 Σλ^α", family="power law", worst="high")
def log_alpha_norm(sample: LayerWeights) -> float:
    """log10 Σλ^α over all eigenvalues, summed in the log domain so that it cannot overflow."""
    exponent = sample.power_law.alpha
    return exponent * sample.log_spectral_norm + float(np.log10(np.sum(sample.relative_eigenvalues**exponent)))
