"""Agreement with WeightWatcher 0.7.7 and powerlaw 2.0, column by column, on real and made-up weights.

The peers are installed next to the project and run in separate processes (see ``_peers.py``). Every shared column of
every layer is compared; a pair that differs by more than 1e-6 must have one of the known reasons, which the rows name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ww_callbacks import spectral

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import _peers, _report
from ww_callbacks.spectral.fits.clauset import WEIGHTWATCHER_CUT, clauset_fit
from ww_callbacks.spectral.fits.weightwatcher import SMALL, weightwatcher_fit
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.registry import all_quantities
from ww_callbacks.spectral.random_matrix.distances import rand_distance

TOLERANCE = 1e-6
SEED = 7

FIT = ("alpha", "xmin", "xmax", "D", "sigma", "num_pl_spikes", "alpha_weighted", "log_alpha_norm", "ERG_gap")
"""Columns that follow from the power-law fit."""
MP_FIT = ("sigma_mp", "bulk_min", "bulk_max", "mp_softrank", "num_spikes")
"""Columns of WeightWatcher's brute-force Marchenko–Pastur fit."""
SHUFFLE = ("rand_", "num_traps", "max_rand_eval", "ww_maxdist", "ww_softrank")
"""Beginnings of the columns that need a shuffle."""

BRUTE_FORCE = "its Marchenko–Pastur fit is a brute-force search over a smoothed histogram"
UNSEEDED = "its shuffle comes from the global generator; compared under the same permutation in a row of its own"
SMALL_SAMPLE = "below 20 eigenvalues it silently uses another formula; compared with that one in a row of its own"
ABSOLUTE_CUT = "its cut λ > 1e-5 is absolute, so its α depends on the scale of W"
TIE = "two candidates for xmin whose D differ by less than 1e-9"
EVIDENCE = "the label is given only where the evidence for α suffices"
ROUNDING = "zero to rounding"
RANK_ONE = "its entropy divides by ln(rank + 1e-10), which at rank one is 1e-10"
SINGLE = "its distances are summed in the weights' own float32"
COUNT_ONE = "its loop over detX tails never looks at the tail of all eigenvalues"


@dataclass(frozen=True)
class Pair:
    """One column of one layer."""

    model: str
    layer: str
    column: str
    ours: float
    theirs: float
    reason: str = ""

    @property
    def difference(self) -> float:
        """|ours − theirs| over the larger magnitude; 0 where both are missing, inf where one is."""
        missing = [value is None or not np.isfinite(value) for value in (self.ours, self.theirs)]
        if all(missing):
            return 0.0
        if any(missing):
            return np.inf
        size = max(abs(self.ours), abs(self.theirs))
        return abs(self.ours - self.theirs) / size if size else 0.0


def made_up() -> dict[str, np.ndarray]:
    """Random, heavy-tailed and spiked matrices of many shapes, small ones and non-square ones among them."""
    rng = np.random.default_rng(0)
    found = {}
    for rows, columns in ((40, 15), (64, 64), (128, 128), (200, 100), (64, 512), (300, 64), (512, 512), (1000, 784)):
        found[f"gaussian_{rows}x{columns}"] = rng.standard_normal((rows, columns))
    for power in (1.5, 2.5, 4.0):
        found[f"pareto_elements_{power}"] = rng.pareto(power, (200, 150)) * rng.choice([-1.0, 1.0], (200, 150))
        sigma = np.sqrt(rng.pareto(power, 250) + 1.0)
        left, right = (np.linalg.qr(rng.standard_normal((side, 250)))[0] for side in (400, 250))
        found[f"pareto_spectrum_{power}"] = (left * sigma) @ right.T
    spikes = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 200))
    found["spiked_300x200"] = spikes + rng.standard_normal((300, 200))
    found["rank_6_300x200"] = spikes
    found["tiny_scale_200x100"] = 1e-3 * rng.standard_normal((200, 100))
    found["uniform_784x1000"] = rng.uniform(-0.04, 0.04, (1000, 784))
    return {name: w.astype(np.float32) for name, w in found.items()}


