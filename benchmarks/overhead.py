"""What the callback costs, in Lightning: an MLP on MNIST, a transformer on text, and the engine on its own.

    python -m benchmarks.overhead [PART …] --json benchmarks/results/overhead.json

The parts are ``mlp``, ``transformer``, ``average``, ``frozen``, ``processes`` and ``memory``; all where none is named.
Everything that is compared is timed in one run, alternating; of every variant the fastest epoch counts, so that what
else the machine does is left out as far as it can be. The data are looked for in the folder that WW_CALLBACKS_DATA
names: ``mnist/*.gz`` (the four IDX files) and ``text/moby-dick.txt.gz``.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import _peers, _report
from ww_callbacks import SpectralMonitor
from ww_callbacks.adapters.saved_weights.torch_weights import TorchWeights
from ww_callbacks.adapters.saved_weights.weight_average import UPDATES_AN_EPOCH, WeightAverage

ROOT = Path(__file__).parents[1]
PARTS = ("mlp", "transformer", "average", "frozen", "processes", "memory")
BLOCK = 20
"""Steps between two marks of the dense cadence: a snapshot every second block costs about a third of the time."""
Row = dict[str, Any]


def data(name: str) -> bytes:
    """A file of the data folder, unpacked."""
    folder = os.environ.get("WW_CALLBACKS_DATA")
    path = Path(folder or ".") / name
    if folder is None or not path.exists():
        raise SystemExit(f"Expected {name} in the folder that WW_CALLBACKS_DATA names; it is {folder!r}.")
    return gzip.decompress(path.read_bytes())


# --- Lightning ------------------------------------------------------------------------------------------------------


def module(net: nn.Module, rate: float) -> Any:
    """A LightningModule that trains ``net`` by cross-entropy."""
    import pytorch_lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Sequence[torch.Tensor], index: int) -> torch.Tensor:
            inputs, targets = batch
            return nn.functional.cross_entropy(self.net(inputs).flatten(0, -2), targets.flatten())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), rate)

    return Module()


def fit(net: nn.Module, batches: Any, epochs: int, callbacks: Sequence[Any], rate: float = 1e-3) -> list[float]:
    """Train with Lightning; seconds of each epoch, from its first step to the first step of the next."""
    import pytorch_lightning as pl

    class Clock(pl.Callback):
        def __init__(self) -> None:
            self.marks: list[float] = []

        def on_train_epoch_start(self, *_: Any) -> None:
            self.marks.append(time.perf_counter())

        def on_train_end(self, *_: Any) -> None:
            self.marks.append(time.perf_counter())

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=[clock, *callbacks],  # the clock's hooks come first, so an epoch's end belongs to that epoch
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
        )
        trainer.fit(module(net, rate), batches)
    return [b - a for a, b in pairwise(clock.marks)]


def block_clock() -> Any:
    """A callback whose ``marks`` are the times at the start of every :data:`BLOCK` steps."""
    import pytorch_lightning as pl

    class BlockClock(pl.Callback):
        def __init__(self) -> None:
            self.marks: list[float] = []

        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step % BLOCK == 0:
                self.marks.append(time.perf_counter())

    return BlockClock()


def spectral_callback(folder: str, **settings: Any) -> Any:
    """Our callback, printing nothing."""
    from ww_callbacks.lightning import SpectralCallback

    return SpectralCallback(log_dir=folder, verbose=0, **settings)


def compare(
    variants: Mapping[str, Callable[[str], tuple[list[float], Row]]], pairs: int, label: str
) -> tuple[list[Row], dict[str, float]]:
    """Run all variants in turn, ``pairs`` times; the rows, and each one's fastest epoch."""
    rows: list[Row] = []
    for number in range(pairs):
        for name, run in variants.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds, more = run(folder)
            rows.append({"part": label, "pair": number, "variant": name, "epoch_seconds": seconds, **more})
            print(f"{label} {number} {name}: {min(seconds):.3f} s an epoch {more or ''}", file=sys.stderr)
    return rows, {name: min(min(r["epoch_seconds"]) for r in rows if r["variant"] == name) for name in variants}


