"""Quantities that hold W against random-matrix theory: its bulk and spikes, its shuffle, traps, and same-shape noise.

Those that need W's shuffle draw it from the sample's own seed, once: the same layer and seed give the same number.
Where a layer has several matrices of one shape, their eigenvalues are pooled; of unequal shapes the values are NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np

from spectral.arrays import as_array, on_accelerator
from spectral.layers.spec import Array
from spectral.phases import phase as decide_phase
from spectral.random_matrix import tracy_widom
from spectral.random_matrix.density_fit import DensityFit
from spectral.random_matrix.density_fit import density_fit as fit_density
from spectral.random_matrix.farms import fixed_aspect_submatrices
from spectral.random_matrix.null_zscore import null_z_score
from spectral.random_matrix.nulls import generator, shuffled
from spectral.random_matrix.rand_distance import mp_distance as distance_from_mp
from spectral.random_matrix.rand_distance import rand_distance as distance_from_shuffle
from spectral.random_matrix.spikes import Spikes, bulk_distance, critical_strength, find_spikes
from spectral.random_matrix.traps import Traps, correlation_traps
from spectral.registry import quantity
from spectral.sample import LayerSample
from spectral.spectrum import gram_singular_values

FAMILY = "random matrix"
T = TypeVar("T")


def _once(sample: LayerSample, key: str, compute: Callable[[], T]) -> T:
    """What several quantities share, computed when the first asks for it."""
    if key not in sample.scratch:
        sample.scratch[key] = compute()
    return cast(T, sample.scratch[key])


def _of_one_shape(sample: LayerSample) -> bool:
    return len({tuple(sorted(w.shape)) for w in sample.matrices}) == 1


def _eigenvalues(sample: LayerSample) -> np.ndarray:
    """The pooled eigenvalues, none where the matrices' shapes differ and no one law describes them."""
    return sample.eigenvalues if _of_one_shape(sample) else np.empty(0)


def _on_host(matrix: Array) -> np.ndarray:
    return np.asarray(as_array(matrix.cpu() if on_accelerator(matrix) else matrix))


def _spikes(sample: LayerSample) -> Spikes:
    return _once(sample, "spikes", lambda: find_spikes(_eigenvalues(sample), sample.shape))


def _density_fit(sample: LayerSample) -> DensityFit:
    return _once(sample, "density_fit", lambda: fit_density(_eigenvalues(sample), sample.shape))


def _shuffled_eigenvalues(sample: LayerSample) -> np.ndarray:
    """Eigenvalues of the shuffled matrices, pooled, ascending: the second spectrum."""

    def compute() -> np.ndarray:
        values = [
            gram_singular_values(shuffled(_on_host(w), generator(sample.seed, i))) ** 2
            for i, w in enumerate(sample.matrices)
        ]
        eigenvalues = np.sort(np.concatenate(values))
        sample.scratch["shuffled_max"] = float(eigenvalues[-1])
        return eigenvalues

    return _once(sample, "shuffled_eigenvalues", compute)


def _shuffled_fit(sample: LayerSample) -> DensityFit:
    def compute() -> DensityFit:
        return fit_density(_shuffled_eigenvalues(sample) if _of_one_shape(sample) else np.empty(0), sample.shape)

    return _once(sample, "shuffled_fit", compute)


def _traps(sample: LayerSample) -> list[Traps]:
    def compute() -> list[Traps]:
        level = 0.01 / len(sample.matrices)
        found = [
            correlation_traps(_on_host(w), generator(sample.seed, i), level=level)
            for i, w in enumerate(sample.matrices)
        ]
        sample.scratch["shuffled_max"] = max(trap.largest for trap in found)
        return found

    return _once(sample, "traps", compute)


def _total(counts: list[int], sample: LayerSample) -> float:
    """How many traps; NaN where all elements are equal and there is no edge to be beyond."""
    return float(sum(counts)) if np.isfinite(trap_z_uncentred(sample)) else np.nan


# W against the Marchenko–Pastur law of its bulk


@quantity(
    "bulk_variance",
    title="bulk variance",
    definition="s² of the Marchenko–Pastur bulk: Σλ without the k spikes, over (N−k)(M−k)",
    family=FAMILY,
)
def bulk_variance(sample: LayerSample) -> float:
    """Variance s² of an element of the bulk, in units of the weights squared: see ``spikes.find_spikes``."""
    return _spikes(sample).variance


