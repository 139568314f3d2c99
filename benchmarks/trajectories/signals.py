"""Every signal that was tried, and how far apart healthy and overtrained runs lie in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.trajectories.series import effective_rank, norms, spectrum
from benchmarks.trajectories.train import names_of
from benchmarks.trajectories.truth import Arrays


def layer_series(arrays: Arrays, layer: str) -> dict[str, np.ndarray]:
    """The series x(t) of one layer, natural logs where they are norms, ranks or ratios."""
    w, d, u = (spectrum(arrays, layer, which) for which in "wdu")
    weight, moved, step = (norms(arrays, layer, which) for which in "wdu")
    path = np.cumsum(step)
    before = {name: np.concatenate([[np.nan], x[:-1]]) for name, x in (("d", moved), ("u", step), ("w", weight))}
    top = max(1, round(0.1 * w.shape[1]))
    tail = np.sort(w**2, axis=1)[:, ::-1][:, : w.shape[1] // 2]

    def scalar(name: str) -> np.ndarray:
        return arrays[f"{layer}|{name}"]

    return {
        "ln ‖W‖": np.log(weight),
        "ln ‖W−W₀‖": np.log(moved),
        "ln σ₁(W)": np.log(w[:, 0]),
        "ln median σ(W)": np.log(np.median(w, axis=1)),
        "bulk against top (ln median σ/σ₁)": np.log(np.median(w, axis=1) / w[:, 0]),
        "effective rank of W": np.log(effective_rank(w)),
        "stable rank of W": np.log(weight**2 / w[:, 0] ** 2),
        "α of W (median Hill)": 1 + tail.shape[1] / np.log(tail / tail[:, -1:]).sum(axis=1),
        "shuffled σ₁ over mean σ (trap)": np.log(scalar("shuffled_max") / w.mean(axis=1)),
        "cosine of W and W₀": scalar("ww0") / (weight * weight[0]),
        "relative ‖W−W₀‖": np.log(moved / weight[0]),
        "share of ‖W−W₀‖² in its top 10": (d[:, :10] ** 2).sum(axis=1) / moved**2,
        "effective rank of W−W₀": np.log(effective_rank(d)),
        "stable rank of W−W₀": np.log(moved**2 / d[:, 0] ** 2),
        "relative ‖ΔW‖": np.log(step / weight),
        "‖ΔW‖ over learning rate": np.log(step / arrays["rate"]),
        "effective rank of ΔW": np.log(effective_rank(u)),
        "stable rank of ΔW": np.log(step**2 / u[:, 0] ** 2),
        "share of ‖ΔW‖² in W's leading tenth, both sides": np.log(scalar("u_in_top_both")),
        "the same, left side": np.log(scalar("u_in_top_left")),
        "the same, right side": np.log(scalar("u_in_top_right")),
        "cosine of ΔW and the last ΔW": scalar("uu") / (step * before["u"]),
        "cosine of ΔW and W−W₀": scalar("ud") / (step * before["d"]),
        "cosine of ΔW and W": scalar("uw") / (step * before["w"]),
        "path length": np.log(path),
        "path length over displacement": np.log(path / moved),
        "kurtosis of W": np.log(scalar("kurtosis_w")),
        "kurtosis of W−W₀": np.log(scalar("kurtosis_d")),
        "kurtosis of ΔW": np.log(scalar("kurtosis_u")),
        "top tenth's share of ‖W‖²": (w[:, :top] ** 2).sum(axis=1) / weight**2,
    }


def run_series(arrays: Arrays) -> dict[str, np.ndarray]:
    """The series of a run: of its output layer, of its hidden layers' mean, and of the training loop."""
    layers = list(names_of(arrays))
    with np.errstate(divide="ignore", invalid="ignore"):
        each = [layer_series(arrays, layer) for layer in layers]
        series = {f"output: {name}": x for name, x in each[-1].items()}
        for name in each[0]:
            series[f"hidden: {name}"] = np.mean([e[name] for e in each[:-1]], axis=0)
        series["training loss"] = arrays["loss"]
        series["ln training loss"] = np.log(arrays["loss"])
        series["training error"] = 1 - arrays["accuracy"]
        half = arrays["loss_parts"][:, 2:].mean(axis=1) - arrays["loss_parts"][:, :2].mean(axis=1)
        series["loss of an epoch's second half less its first"] = half
    return series


def time_of(arrays: Arrays) -> np.ndarray:
    """Cumulative learning rate in units of the first epoch's."""
    rate = arrays["rate"].copy()
    rate[0] = 0.0
    return np.cumsum(rate) / max(rate[1], 1e-300)


def slope(x: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Slope in log time over the last doubling."""
    out = np.full(len(x), np.nan)
    for i in range(2, len(x)):
        h = max(int(np.searchsorted(time, time[i] / 2)), 1)
        if h < i:
            out[i] = (x[i] - x[h]) / np.log(time[i] / time[h])
    return out


def rise(x: np.ndarray, start: int = 3) -> np.ndarray:
    """X less its own minimum since ``start``; zero before."""
    out, low = np.zeros(len(x)), np.inf
    for i in range(start, len(x)):
        if np.isfinite(x[i]):
            low = min(low, x[i])
            out[i] = x[i] - low
    return out


FORMS: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "level": lambda x, time, error: x,
    "slope": lambda x, time, error: slope(x, time),
    "rise of slope": lambda x, time, error: rise(slope(x, time)),
    "slope × error": lambda x, time, error: slope(x, time) * error,
    "rise of slope × error": lambda x, time, error: rise(slope(x, time)) * error / (error + 0.05),
}
"""What is made of a series: as it is, its slope in log time, the slope's rise above its own minimum, with training
error."""


def persistent_maximum(x: np.ndarray, start: int = 4, length: int = 3) -> float:
    """The highest value that x kept on ``length`` snapshots in a row."""
    y = np.where(np.isfinite(x), x, -np.inf)
    return max((y[i - length + 1 : i + 1].min() for i in range(max(start, length - 1), len(y))), default=-np.inf)


def area_under_curve(healthy: list[float], overtrained: list[float]) -> float:
    """Share of pairs in which the overtrained run has the higher value; ties count half."""
    a, b = np.array(healthy), np.array(overtrained)
    return float(np.mean((b[:, None] > a[None]) + 0.5 * (b[:, None] == a[None])))


def statistics(arrays: Arrays) -> dict[tuple[str, str, int], float]:
    """(signal, form, sign) → the run's persistent maximum."""
    time, error = time_of(arrays), 1 - arrays["accuracy"]
    out = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, x in run_series(arrays).items():
            for form, make in FORMS.items():
                y = make(x, time, error)
                for sign in (1, -1):
                    out[name, form, sign] = persistent_maximum(sign * y)
    return out