def mlp(pairs: int, epochs: int) -> tuple[list[Row], dict[str, float]]:
    """784-1000-1000-10 on MNIST, batch 64."""
    images = np.frombuffer(data("mnist/train-images-idx3-ubyte.gz"), np.uint8, offset=16).reshape(-1, 784)
    labels = np.frombuffer(data("mnist/train-labels-idx1-ubyte.gz"), np.uint8, offset=8)
    inputs = torch.from_numpy(((images / 255.0 - 0.1307) / 0.3081).astype(np.float32))
    batches = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(inputs, torch.from_numpy(labels.astype(np.int64))), batch_size=64, shuffle=True
    )

    def net() -> nn.Module:
        torch.manual_seed(0)
        sides = (784, 1000, 1000, 10)
        dense = [nn.Linear(a, b) for a, b in pairwise(sides)]
        return nn.Sequential(dense[0], nn.ReLU(), dense[1], nn.ReLU(), dense[2])

    def without(folder: str) -> tuple[list[float], Row]:
        return fit(net(), batches, epochs, ()), {}

    def inline(folder: str) -> tuple[list[float], Row]:
        callback = spectral_callback(folder, every_n_epochs=1)
        seconds = fit(net(), batches, epochs, [callback])
        return seconds, {"reported": float(callback.summary["overhead"].iloc[-1])}

    def dense(folder: str) -> tuple[list[float], Row]:
        callback, clock = spectral_callback(folder, every_n_steps=2 * BLOCK), block_clock()
        seconds = fit(net(), batches, epochs, [clock, callback])
        # Every second block of steps ends with a snapshot: neighbours differ by its cost, however the machine drifts.
        blocks = np.diff(clock.marks)
        without, within = blocks[0::2], blocks[1::2]
        pairs_of_blocks = min(len(without), len(within))
        cost = float(np.median(within[:pairs_of_blocks] - without[:pairs_of_blocks]))
        told = float(callback.summary.query("step > 0")["seconds"].median())
        return seconds, {"measured": cost, "reported": told, "block": float(np.median(without))}

    rows, best = compare({"without": without, "inline": inline, "dense": dense}, pairs, "mlp")
    of_dense = [r for r in rows if r["variant"] == "dense"]
    return rows, {
        "mlp_overhead": best["inline"] / best["without"] - 1.0,
        "dense_overhead": median(r["measured"] / (2.0 * r["block"]) for r in of_dense),
        "reported_over_measured": median(r["reported"] / r["measured"] for r in of_dense),
    }


