"""Bounds by Mirsky's inequality: no weights at the distance exceed them, and the worst come near."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.spectral.estimates.spectra import spectra
from ww_callbacks.spectral.estimates import perturbation
from ww_callbacks.spectral.fits.hill import hill_alpha
from ww_callbacks.spectral.quantities import ranks

SPECTRA = spectra(60)
TAIL = 15


def hill(sigma: np.ndarray) -> float:
    """Hill's α of the top."""
    return hill_alpha(np.sort(sigma)[::-1][: TAIL + 1] ** 2, tail=TAIL)


QUANTITIES: dict[str, tuple[Callable[[np.ndarray], float], Callable[[np.ndarray, float], float]]] = {
    "log_spectral_norm": (
        lambda s: 2.0 * np.log10(np.max(s)),
        lambda s, d: perturbation.log_spectral_norm_change(float(s[0]), d),
    ),
    "stable_rank": (
        ranks.stable_rank,
        lambda s, d: perturbation.stable_rank_change(float(np.linalg.norm(s)), float(s[0]), d),
    ),
    "participation_ratio": (ranks.participation_ratio, perturbation.participation_ratio_change),
    "effective_rank": (ranks.effective_rank, perturbation.effective_rank_change),
    "hill": (hill, lambda s, d: perturbation.hill_alpha_change(s, TAIL, d)),
}


def changes(function: Callable[[np.ndarray], float], sigma: np.ndarray, distance: float) -> np.ndarray:
    """|Δ| at spectra on the sphere: random ones, along the gradient, one σ alone, all alike, and scaled."""
    rng = np.random.default_rng(1)
    side = len(sigma)
    step = 1e-6 * sigma[0]
    gradient = np.array(
        [function(sigma + step * e) - function(np.maximum(sigma - step * e, 0.0)) for e in np.eye(side)]
    )
    ways = [*rng.standard_normal((200, side)), *np.eye(side), np.ones(side), gradient, sigma]
    unit = [w / np.linalg.norm(w) for w in ways if np.linalg.norm(w) > 0.0]
    moved = [np.maximum(sigma + sign * distance * w, 0.0) for w in unit for sign in (1.0, -1.0)]
    return np.abs(np.array([function(s) for s in moved]) - function(sigma))


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("quantity", QUANTITIES)
@pytest.mark.parametrize("relative", (1e-4, 1e-2))
def test_no_spectrum_in_the_ball_changes_by_more(name: str, quantity: str, relative: float) -> None:
    """Distances of a ten-thousandth and a hundredth of ‖W‖_F."""
    sigma = SPECTRA[name]
    function, bound = QUANTITIES[quantity]
    distance = relative * float(np.linalg.norm(sigma))
    assert np.nanmax(changes(function, sigma, distance)) <= bound(sigma, distance) * (1.0 + 1e-9) + 1e-12


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_bounds_are_near_what_can_happen(quantity: str) -> None:
    """At small distances the worst direction reaches half of the bound (a norm's bound is looser)."""
    sigma = SPECTRA["random, 4 to 1"]
    function, bound = QUANTITIES[quantity]
    distance = 1e-4 * float(np.linalg.norm(sigma))
    assert np.nanmax(changes(function, sigma, distance)) > (0.1 if quantity == "participation_ratio" else 0.5) * bound(
        sigma, distance
    )


def test_weights_themselves_obey_mirsky() -> None:
    """The bounds in terms of weights: W = V + E with ‖E‖_F = d."""
    rng = np.random.default_rng(0)
    v = rng.standard_normal((40, 30))
    sigma = np.linalg.svd(v, compute_uv=False)
    for _ in range(20):
        e = rng.standard_normal((40, 30)) @ np.diag(rng.random(30) ** 4)
        e *= 0.05 / np.linalg.norm(e)
        moved = np.linalg.svd(v + e, compute_uv=False)
        for function, bound in QUANTITIES.values():
            assert abs(function(moved) - function(sigma)) <= bound(sigma, 0.05)


def test_far_away_nothing_is_known() -> None:
    """Beyond σ_1 any spectrum may be there."""
    sigma = np.array([1.0, 0.5, 0.1])
    for _, bound in QUANTITIES.values():
        assert bound(sigma, 5.0) == np.inf
    assert perturbation.effective_rank_change(np.zeros(3), 0.1) == np.inf