def weightwatcher_pairs(peer: _peers.Peer, model: str, weights: Mapping[str, np.ndarray], full: bool) -> Iterator[Pair]:
    """Every shared column of every layer."""
    peer.load(model, weights)
    options = {"detX": True, **({"mp_fit": True, "randomize": True} if full else {})}
    theirs = {row["layer"]: row for row in peer.ask(do="analyze", name=model, options=options)["rows"]}
    columns = [q.name for q in all_quantities() if any(q.name in row for row in theirs.values()) and not q.text]
    ours = spectral.analyze(weights, columns, convolution="weightwatcher").layers.set_index("layer")
    for layer, row in theirs.items():
        name = next(known for known in ours.index if known == layer or known.startswith(f"{layer}["))
        sample = LayerWeights(matrices(weights[layer]))
        for column in columns:
            pair = Pair(model, layer, column, float(ours.loc[name, column]), row.get(column, np.nan))
            yield Pair(**{**pair.__dict__, "reason": reason(pair, row, sample, float(ours.loc[name, "D"]))})
        small = weightwatcher_fit(sample.eigenvalues)
        for column, value in (("alpha", small.alpha), ("D", small.D), ("sigma", small.sigma), ("xmin", small.xmin)):
            tie = TIE if abs(small.D - row["D"]) < 1e-9 else ""
            pair = Pair(model, layer, f"{column} by weightwatcher_fit", value, row[column])
            yield Pair(**{**pair.__dict__, "reason": tie if pair.difference > TOLERANCE else ""})


def same_shuffle_pairs(peer: _peers.Peer, model: str, weights: Mapping[str, np.ndarray]) -> Iterator[Pair]:
    """rand_distance and the largest shuffled eigenvalue under the permutation that WeightWatcher drew."""
    for layer, w in weights.items():
        found = peer.ask(do="analyze", name=model, options={"randomize": True}, layer=layer, seed=SEED)["rows"]
        if not found:  # It leaves out layers of fewer than 8 eigenvalues.
            continue
        row = found[0]
        generator = np.random.RandomState(SEED)
        # It shuffles five times for the largest eigenvalue where there are under 100, and again for the distance.
        real = LayerWeights(matrices(w)).eigenvalues
        largest = max(_shuffled(w, generator)[-1] for _ in range(5 if len(real) < 100 else 1))
        distance = rand_distance(real, _shuffled(w, generator))
        # Of equal spectra (matrices of one column) the distance is the root of a rounding error.
        zero = ROUNDING if max(distance, row["rand_distance"]) < 1e-7 else ""
        yield Pair(model, layer, "rand_distance, same permutation", distance, row["rand_distance"], zero)
        yield Pair(model, layer, "max_rand_eval, same permutation", float(largest), row["max_rand_eval"])


def _shuffled(w: np.ndarray, generator: np.random.RandomState) -> np.ndarray:
    """Eigenvalues of the shuffled matrices, drawn as WeightWatcher draws them."""
    shuffled = [m.flatten() for m in matrices(w)]
    for elements in shuffled:
        generator.shuffle(elements)
    return LayerWeights([v.reshape(m.shape) for v, m in zip(shuffled, matrices(w), strict=True)]).eigenvalues


def distance_pairs(peer: _peers.Peer, model: str, weights: Mapping[str, np.ndarray]) -> Iterator[Pair]:
    """Distances from another set of weights, in WeightWatcher's variants."""
    rng = np.random.default_rng(1)
    other = {k: (w + 0.1 * np.std(w) * rng.standard_normal(w.shape)).astype(np.float32) for k, w in weights.items()}
    peer.load(f"{model}_moved", other)
    for method, column in (
        ("raw", "distance_from_init"),
        ("euclidean", "mean_distance_from_init"),
        ("cka", "cka_to_init"),
    ):
        theirs = peer.ask(do="distances", name=model, other=f"{model}_moved", method=method)
        for layer, value in theirs.items():
            # Here it does not scale kernel slices by √½.
            ours = LayerWeights(matrices(weights[layer], scale=1.0), initial=matrices(other[layer], scale=1.0))
            found = next(q for q in all_quantities() if q.name == column).function(ours)
            pair = Pair(model, layer, f"{column} ({method})", float(found), value)
            single = TOLERANCE < pair.difference < 0.01
            yield Pair(**{**pair.__dict__, "reason": SINGLE if single else ""})


def powerlaw_pairs(peer: _peers.Peer, model: str, weights: Mapping[str, np.ndarray]) -> Iterator[Pair]:
    """The exact fit against powerlaw's, without its default bound α ≤ 3."""
    for layer, w in weights.items():
        eigenvalues = LayerWeights(matrices(w)).eigenvalues
        eigenvalues = eigenvalues[eigenvalues > WEIGHTWATCHER_CUT]
        if len(eigenvalues) < SMALL:
            continue
        fit = clauset_fit(eigenvalues)
        theirs = peer.ask(do="fit", values=eigenvalues.tolist())
        tie = abs(fit.D - theirs["D"]) < 1e-9
        for column in ("alpha", "xmin", "D", "sigma"):
            pair = Pair(model, layer, f"{column} against powerlaw", getattr(fit, column), theirs[column])
            yield Pair(**{**pair.__dict__, "reason": TIE if tie and pair.difference > TOLERANCE else ""})