class Block(nn.Module):
    """One pre-norm transformer block with causal attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, context, width) → the same."""
        batch, context, width = x.shape
        split = self.qkv(self.norm_1(x)).view(batch, context, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(split[0], split[1], split[2], is_causal=True)
        x = x + self.proj(attended.transpose(1, 2).reshape(batch, context, width))
        return x + self.down(nn.functional.gelu(self.up(self.norm_2(x))))


class Transformer(nn.Module):
    """Characters in, logits of the next character out: 6 layers, width 256, context 128."""

    def __init__(self, characters: int, layers: int = 6, width: int = 256, context: int = 128) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(characters, width), nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, 8) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters, bias=False)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """(batch, context) codes → (batch, context, characters)."""
        x = self.tokens(codes) + self.places.weight[: codes.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def transformer(pairs: int, epochs: int, steps: int, peers: Path | None) -> tuple[list[Row], dict[str, float]]:
    """The transformer on Moby-Dick, ``steps`` steps an epoch, batch 8."""
    import pytorch_lightning as pl

    text = data("text/moby-dick.txt.gz").decode()
    letters = {c: i for i, c in enumerate(sorted(set(text)))}
    codes = torch.tensor([letters[c] for c in text])
    starts = torch.randint(0, len(codes) - 129, (steps, 8), generator=torch.Generator().manual_seed(0))
    windows = [torch.stack([codes[start : start + 129] for start in row]) for row in starts]
    # Without a DataLoader around it, Lightning takes a list for several loaders.
    batches = torch.utils.data.DataLoader([(w[:, :-1], w[:, 1:]) for w in windows], batch_size=None)  # type: ignore[arg-type]

    def net() -> nn.Module:
        torch.manual_seed(0)
        return Transformer(len(letters))

    def ours(**settings: Any) -> Callable[[str], tuple[list[float], Row]]:
        def run(folder: str) -> tuple[list[float], Row]:
            callback = spectral_callback(folder, every_n_epochs=1, **settings)
            seconds = fit(net(), batches, epochs, [callback])
            summary = callback.summary
            left = [text for text in summary["left_out"] if text]
            total = float(summary["overhead"].iloc[-1])
            return seconds, {"reported": total, "snapshots": len(summary), "left_out": left}

        return run

    def without(folder: str) -> tuple[list[float], Row]:
        return fit(net(), batches, epochs, ()), {}

    def watched(folder: str) -> tuple[list[float], Row]:
        import wandb

        quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True)
        run = wandb.init(mode="offline", dir=folder, settings=quiet)
        model = net()

        class Log(pl.Callback):
            def on_train_batch_end(self, *_: Any) -> None:
                run.log({"step": 1})  # what is watched goes out with what is logged

        run.watch(model, log="all", log_freq=100)
        try:
            return fit(model, batches, epochs, [Log()]), {}
        finally:
            run.unwatch(model)
            run.finish()

    rows, best = compare(
        {
            "without": without,
            "inline": ours(),
            "budgeted": ours(max_overhead=0.01),
            "background": ours(background=True),
            "wandb watch": watched,
        },
        pairs,
        "transformer",
    )
    base = best["without"]
    figures = {
        "transformer_overhead": best["inline"] / base - 1.0,
        "budgeted_overhead": best["budgeted"] / base - 1.0,
        "background_overhead": best["background"] / base - 1.0,
        "wandb_watch_overhead": best["wandb watch"] / base - 1.0,
    }
    python = _peers.environment(peers)
    matrices = {n: p.detach().numpy() for n, p in net().named_parameters() if p.ndim == 2}
    with _peers.Peer(python, threads=torch.get_num_threads()) as peer:
        peer.load("net", matrices)
        calls = [peer.ask(do="analyze", name="net", options={})["seconds"] for _ in range(3)]
    rows.append({"part": "transformer", "variant": "WeightWatcher", "call_seconds": calls})
    return rows, {**figures, "weightwatcher_overhead": min(calls) / base}


def average(steps: int) -> tuple[list[Row], dict[str, float]]:
    """The average of the weights: an update after each of ``steps`` steps of both networks, timed one by one.

    An epoch has :data:`UPDATES_AN_EPOCH` updates; its cost is theirs over that of its steps.
    """
    generator = torch.Generator().manual_seed(0)
    sides = (784, 1000, 1000, 10)
    torch.manual_seed(0)
    dense = [nn.Linear(a, b) for a, b in pairwise(sides)]
    perceptron = nn.Sequential(dense[0], nn.ReLU(), dense[1], nn.ReLU(), dense[2])
    images = torch.rand(64, 784, generator=generator), torch.randint(0, 10, (64,), generator=generator)
    codes = torch.randint(0, 90, (8, 129), generator=generator)
    rows: list[Row] = []
    for name, net, inputs, targets, per_epoch in (
        ("mlp", perceptron, *images, 938),
        ("transformer", Transformer(90), codes[:, :-1], codes[:, 1:], 300),
    ):
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        kept = WeightAverage(TorchWeights(net))
        times = []
        for _ in range(steps):
            began = time.perf_counter()
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs).flatten(0, -2), targets.flatten()).backward()
            optimizer.step()
            stepped = time.perf_counter()
            kept.step()
            times.append((stepped - began, time.perf_counter() - stepped))
        step, update = (median(t[i] for t in times[3:]) for i in range(2))
        share = min(UPDATES_AN_EPOCH, per_epoch) * update / (per_epoch * step)
        megabytes = sum(p.numel() * 4 for p in net.parameters()) / 1e6
        told = {"step_ms": 1e3 * step, "update_ms": 1e3 * update, "steps_an_epoch": per_epoch, "share": share}
        rows.append({"part": "average", "variant": name, "megabytes": megabytes, **told})
        print(rows[-1], file=sys.stderr)
    return rows, {f"average_overhead_{row['variant']}": row["share"] for row in rows}