@quantity("bulk_edge", title="bulk edge λ₊", definition="λ₊ = s²(√N + √M)², s² the bulk variance", family=FAMILY)
def bulk_edge(sample: LayerSample) -> float:
    """Upper edge λ₊ of the bulk, in units of λ."""
    return _spikes(sample).bulk_max


@quantity("bulk_softrank", title="soft rank λ₊/λ_1", definition="λ₊/λ_1, λ₊ the bulk edge", family=FAMILY, worst="low")
def bulk_softrank(sample: LayerSample) -> float:
    """Soft rank λ₊/λ_1: about 1 for noise, towards 0 the further the largest eigenvalue stands out of the bulk."""
    found = _spikes(sample)
    return found.bulk_max / float(sample.eigenvalues[-1]) if np.isfinite(found.bulk_max) else np.nan


@quantity(
    "bulk_spikes",
    title="spikes",
    definition="number of λ beyond the Tracy–Widom edge of the bulk at the 1 % level",
    family=FAMILY,
)
def bulk_spikes(sample: LayerSample) -> float:
    """Number of eigenvalues that a random matrix of the bulk's variance would not have: see ``spikes.find_spikes``."""
    found = _spikes(sample)
    return float(len(found.eigenvalues)) if np.isfinite(found.variance) else np.nan


@quantity(
    "bulk_distance",
    title="distance of the bulk from Marchenko–Pastur",
    definition="Kolmogorov–Smirnov distance of the λ that are no spikes from the Marchenko–Pastur law",
    family=FAMILY,
)
def distance_of_bulk(sample: LayerSample) -> float:
    """How badly the Marchenko–Pastur law fits the bulk; noise has about √(ln M)/M: see ``spikes.bulk_distance``."""
    return bulk_distance(_eigenvalues(sample), sample.shape, _spikes(sample))


@quantity(
    "spike_strength",
    title="strength of the largest spike",
    definition="θ/(NM)^{1/4} of λ_1, from λ_1 = s²(θ²+N)(θ²+M)/θ²; NaN without a spike",
    family=FAMILY,
)
def spike_strength(sample: LayerSample) -> float:
    """Strength of the strongest rank-one part over the critical strength, at least 1; NaN where nothing stands out."""
    found = _spikes(sample).strengths
    return float(found[0]) / critical_strength(sample.shape) if len(found) else np.nan


@quantity(
    "tw_z",
    title="Tracy–Widom z of λ_1",
    definition="(λ_1 − μ)/τ of the bulk; noise: mean −1.21, 95 % below 0.98, 99 % below 2.02",
    family=FAMILY,
)
def tw_z(sample: LayerSample) -> float:
    """The largest eigenvalue, over all matrices, in Tracy–Widom units of the bulk: see ``tracy_widom``."""
    return _spikes(sample).z


@quantity(
    "tw_p",
    title="Tracy–Widom p of λ_1",
    definition="1 − F₁(z)^p for the largest λ of p pooled matrices",
    family=FAMILY,
    cost="request",
)
def tw_p(sample: LayerSample) -> float:
    """How often noise has so large an eigenvalue, the number of matrices pooled taken into account."""
    tail = tracy_widom.sf(_spikes(sample).z)
    return float(-np.expm1(len(sample.matrices) * np.log1p(-tail)))


@quantity(
    "mp_distance",
    title="distance from Marchenko–Pastur",
    definition="Jensen–Shannon distance of the sorted λ from Marchenko–Pastur quantiles, natural log",
    family=FAMILY,
)
def mp_distance(sample: LayerSample) -> float:
    """As `rand_distance`, but from the law's expected eigenvalues: no shuffle, no second decomposition, no chance."""
    values = _eigenvalues(sample)
    return distance_from_mp(values, sample.shape) if len(values) else np.nan


@quantity(
    "phase",
    title="phase",
    definition="Martin and Mahoney's 5+1 phases, or `undecided`: tests in spectral.phases",
    family=FAMILY,
    text=True,
)
def phase(sample: LayerSample) -> str:
    """One of ``spectral.phases.PHASES``."""
    return decide_phase(_eigenvalues(sample), sample.shape, sample.power_law).name


# W against noise of its shape


def _null_z(sample: LayerSample, name: str) -> float:
    from spectral.registry import all_quantities

    function = next(q.function for q in all_quantities() if q.name == name)
    return null_z_score(name, float(function(sample)), [w.shape for w in sample.matrices])


@quantity(
    "alpha_null_z",
    title="α against noise of its shape",
    definition="(ln(α−1) − mean)/std over Gaussian matrices of the same shape",
    family=FAMILY,
    worst="high",
)
def alpha_null_z(sample: LayerSample) -> float:
    """How many standard deviations ln(α − 1) lies from noise of the same shape: see ``null_zscore``."""
    return _null_z(sample, "alpha")


