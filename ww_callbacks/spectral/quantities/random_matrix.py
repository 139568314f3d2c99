"""Quantities that compare W with random-matrix theory: bulk and spikes, phase, z-scores against noise.

Where a layer has several matrices of one shape, their eigenvalues are pooled; of unequal shapes the values are NaN.
"""

from __future__ import annotations

import numpy as np

from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity
from ww_callbacks.spectral.quantities.ranks import effective_rank, participation_ratio, stable_rank
from ww_callbacks.spectral.quantities.shared import (
    largest_eigenvalue,
    on_host,
    once,
    relative_eigenvalues_of_one_shape,
    spikes,
)
from ww_callbacks.spectral.random_matrix import tracy_widom
from ww_callbacks.spectral.random_matrix.distances import mp_distance as distance_from_mp
from ww_callbacks.spectral.random_matrix.farms import fixed_aspect_submatrices
from ww_callbacks.spectral.random_matrix.nulls.zscore import null_z_score
from ww_callbacks.spectral.random_matrix.phases import phase as decide_phase
from ww_callbacks.spectral.random_matrix.spikes import bulk_distance, critical_strength

FAMILY = "random matrix"


# W against the Marchenko–Pastur law of its bulk


@quantity(
    "bulk_variance",
    title="bulk variance",
    definition="s² of the Marchenko–Pastur bulk: Σλ without the k spikes, over (N−k)(M−k)",
    family=FAMILY,
)
def bulk_variance(sample: LayerWeights) -> float:
    """Variance s² of an element of the bulk, in units of the weights squared: see ``spikes.find_spikes``."""
    return spikes(sample).variance * largest_eigenvalue(sample)


@quantity("bulk_edge", title="bulk edge λ₊", definition="λ₊ = s²(√N + √M)², s² the bulk variance", family=FAMILY)
def bulk_edge(sample: LayerWeights) -> float:
    """Upper edge λ₊ of the bulk, in units of λ."""
    return spikes(sample).bulk_max * largest_eigenvalue(sample)


@quantity("bulk_softrank", title="soft rank λ₊/λ_1", definition="λ₊/λ_1, λ₊ the bulk edge", family=FAMILY, worst="low")
def bulk_softrank(sample: LayerWeights) -> float:
    """Soft rank λ₊/λ_1: about 1 for noise, approaching 0 the further the largest eigenvalue is above the bulk."""
    return spikes(sample).bulk_max


@quantity(
    "bulk_spikes",
    title="spikes",
    definition="number of λ beyond the Tracy–Widom edge of the bulk at the 1 % level",
    family=FAMILY,
)
def bulk_spikes(sample: LayerWeights) -> float:
    """Number of eigenvalues that a random matrix of the bulk's variance would not have: see ``spikes.find_spikes``."""
    found = spikes(sample)
    return float(len(found.eigenvalues)) if np.isfinite(found.variance) else np.nan


@quantity(
    "bulk_distance",
    title="distance of the bulk from Marchenko–Pastur",
    definition="Kolmogorov–Smirnov distance of the λ that are no spikes from the Marchenko–Pastur law",
    family=FAMILY,
)
def distance_of_bulk(sample: LayerWeights) -> float:
    """How badly the Marchenko–Pastur law fits the bulk; noise has about √(ln M)/M: see ``spikes.bulk_distance``."""
    return bulk_distance(relative_eigenvalues_of_one_shape(sample), sample.shape, spikes(sample))


@quantity(
    "spike_strength",
    title="strength of the largest spike",
    definition="θ/(NM)^{1/4} of λ_1, from λ_1 = s²(θ²+N)(θ²+M)/θ²; NaN without a spike",
    family=FAMILY,
)
def spike_strength(sample: LayerWeights) -> float:
    """Strength of the strongest rank-one part over the critical strength, at least 1; NaN if there is no spike."""
    found = spikes(sample)
    return (
        float(found.strengths[0]) / critical_strength(sample.shape)
        if len(found.strengths) and found.variance > 0
        else np.nan
    )


@quantity(
    "tw_z",
    title="Tracy–Widom z of λ_1",
    definition="(λ_1 − μ)/τ of the bulk; noise: mean −1.21, 95 % below 0.98, 99 % below 2.02",
    family=FAMILY,
)
def tw_z(sample: LayerWeights) -> float:
    """The largest eigenvalue, over all matrices, in Tracy–Widom units of the bulk: see ``tracy_widom``."""
    return spikes(sample).z


