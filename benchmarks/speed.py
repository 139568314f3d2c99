"""Speed of the spectra and fits: against WeightWatcher 0.7.7, against the bare linear algebra, and by size.

Everything is timed in one run, side by side: in every round each contestant runs once, and the fastest round counts.
WeightWatcher runs in its own process with one thread and in another with all, and is given the better of the two.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from ww_callbacks import spectral

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import _peers, _report
from ww_callbacks.spectral.fits.clauset import clauset_fit
from ww_callbacks.spectral.linalg.spectrum import gram_singular_values
from ww_callbacks.spectral.linalg.workers import WorkerPool, available_cores
from ww_callbacks.spectral.measuring.registry import all_quantities

NEEDS_MORE = ("rand_", "max_rand_eval", "num_traps", "ww_", "sigma_mp", "bulk_", "mp_softrank", "num_spikes", "W_scale")
"""Beginnings of the columns that WeightWatcher fills only with randomisation and MP fit."""
FIT_SIZES = (20, 32, 40, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
LONG = 20.0
"""Seconds of WeightWatcher's from which a contest has one round only."""
EVERYTHING = {"mp_fit": True, "randomize": True, "detX": True}


def mlp() -> dict[str, np.ndarray]:
    """784-1000-1000-10, as PyTorch initialises it."""
    rng = np.random.default_rng(0)
    sides = (784, 1000, 1000, 10)
    return {
        f"layers.{i}.weight": rng.uniform(-(n**-0.5), n**-0.5, (m, n)).astype(np.float32)
        for i, (n, m) in enumerate(pairwise(sides))
    }


def stack() -> dict[str, np.ndarray]:
    """36 transformer-like layers: 24 of 512×512, 12 of 512×2048."""
    rng = np.random.default_rng(1)
    shapes = [(512, 512)] * 24 + [(512, 2048), (2048, 512)] * 6
    return {f"blocks.{i}.weight": (0.02 * rng.standard_normal(s)).astype(np.float32) for i, s in enumerate(shapes)}


