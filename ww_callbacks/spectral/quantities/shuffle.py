"""Quantities of W's shuffle: correlation traps, and WeightWatcher's columns of its fit and of its randomised spectrum.

The shuffle is drawn from the sample's own seed, once: the same layer and seed give the same number. Where a layer has
several matrices of one shape, their eigenvalues are pooled; of unequal shapes the fits are NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ww_callbacks.spectral.linalg.spectrum import gram_singular_values
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import quantity
from ww_callbacks.spectral.quantities.shared import (
    largest_eigenvalue,
    of_one_shape,
    on_host,
    once,
    relative_eigenvalues_of_one_shape,
)
from ww_callbacks.spectral.random_matrix.distances import rand_distance as distance_from_shuffle
from ww_callbacks.spectral.random_matrix.nulls.random_nulls import shuffled, shuffling_generator
from ww_callbacks.spectral.random_matrix.traps import Traps, correlation_traps
from ww_callbacks.spectral.random_matrix.weightwatcher_mp import DensityFit
from ww_callbacks.spectral.random_matrix.weightwatcher_mp import density_fit as fit_density

FAMILY = "random matrix"


@once
def _density_fit(sample: LayerWeights) -> DensityFit:
    fit = fit_density(relative_eigenvalues_of_one_shape(sample), sample.shape)
    return fit.rescaled(largest_eigenvalue(sample))


@once
def _second_spectrum(sample: LayerWeights) -> tuple[np.ndarray, float]:
    """Eigenvalues λ/λ_1 of the shuffled matrices, pooled, ascending, and their λ_1."""
    nulls = (shuffled(on_host(w), rng) for w, rng in zip(sample.matrices, _generators(sample), strict=True))
    values = np.sort(np.concatenate([gram_singular_values(w) for w in nulls]))
    return (values / values[-1] if values[-1] > 0 else values) ** 2, float(values[-1] ** 2)


def _shuffled(sample: LayerWeights) -> tuple[np.ndarray, float]:
    """The second spectrum, whose largest eigenvalue the pictures show."""
    relative, largest = _second_spectrum(sample)
    sample.scratch["shuffled_max"] = largest
    return relative, largest


@once
def _shuffled_fit(sample: LayerWeights) -> DensityFit:
    relative, largest = _shuffled(sample)
    return fit_density(relative if of_one_shape(sample) else np.empty(0), sample.shape).rescaled(largest)


@once
def _traps(sample: LayerWeights) -> list[Traps]:
    level = 0.01 / len(sample.matrices)
    drawn = zip(sample.matrices, _generators(sample), strict=True)
    found = [correlation_traps(on_host(w), rng, level=level) for w, rng in drawn]
    sample.scratch["shuffled_max"] = max(trap.largest for trap in found)
    return found


def _generators(sample: LayerWeights) -> list[np.random.Generator]:
    """One for each matrix: whoever shuffles it gets the same shuffle."""
    return [shuffling_generator(sample.seed, i) for i in range(len(sample.matrices))]


def _total(counts: list[int], sample: LayerWeights) -> float:
    """How many traps; NaN where all elements are equal and there is no edge to be beyond."""
    return float(sum(counts)) if np.isfinite(trap_z_uncentred(sample)) else np.nan


# Correlation traps: the shuffled W against its own edge


@quantity(
    "traps_centred",
    title="correlation traps, mean taken off",
    definition="number of λ of the shuffled W − mean beyond the Tracy–Widom edge at 1 % a layer",
    family=FAMILY,
    cost="request",
    worst="high",
)
def traps_centred(sample: LayerWeights) -> float:
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
def traps_uncentred(sample: LayerWeights) -> float:
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
def trap_z_centred(sample: LayerWeights) -> float:
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
def trap_z_uncentred(sample: LayerWeights) -> float:
    """The uncentred shuffle's largest eigenvalue in Tracy–Widom units."""
    return float(np.max([trap.z_uncentred for trap in _traps(sample)]))


# WeightWatcher's own columns: its fit of W, its shuffle, its fit of the shuffle


def _declare_fit(name: str, title: str, definition: str, value: Callable[[DensityFit], float]) -> None:
    """WeightWatcher's column ``name`` of W's fit, and the same of the shuffle's fit under ``rand_`` + ``name``."""

    def of_weights(sample: LayerWeights) -> float:
        return value(_density_fit(sample))

    def of_shuffle(sample: LayerWeights) -> float:
        return value(_shuffled_fit(sample))

    of_weights.__doc__ = f"WeightWatcher's `{name}`: {definition} (see ``density_fit``)."
    of_shuffle.__doc__ = f"WeightWatcher's `rand_{name}`: {definition}, of the shuffled W (see ``density_fit``)."
    quantity(name, title=title, definition=definition, family=FAMILY, cost="request")(of_weights)
    shuffled_definition = f"{definition}, of the shuffled W"
    quantity(
        f"rand_{name}",
        title=f"{title} (shuffled)",
        definition=shuffled_definition,
        family=FAMILY,
        cost="request",
        prefetch=_shuffled_fit,
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
    prefetch=_shuffled_fit,
)
def rand_w_scale(sample: LayerWeights) -> float:
    """WeightWatcher's `rand_W_scale`."""
    return _shuffled_fit(sample).W_scale


@quantity(
    "num_traps",
    title="traps by WeightWatcher's cut",
    definition="number of λ of the shuffled W beyond WeightWatcher's cut: `rand_num_spikes`",
    family=FAMILY,
    cost="request",
    prefetch=_shuffled_fit,
    worst="high",
)
def num_traps(sample: LayerWeights) -> float:
    """WeightWatcher's `num_traps`; `traps_centred` and `traps_uncentred` tell large elements from a mean."""
    return _shuffled_fit(sample).num_spikes


@quantity(
    "max_rand_eval",
    title="largest λ of the shuffle",
    definition="largest λ of the shuffled W",
    family=FAMILY,
    cost="request",
    prefetch=_second_spectrum,
)
def max_rand_eval(sample: LayerWeights) -> float:
    """WeightWatcher's `max_rand_eval`, of one shuffle (it takes five where there are fewer than 100 eigenvalues)."""
    return _shuffled(sample)[1]


@quantity(
    "rand_distance",
    title="distance from the shuffle",
    definition="Jensen–Shannon distance of the sorted λ of W from those of the shuffled W, natural log",
    family=FAMILY,
    cost="request",
    prefetch=_second_spectrum,
)
def rand_distance(sample: LayerWeights) -> float:
    """WeightWatcher's `rand_distance`: see ``rand_distance``; `mp_distance` is nearly the same at no cost."""
    return distance_from_shuffle(sample.relative_eigenvalues, _shuffled(sample)[0])


@quantity(
    "ww_softrank",
    title="soft rank against the shuffle",
    definition="largest λ of the shuffled W over λ_1",
    family=FAMILY,
    cost="request",
    prefetch=_second_spectrum,
    worst="low",
)
def ww_softrank(sample: LayerWeights) -> float:
    """WeightWatcher's `ww_softrank`."""
    return max_rand_eval(sample) / float(sample.eigenvalues[-1]) if sample.eigenvalues[-1] > 0 else np.nan


@quantity(
    "ww_maxdist",
    title="λ_1 beyond the shuffle",
    definition="λ_1 less the largest λ of the shuffled W",
    family=FAMILY,
    cost="request",
    prefetch=_second_spectrum,
)
def ww_maxdist(sample: LayerWeights) -> float:
    """WeightWatcher's `ww_maxdist`, in units of λ."""
    return float(sample.eigenvalues[-1]) - max_rand_eval(sample)