# --- The engine on its own -------------------------------------------------------------------------------------------


def stack() -> nn.ModuleList:
    """36 layers: 24 of 512×512 and 12 of 512×2048."""
    torch.manual_seed(0)
    shapes = [(512, 512)] * 24 + [(512, 2048), (2048, 512)] * 6
    return nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in shapes)


def step(layers: Sequence[nn.Module]) -> None:
    """A small change of the weights, as an optimiser's step would be."""
    with torch.no_grad():
        for layer in layers:
            layer.weight.add_(1e-4 * torch.randn_like(layer.weight))  # type: ignore[operator, arg-type]


def frozen(epochs: int) -> tuple[list[Row], dict[str, float]]:
    """A run where all layers train against one where only one 512×512 layer does; W_0 included in both."""
    rows = []
    for variant, moving in (("full", 36), ("frozen", 1)):
        net = stack()
        with tempfile.TemporaryDirectory() as folder:
            spent = -time.perf_counter()
            monitor = SpectralMonitor(net, log_dir=folder, verbose=0)
            spent += time.perf_counter()
            first = spent
            for epoch in range(epochs):
                step(list(net)[:moving])
                spent -= time.perf_counter()
                monitor.observe(step=epoch + 1, epoch=epoch + 1)
                spent += time.perf_counter()
            monitor.close()
        rows.append({"part": "frozen", "variant": variant, "seconds": spent, "first": first, "epochs": epochs})
        print(rows[-1], file=sys.stderr)
    ratio = rows[1]["seconds"] / rows[0]["seconds"]
    after = (rows[1]["seconds"] - rows[1]["first"]) / (rows[0]["seconds"] - rows[0]["first"])
    return rows, {"frozen_over_full": ratio, "frozen_over_full_after_w0": after}


def rank(store: str, number: int, size: int, rounds: int) -> None:
    """One of ``size`` processes that measure the stack together; the first prints the seconds of each snapshot."""
    import torch.distributed as dist

    from ww_callbacks.run import Run
    from ww_callbacks.scheduling.cadence import Plan
    from ww_callbacks.scheduling.distributed import processes
    from ww_callbacks.settings import Settings
    from ww_callbacks.spectral.layers import inspect

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=size)
    net = stack()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Settings(verbose=0), inspect(net), "plain", Path(folder), group=processes())
        run.begin(Plan())
        seconds = []
        for i in range(rounds):
            step(list(net))
            dist.barrier()
            began = time.perf_counter()
            run.snapshot("full", i + 1, i + 1.0)
            dist.barrier()
            seconds.append(time.perf_counter() - began)
        run.finish()
        dist.barrier()
    if number == 0:
        print(json.dumps(seconds), flush=True)
    dist.destroy_process_group()