@quantity(
    "effective_rank_null_z",
    title="effective rank against noise of its shape",
    definition="(effective rank − mean)/std over Gaussian matrices of the same shape",
    family=FAMILY,
    worst="low",
)
def effective_rank_null_z(sample: LayerSample) -> float:
    """How many standard deviations the effective rank lies from noise of the same shape: see ``null_zscore``."""
    return _null_z(sample, "effective_rank")


@quantity(
    "stable_rank_null_z",
    title="stable rank against noise of its shape",
    definition="(stable rank − mean)/std over Gaussian matrices of the same shape",
    family=FAMILY,
    worst="low",
)
def stable_rank_null_z(sample: LayerSample) -> float:
    """How many standard deviations the stable rank lies from noise of the same shape: see ``null_zscore``."""
    return _null_z(sample, "stable_rank")


@quantity(
    "participation_ratio_null_z",
    title="participation ratio against noise of its shape",
    definition="(participation ratio − mean)/std over Gaussian matrices of the same shape",
    family=FAMILY,
    worst="low",
)
def participation_ratio_null_z(sample: LayerSample) -> float:
    """How many standard deviations the participation ratio lies from noise of the same shape: see ``null_zscore``."""
    return _null_z(sample, "participation_ratio")


@quantity(
    "alpha_farms",
    title="α of fixed-aspect submatrices",
    definition="α of the pooled eigenvalues of square submatrices that cover W (FARMS)",
    family=FAMILY,
    cost="request",
    worst="both",
)
def alpha_farms(sample: LayerSample) -> float:
    """α free of the matrix's aspect ratio; not comparable with `alpha`: see ``farms``."""
    return _fixed_aspect(sample).power_law.alpha


def _fixed_aspect(sample: LayerSample) -> LayerSample:
    def compute() -> LayerSample:
        return LayerSample([part for w in sample.matrices for part in fixed_aspect_submatrices(_on_host(w))])

    return _once(sample, "fixed_aspect", compute)


# Correlation traps: the shuffled W against its own edge


@quantity(
    "mean_strength",
    title="strength of the mean",
    definition="(NM)^{1/4}·|mean|/std of the elements; beyond 1 an uncentred trap",
    family=FAMILY,
    cost="cheap",
    worst="high",
)
def mean_strength(sample: LayerSample) -> float:
    """The mean element as a rank-one part, over the strength from which it shows in a shuffle's spectrum."""
    return float(critical_strength(sample.shape) * abs(sample.element_mean) / np.sqrt(sample.element_variance))


@quantity(
    "traps_centred",
    title="correlation traps, mean taken off",
    definition="number of λ of the shuffled W − mean beyond the Tracy–Widom edge at 1 % a layer",
    family=FAMILY,
    cost="request",
    worst="high",
)
def traps_centred(sample: LayerSample) -> float:
    """Traps that single large elements make: see ``traps``."""
    return _total([trap.centred for trap in _traps(sample)], sample)


@quantity(
    "traps_uncentred",
    title="correlation traps",
    definition="number of λ of the shuffled W beyond the Tracy–Widom edge at 1 % a layer",
    family=FAMILY,
    cost="request",
    worst="high",
)
def traps_uncentred(sample: LayerSample) -> float:
    """Traps that single large elements or a mean other than 0 make: see ``traps``."""
    return _total([trap.uncentred for trap in _traps(sample)], sample)


@quantity(
    "trap_z_centred",
    title="trap z, mean taken off",
    definition="(λ_1 − μ)/τ of the shuffled W − mean, the largest over the matrices; noise: 99 % below 2.02",
    family=FAMILY,
    cost="request",
    worst="high",
)
def trap_z_centred(sample: LayerSample) -> float:
    """The centred shuffle's largest eigenvalue in Tracy–Widom units."""
    return float(np.max([trap.z_centred for trap in _traps(sample)]))


@quantity(
    "trap_z_uncentred",
    title="trap z",
    definition="(λ_1 − μ)/τ of the shuffled W, the largest over the matrices; noise: 99 % below 2.02",
    family=FAMILY,
    cost="request",
    worst="high",
)
def trap_z_uncentred(sample: LayerSample) -> float:
    """The uncentred shuffle's largest eigenvalue in Tracy–Widom units."""
    return float(np.max([trap.z_uncentred for trap in _traps(sample)]))


# WeightWatcher's own columns: its fit of W, its shuffle, its fit of the shuffle