def once(function: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def floor(weights: Mapping[str, np.ndarray], workers: int) -> Callable[[], object]:
    """The bare Gram products and eigenvalue calls on float64 matrices that are ready, largest first."""
    tall = [np.ascontiguousarray(w if w.shape[0] >= w.shape[1] else w.T, dtype=np.float64) for w in weights.values()]
    pool = WorkerPool(workers)

    def bare(w: np.ndarray) -> np.ndarray:
        return np.linalg.eigvalsh(w.T @ w)

    return lambda: pool.map(bare, tall, cost=lambda w: w.shape[0] * w.shape[1] ** 2)


def columns(row: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """Our quantities for WeightWatcher's columns: of its plain table, and of everything."""
    shared = [q.name for q in all_quantities() if q.name in row]
    detX = ("detX", "num_ERG", "ERG_gap")
    return [name for name in shared if not name.startswith((*NEEDS_MORE, *detX))], shared


def contest(
    name: str, weights: Mapping[str, np.ndarray], peers: list[_peers.Peer], workers: int, rounds: int, full: bool
) -> list[dict[str, object]]:
    """Rows of one workload: the plain table, and if ``full`` everything."""
    for peer in peers:
        peer.load(name, weights)
    sample = next(iter(weights.items()))
    peers[0].load(f"{name}_one", dict([sample]))
    plain, everything = columns(peers[0].ask(do="analyze", name=f"{name}_one", options=EVERYTHING)["rows"][0])
    bare = floor(weights, workers)
    rows = []
    for kind, names, options, repeats in (
        ("plain", plain, {}, rounds),
        ("randomized", everything, EVERYTHING, rounds if full else 0),
    ):
        times: dict[str, list[float]] = {"ours": [], "floor": [], **{f"theirs_{p.threads}": [] for p in peers}}
        for turn in range(repeats):
            if turn and min(max(t) for key, t in times.items() if key.startswith("theirs")) > LONG:
                break
            for peer in peers:
                mine = times[f"theirs_{peer.threads}"]
                others = [min(t) for key, t in times.items() if key.startswith("theirs") and t and t is not mine]
                # A thread setting that is far behind after one round does not get another.
                if mine and others and min(mine) > 1.5 * min(others):
                    continue
                mine.append(peer.ask(do="analyze", name=name, options=options)["seconds"])
            # The slow peers set the number of rounds; the quick contestants take more turns in each.
            for _ in range(3 if turn else 4):
                times["ours"].append(
                    once(
                        lambda names=names: spectral.analyze(
                            weights, names, convolution="weightwatcher", workers=workers
                        )
                    )
                )
                times["floor"].append(once(bare))
        if repeats:
            best = {key: min(values) for key, values in times.items()}
            theirs = min(best[f"theirs_{p.threads}"] for p in peers)
            row = {
                "workload": name,
                "kind": kind,
                "layers": len(weights),
                "columns": len(names),
                "workers": workers,
                **{f"seconds_{key}": value for key, value in best.items()},
                "speedup": theirs / best["ours"],
                "over_floor": best["ours"] / best["floor"],
            }
            rows.append(row)
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, file=sys.stderr)
    return rows


def fit_shares(sizes: list[int]) -> list[dict[str, object]]:
    """The exact power-law scan's time as a share of the spectrum's, on square Gaussian and heavy-tailed matrices."""
    rows = []
    for size in sizes:
        for kind in ("gaussian", "heavy") if size <= 4096 else ("gaussian",):
            rng = np.random.default_rng(size)
            w = rng.standard_normal((size, size))
            if kind == "heavy":
                w *= (rng.pareto(2.0, size) + 1.0)[:, None]
            rounds = 1 if size >= 4096 else 5 if size >= 512 else 200
            with threadpool_limits(1, user_api="blas"):
                values = gram_singular_values(w) ** 2
                spectrum = fit = np.inf
                for _ in range(rounds):  # in turns, because the speed of the machine varies
                    spectrum = min(spectrum, once(lambda w=w: gram_singular_values(w)))
                    fit = min(fit, *(once(lambda values=values: clauset_fit(values)) for _ in range(3)))
            rows.append(
                {
                    "size": size,
                    "matrix": kind,
                    "seconds_spectrum": spectrum,
                    "seconds_fit": fit,
                    "share": fit / spectrum,
                }
            )
            print(rows[-1], file=sys.stderr)
    return rows


MEMORY = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, {root!r})
from ww_callbacks.spectral.measuring.registry import resolve
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.measuring.values import measure_quantities
rows, columns = {shape!r}
names = resolve("default")
measure_quantities(LayerWeights([np.random.default_rng(0).standard_normal((300, 200))]), names)
w = np.random.default_rng(0).standard_normal((rows, columns), dtype=np.float32)
def status(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
before = status("VmRSS")
measure_quantities(LayerWeights([w]), names)
print((status("VmHWM") - before) / (8 * w.size))
"""


def peak_copies(shapes: list[tuple[int, int]]) -> list[dict[str, object]]:
    """Growth of the resident peak while one layer is measured, in float64 copies of its matrix; a process a shape."""
    rows = []
    for shape in shapes:
        code = MEMORY.format(root=str(Path(__file__).parents[1]), shape=shape)
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        rows.append({"shape": "x".join(map(str, shape)), "peak_copies": float(done.stdout)})
        print(rows[-1], file=sys.stderr)
    return rows


def by_size_and_count(workers: int) -> list[dict[str, object]]:
    """Seconds against the size of one square layer, and against the number of 256×256 layers."""
    rng = np.random.default_rng(3)
    rows: list[dict[str, object]] = []
    for size in (128, 256, 512, 1024, 2048):
        model = {"w": rng.standard_normal((size, size)).astype(np.float32)}
        seconds = min(once(lambda model=model: spectral.analyze(model, workers=workers)) for _ in range(3))
        rows.append({"scaling": "size", "size": size, "seconds": seconds})
    for count in (8, 16, 32, 64, 128):
        model = {f"w{i}": rng.standard_normal((256, 256)).astype(np.float32) for i in range(count)}
        seconds = min(once(lambda model=model: spectral.analyze(model, workers=workers)) for _ in range(3))
        rows.append({"scaling": "count", "count": count, "seconds": seconds})
    return rows


def slope(rows: list[dict[str, object]], over: str, least: float = 0.0) -> float:
    """Slope of ln seconds over the logarithm of ``over``, by least squares, from ``least`` on."""
    points = [(float(r[over]), float(r["seconds"])) for r in rows if over in r and float(r[over]) >= least]  # type: ignore[arg-type]
    return float(np.polyfit(*np.log(np.array(points)).T, 1)[0])


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Time against layer size and layer count, on logarithmic axes with the slopes."""
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    for column, (over, label, least) in enumerate(
        (("size", "side of a square layer", 512), ("count", "layers of 256×256", 0)), 1
    ):
        x = [r[over] for r in rows if over in r]
        y = [r["seconds"] for r in rows if over in r]
        name = f"slope {slope(rows, over, least):.2f}" + (f" from {least}" if least else "")
        figure.add_scatter(x=x, y=y, mode="lines+markers", name=name, row=1, col=column)
        figure.update_xaxes(type="log", title=label, tickvals=x, row=1, col=column)
        figure.update_yaxes(type="log", title="seconds", row=1, col=column)
    figure.update_layout(width=1000, height=420, template="simple_white", legend={"orientation": "h", "y": 1.12})
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".html":
        figure.write_html(path)
    else:
        figure.write_image(path)


def main() -> None:
    """Run the contests, print, write."""
    parser = _report.arguments(__doc__)
    parser.add_argument(
        "--peers", type=Path, metavar="FOLDER", help="virtual environment of the peers; made if missing"
    )
    parser.add_argument("--rounds", type=int, default=10, help="rounds of each contest that is not long")
    parser.add_argument(
        "--largest", type=int, default=8192, help="largest number of eigenvalues for the share of the fit"
    )
    parser.add_argument(
        "--plot",
        type=Path,
        default=_report.RESULTS / "speed.svg",
        help="time against size and count (svg, png or html)",
    )
    parser.add_argument("--threads", type=int, nargs="+", help="WeightWatcher's threads to try; by default 1 and all")
    parser.add_argument("--plain", action="store_true", help="without the contests with randomisation and MP fit")
    options = parser.parse_args()
    python = _peers.environment(options.peers)
    workers = available_cores()
    rows: list[dict[str, object]] = []
    threads = options.threads or sorted({1, workers})
    with ExitStack() as stack_of_peers:
        peers = [stack_of_peers.enter_context(_peers.Peer(python, count)) for count in threads]
        for name, weights in (("mlp", mlp()), ("stack", stack()), ("minilm", _peers.minilm(python))):
            rows += contest(name, weights, peers, workers, options.rounds, not options.plain)
    contests = list(rows)
    shares = fit_shares([s for s in FIT_SIZES if s <= options.largest])
    memory = peak_copies([(2048, 2048), (4096, 4096), (8192, 1024), (1024, 8192), (30522, 384)])
    scaling = by_size_and_count(workers)
    plot(scaling, options.plot)
    figures = {
        f"speedup_{row['kind']}_{row['workload']}": float(row["speedup"])  # type: ignore[arg-type]
        for row in contests
    }
    figures |= {f"over_floor_{r['workload']}": float(r["over_floor"]) for r in contests if r["kind"] == "plain"}  # type: ignore[arg-type]
    figures["fit_share_max"] = max(float(r["share"]) for r in shares if int(r["size"]) >= 1024)  # type: ignore[arg-type,call-overload]
    figures["fit_share_max_below_1024"] = max(float(r["share"]) for r in shares if 40 <= int(r["size"]) < 1024)  # type: ignore[arg-type,call-overload]
    figures["fit_share_max_below_40"] = max(float(r["share"]) for r in shares if int(r["size"]) < 40)  # type: ignore[arg-type,call-overload]
    figures["peak_copies"] = max(float(r["peak_copies"]) for r in memory)  # type: ignore[arg-type]
    figures["slope_size"] = slope(scaling, "size", 512)
    figures["slope_count"] = slope(scaling, "count")
    settings = {
        "workers": workers,
        "threads_of_weightwatcher": threads,
        "rounds": options.rounds,
        "plain_only": options.plain,
        "peers": "WeightWatcher 0.7.7",
        "largest": options.largest,
    }
    _report.write(options.json, settings, [*contests, *shares, *memory, *scaling], figures)


if __name__ == "__main__":
    main()