@quantity(
    "tw_p",
    title="Tracy–Widom p of λ_1",
    definition="1 − F₁(z)^p for the largest λ of p pooled matrices",
    family=FAMILY,
    cost="request",
)
def tw_p(sample: LayerWeights) -> float:
    """How often noise has so large an eigenvalue, the number of matrices pooled taken into account."""
    tail = tracy_widom.sf(spikes(sample).z)
    return float(-np.expm1(len(sample.matrices) * np.log1p(-tail)))


@quantity(
    "mp_distance",
    title="distance from Marchenko–Pastur",
    definition="Jensen–Shannon distance of the sorted λ from Marchenko–Pastur quantiles, natural log",
    family=FAMILY,
)
def mp_distance(sample: LayerWeights) -> float:
    """As `rand_distance`, but from the law's expected eigenvalues: no shuffle, no second decomposition, no chance."""
    values = relative_eigenvalues_of_one_shape(sample)
    return distance_from_mp(values, sample.shape) if len(values) else np.nan


@quantity(
    "phase",
    title="phase",
    definition="Martin and Mahoney's 5+1 phases, or `undecided`: tests in ww_callbacks.spectral.random_matrix.phases",
    family=FAMILY,
    text=True,
)
def phase(sample: LayerWeights) -> str:
    """One of ``ww_callbacks.spectral.random_matrix.phases.PHASES``."""
    return decide_phase(relative_eigenvalues_of_one_shape(sample), sample.shape, sample.power_law).name


# W against noise of its shape


def _null_z(name: str, value: float, sample: LayerWeights) -> float:
    return null_z_score(name, value, [(w.shape[0], w.shape[1]) for w in sample.matrices])


@quantity(
    "alpha_null_z",
    title="α against noise of its shape",
    definition="(ln(α−1) − mean)/std over Gaussian matrices of the same shape",
    family=FAMILY,
    worst="high",
)
def alpha_null_z(sample: LayerWeights) -> float:
    """Distance of ln(α − 1) from noise of the same shape in standard deviations: see ``nulls.zscore``."""
    return _null_z("alpha", sample.power_law.alpha, sample)


@quantity(
    "effective_rank_null_z",
    title="effective rank against noise of its shape",
    definition="(effective rank − mean)/std over Gaussian matrices of the same shape",
    family=FAMILY,
    worst="low",
)
def effective_rank_null_z(sample: LayerWeights) -> float:
    """Distance of the effective rank from noise of the same shape in standard deviations: see ``nulls.zscore``."""
    return _null_z("effective_rank", effective_rank(sample.pooled_singular_values), sample)


@quantity(
    "stable_rank_null_z",
    title="stable rank against noise of its shape",
    definition="(stable rank − mean)/std over Gaussian matrices of the same shape",
    family=FAMILY,
    worst="low",
)
def stable_rank_null_z(sample: LayerWeights) -> float:
    """Distance of the stable rank from noise of the same shape in standard deviations: see ``nulls.zscore``."""
    return _null_z("stable_rank", stable_rank(sample.pooled_singular_values), sample)


@quantity(
    "participation_ratio_null_z",
    title="participation ratio against noise of its shape",
    definition="(participation ratio − mean)/std over Gaussian matrices of the same shape",
    family=FAMILY,
    worst="low",
)
def participation_ratio_null_z(sample: LayerWeights) -> float:
    """Distance of the participation ratio from noise of the same shape in standard deviations: see ``nulls.zscore``."""
    return _null_z("participation_ratio", participation_ratio(sample.pooled_singular_values), sample)


@quantity(
    "alpha_farms",
    title="α of fixed-aspect submatrices",
    definition="α of the pooled eigenvalues of square submatrices that cover W (FARMS)",
    family=FAMILY,
    cost="request",
    worst="both",
)
def alpha_farms(sample: LayerWeights) -> float:
    """α free of the matrix's aspect ratio; not comparable with `alpha`: see ``farms``."""
    return _fixed_aspect(sample).power_law.alpha


@once
def _fixed_aspect(sample: LayerWeights) -> LayerWeights:
    return LayerWeights([part for w in sample.matrices for part in fixed_aspect_submatrices(on_host(w))])


@quantity(
    "mean_strength",
    title="strength of the mean",
    definition="(NM)^{1/4}·|mean|/std of the elements; beyond 1 an uncentred trap",
    family=FAMILY,
    cost="cheap",
    worst="high",
)
def mean_strength(sample: LayerWeights) -> float:
    """The mean element as a rank-one part, over the strength from which it shows in a shuffle's spectrum."""
    mean, spread = abs(sample.element_mean), float(np.sqrt(sample.element_variance))
    # Equal elements have rounding for a spread, and nothing for a mean to be compared with.
    if not 1e-12 * mean < spread < np.inf:
        return np.nan
    return critical_strength(sample.shape) * mean / spread