def _declare_fit(name: str, title: str, definition: str, value: Callable[[DensityFit], float]) -> None:
    """WeightWatcher's column ``name`` of W's fit, and the same of the shuffle's fit under ``rand_`` + ``name``."""

    def of_weights(sample: LayerSample) -> float:
        return value(_density_fit(sample))

    def of_shuffle(sample: LayerSample) -> float:
        return value(_shuffled_fit(sample))

    of_weights.__doc__ = f"WeightWatcher's `{name}`: {definition} (see ``density_fit``)."
    of_shuffle.__doc__ = f"WeightWatcher's `rand_{name}`: {definition}, of the shuffled W (see ``density_fit``)."
    quantity(name, title=title, definition=definition, family=FAMILY, cost="request")(of_weights)
    shuffled_definition = f"{definition}, of the shuffled W"
    quantity(
        f"rand_{name}", title=f"{title} (shuffled)", definition=shuffled_definition, family=FAMILY, cost="request"
    )(of_shuffle)


_declare_fit("sigma_mp", "σ of the fitted bulk", "σ of WeightWatcher's fit, λ scaled to mean 1", lambda f: f.sigma_mp)
_declare_fit("bulk_min", "λ₋ of the fitted bulk", "λ₋ of WeightWatcher's fit", lambda f: f.bulk_min)
_declare_fit("bulk_max", "λ₊ of the fitted bulk", "λ₊ of WeightWatcher's fit", lambda f: f.bulk_max)
_declare_fit("num_spikes", "λ beyond the fitted bulk", "number of λ beyond WeightWatcher's cut", lambda f: f.num_spikes)
_declare_fit("mp_softrank", "soft rank of the fitted bulk", "bulk_max/λ_1", lambda f: f.mp_softrank)


@quantity(
    "rand_W_scale",
    title="scale before the fit (shuffled)",
    definition="√(number of λ / Σλ) of the shuffled W: the same as `W_scale`, for a shuffle keeps ‖W‖_F",
    family=FAMILY,
    cost="request",
)
def rand_w_scale(sample: LayerSample) -> float:
    """WeightWatcher's `rand_W_scale`."""
    total = float(np.sum(sample.eigenvalues))
    return float(np.sqrt(len(sample.eigenvalues) / total)) if total > 0 else np.nan


@quantity(
    "num_traps",
    title="traps by WeightWatcher's cut",
    definition="number of λ of the shuffled W beyond WeightWatcher's cut: `rand_num_spikes`",
    family=FAMILY,
    cost="request",
    worst="high",
)
def num_traps(sample: LayerSample) -> float:
    """WeightWatcher's `num_traps`; `traps_centred` and `traps_uncentred` tell large elements from a mean."""
    return _shuffled_fit(sample).num_spikes


@quantity(
    "max_rand_eval",
    title="largest λ of the shuffle",
    definition="largest λ of the shuffled W",
    family=FAMILY,
    cost="request",
)
def max_rand_eval(sample: LayerSample) -> float:
    """WeightWatcher's `max_rand_eval`, of one shuffle (it takes five where there are fewer than 100 eigenvalues)."""
    return float(_shuffled_eigenvalues(sample)[-1])


@quantity(
    "rand_distance",
    title="distance from the shuffle",
    definition="Jensen–Shannon distance of the sorted λ of W from those of the shuffled W, natural log",
    family=FAMILY,
    cost="request",
)
def rand_distance(sample: LayerSample) -> float:
    """WeightWatcher's `rand_distance`: see ``rand_distance``; `mp_distance` is nearly the same at no cost."""
    return distance_from_shuffle(sample.eigenvalues, _shuffled_eigenvalues(sample))


@quantity(
    "ww_softrank",
    title="soft rank against the shuffle",
    definition="largest λ of the shuffled W over λ_1",
    family=FAMILY,
    cost="request",
    worst="low",
)
def ww_softrank(sample: LayerSample) -> float:
    """WeightWatcher's `ww_softrank`."""
    return max_rand_eval(sample) / float(sample.eigenvalues[-1]) if sample.eigenvalues[-1] > 0 else np.nan


@quantity(
    "ww_maxdist",
    title="λ_1 beyond the shuffle",
    definition="λ_1 less the largest λ of the shuffled W",
    family=FAMILY,
    cost="request",
)
def ww_maxdist(sample: LayerSample) -> float:
    """WeightWatcher's `ww_maxdist`, in units of λ."""
    return float(sample.eigenvalues[-1]) - max_rand_eval(sample)