def processes_part(rounds: int) -> tuple[list[Row], dict[str, float]]:
    """Two gloo processes of one worker each against one, alternating."""
    rows: list[Row] = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    for _ in range(2):
        for size in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "benchmarks.overhead", "--rounds", str(rounds), "--rank"]
                started = [
                    subprocess.Popen(
                        [*command, str(Path(folder, "store")), str(number), str(size)],
                        cwd=ROOT,
                        env=environment,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                    for number in range(size)
                ]
                told = [process.communicate(timeout=600)[0] for process in started]
            rows.append({"part": "processes", "variant": size, "seconds": json.loads(told[0].splitlines()[-1])})
            print(rows[-1], file=sys.stderr)
    best = {size: min(min(r["seconds"]) for r in rows if r["variant"] == size) for size in (1, 2)}
    return rows, {"two_process_over_one": best[2] / best[1]}


def resident() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(snapshots: int) -> tuple[list[Row], dict[str, float]]:
    """Many snapshots of one run: memory after the first hundred, and time by thousand."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 10))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        monitor = SpectralMonitor(net, log_dir=folder, verbose=0)
        base, every = 0.0, max(snapshots // 10, 1)
        began = time.process_time()
        for i in range(1, snapshots + 1):
            step(list(net))
            monitor.observe(step=i, epoch=float(i), train_loss=1.0 / i)
            if i == 100:
                base = resident()
            if i % every == 0:
                now = time.process_time()
                grown = resident() - base
                rows.append({"part": "memory", "snapshots": i, "grown_mb": grown, "ms": 1e3 * (now - began) / every})
                began = now
                print(rows[-1], file=sys.stderr)
        monitor.close()
    return rows, {"rss_growth_mb": rows[-1]["grown_mb"], "last_over_first_time": rows[-1]["ms"] / rows[0]["ms"]}


def main() -> None:
    parser = _report.arguments(__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--pairs", type=int, default=2, help="rounds of all variants")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of each training")
    parser.add_argument("--steps", type=int, default=300, help="the transformer's steps an epoch")
    parser.add_argument("--snapshots", type=int, default=10_000, help="of the part `memory`")
    parser.add_argument("--frozen-epochs", type=int, default=50, help="of the part `frozen`")
    parser.add_argument("--rounds", type=int, default=3, help="snapshots of each process in the part `processes`")
    parser.add_argument("--average-steps", type=int, default=40, help="steps of the part `average`")
    parser.add_argument("--threads", type=int, default=0, help="torch's threads; 0 leaves them as they are")
    parser.add_argument("--peers", type=Path, help="virtual environment with WeightWatcher; made if it is not there")
    parser.add_argument("--rank", nargs=3, metavar=("STORE", "RANK", "SIZE"), help="one of the part's own processes")
    args = parser.parse_args()
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.rank:
        rank(args.rank[0], int(args.rank[1]), int(args.rank[2]), args.rounds)
        return
    if unknown := sorted(set(args.parts) - set(PARTS)):
        raise SystemExit(f"Unknown part {', '.join(unknown)}: expected some of {', '.join(PARTS)}.")
    runs: dict[str, Callable[[], tuple[list[Row], dict[str, float]]]] = {
        "mlp": lambda: mlp(args.pairs, args.epochs),
        "transformer": lambda: transformer(args.pairs, args.epochs, args.steps, args.peers),
        "average": lambda: average(args.average_steps),
        "frozen": lambda: frozen(args.frozen_epochs),
        "processes": lambda: processes_part(args.rounds),
        "memory": lambda: memory(args.snapshots),
    }
    rows: list[Row] = []
    figures: dict[str, float] = {}
    # Memory first: what the other parts allocate would hide what this one does.
    for part in sorted(args.parts or PARTS, key=lambda name: name != "memory"):
        more, found = runs[part]()
        rows += more
        figures |= found
    settings = {k: v for k, v in vars(args).items() if k not in ("json", "rank", "peers")}
    _report.write(args.json, {**settings, "torch_threads": torch.get_num_threads()}, rows, figures)


if __name__ == "__main__":
    main()