def matrices(w: np.ndarray, scale: float = 0.5**0.5) -> list[np.ndarray]:
    """The matrices that WeightWatcher makes of a weight: kernel slices times √½, or the matrix itself."""
    if w.ndim == 2:
        return [w]
    return [scale * w[:, :, i, j].astype(np.float64) for i in range(w.shape[2]) for j in range(w.shape[3])]


def reason(pair: Pair, row: Mapping[str, Any], sample: LayerWeights, D: float) -> str:
    """The known reason why a pair may differ by more than the tolerance; empty if there is none, or it does not."""
    if pair.difference <= TOLERANCE:
        return ""
    if pair.column.startswith(SHUFFLE):
        return UNSEEDED
    if pair.column in MP_FIT:
        return BRUTE_FORCE
    if pair.column in FIT:
        if len(sample.eigenvalues) < SMALL:
            return SMALL_SAMPLE
        if sample.eigenvalues[0] <= WEIGHTWATCHER_CUT:
            return ABSOLUTE_CUT
        return TIE if abs(D - row["D"]) < 1e-9 else ""
    if pair.column == "sv_min" and abs(pair.ours) < sample.largest_singular_value * 1e-12:
        return ROUNDING
    if pair.column == "weak_rank_loss" and sample.eigenvalues[0] < 1e-18:
        return ROUNDING
    if pair.column == "entropy" and row["matrix_rank"] <= 1:
        return RANK_ONE
    if pair.column.startswith("detX_val") and abs(pair.theirs) < row["lambda_max"] * 1e-12:
        return ROUNDING
    if pair.column.startswith(("detX", "num_ERG")) and row["detX_num"] == row["num_evals"]:
        return COUNT_ONE
    return ""


def main() -> int:
    """Compare, print, and write."""
    parser = _report.arguments(__doc__)
    parser.add_argument(
        "--peers", type=Path, metavar="FOLDER", help="virtual environment of the peers; made if missing"
    )
    parser.add_argument("--quick", action="store_true", help="without WeightWatcher's MP fits and shuffles of MiniLM")
    options = parser.parse_args()
    python = _peers.environment(options.peers)
    models = {"mnist_net": _peers.mnist_net(python), "made_up": made_up(), "minilm": _peers.minilm(python)}
    pairs: list[Pair] = []
    with _peers.Peer(python, threads=1) as peer:
        for name, weights in models.items():
            full = not (options.quick and name == "minilm")
            pairs += weightwatcher_pairs(peer, name, weights, full)
            pairs += same_shuffle_pairs(peer, name, weights) if full else []
            pairs += powerlaw_pairs(peer, name, weights)
            pairs += distance_pairs(peer, name, weights)
            print(f"{name}: {len(pairs)} pairs so far", file=sys.stderr)
    compared = [pair for pair in pairs if not pair.reason]
    excused = [pair for pair in pairs if pair.reason]
    worst = max(compared, key=lambda pair: pair.difference)
    brute = [pair.difference for pair in excused if pair.reason == BRUTE_FORCE and np.isfinite(pair.difference)]
    rows = [{"what": "worst", **worst.__dict__, "difference": worst.difference}]
    rows += [{"what": "excused", **pair.__dict__, "difference": pair.difference} for pair in excused]
    rows += [
        {"what": "unexplained", **pair.__dict__, "difference": pair.difference}
        for pair in compared
        if pair.difference > TOLERANCE
    ]
    by_reason = {text: sum(pair.reason == text for pair in excused) for text in sorted({p.reason for p in excused})}
    print(*(f"{count:5d} excused: {text}" for text, count in by_reason.items()), sep="\n")
    print(f"worst: {worst.model} {worst.layer} {worst.column}: {worst.ours!r} against {worst.theirs!r}")
    figures = {
        "worst_relative_difference": worst.difference,
        "rows_compared": len(compared),
        "rows_excused": len(excused),
        "median_mp_fit_difference": float(np.median(brute)) if brute else 0.0,
    }
    settings = {
        "tolerance": TOLERANCE,
        "models": {name: len(weights) for name, weights in models.items()},
        "peers": "WeightWatcher 0.7.7, powerlaw 2.0.0",
        "quick": options.quick,
        "excused_by_reason": by_reason,
    }
    _report.write(options.json, settings, rows, figures)
    return 0 if worst.difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
