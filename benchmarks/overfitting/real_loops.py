"""The judgement in the real callbacks against the benchmark's replay, on the same small trainings.

    KERAS_BACKEND=torch python -m benchmarks.overfitting.real_loops --json benchmarks/results/real_loops.json

An MLP learns scikit-learn's digits, clean, with 40 % of its labels wrong, and from 150 images, by SGD with momentum. A
reference loop trains it and measures what the benchmark's trajectories hold; the plain monitor, Lightning, the HF
Trainer and Keras train it again from the same weights on the same batches. Every snapshot that a callback hands to its
detectors is kept, and both presets judge the kept series and the reference's. What is compared: the score of every
epoch, and the epoch of the alarm.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

os.environ.setdefault("KERAS_BACKEND", "torch")
if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import _report
from benchmarks.overfitting.training import PARTS, LayerTrace
from examples.data import digits
from ww_callbacks import SpectralMonitor
from ww_callbacks.adapters.saved_weights.torch_weights import TorchWeights
from ww_callbacks.adapters.saved_weights.weight_average import WeightAverage
from ww_callbacks.spectral.detectors import PRESETS, Observation, Overtraining
from ww_callbacks.spectral.detectors.signals import coefficients as fitted

BATCH, RATE, MOMENTUM, WIDTH = 32, 1e-2, 0.9, 200
SCENARIOS = ("clean", "noise40", "tiny")
Data = tuple[torch.Tensor, torch.Tensor]


class Recorder:
    """A detector that finds nothing and keeps what it is shown; the callbacks copy it, so the list is the class's."""

    kind, can_stop, spoils_weights, state = "recorder", False, False, "watch"
    needs = Overtraining.needs
    seen: ClassVar[list[Observation]] = []

    def update(self, observation: Observation) -> list[Any]:
        """Keep a snapshot."""
        Recorder.seen.append(observation)
        return []

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Any) -> None:
        """Nothing."""


class Order(torch.utils.data.Sampler[int]):
    """A new permutation of ``count`` examples every epoch, the same ones for the same seed."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.generator = count, torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.count, generator=self.generator).tolist())

    def __len__(self) -> int:
        return self.count


def data(scenario: str, seed: int) -> tuple[Data, Data]:
    """Training and test digits of a scenario."""
    train, test = digits(noise=0.4 if scenario == "noise40" else 0.0, seed=seed)
    some = slice(0, 150 if scenario == "tiny" else 1280)  # whole batches
    x, y = (torch.from_numpy(a[some]) for a in train)
    return (x.flatten(1), y), (torch.from_numpy(test[0]).flatten(1), torch.from_numpy(test[1]))


def network(seed: int) -> nn.Sequential:
    """64-200-200-10."""
    torch.manual_seed(seed)
    first, second, last = nn.Linear(64, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 10)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)


def loader(train: Data, seed: int) -> Any:
    """The batches in the reference's order."""
    order = Order(len(train[0]), seed)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*train), batch_size=BATCH, sampler=order)


def accuracy(net: nn.Module, test: Data) -> float:
    """Share of the test digits that are right."""
    with torch.no_grad():
        return float((net(test[0]).argmax(1) == test[1]).float().mean())


def reference(train: Data, test: Data, seed: int, epochs: int) -> tuple[list[Observation], list[list[float]]]:
    """The benchmark's own measurements of a training; and the test accuracy of each epoch, raw and averaged."""
    net, batches = network(seed), loader(train, seed)
    optimizer = torch.optim.SGD(net.parameters(), RATE, MOMENTUM)
    layers = {n: LayerTrace(p) for n, p in net.named_parameters() if p.dim() == 2}
    average = WeightAverage(TorchWeights(net), len(batches))
    first, found, truth = math.nan, [], []
    for epoch in range(epochs + 1):
        lost = []
        for x, y in batches if epoch else ():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            average.step()
            lost.append(float(loss.detach()))
        if epoch == 1:
            first = lost[0]
        for name, parameter in net.named_parameters():
            if name in layers:
                layers[name].add(parameter)
        metrics = {"learning_rate": RATE}
        if lost:
            metrics |= {"train_loss": float(np.mean(lost)), "first_loss": first}
        parts = [float(p.mean()) for p in np.array_split(lost, PARTS)] if len(lost) >= PARTS else []
        rows = {n: (t.rows[-1], t.rows[-2] if epoch else t.rows[-1]) for n, t in layers.items()}
        values = {
            n: {
                "frobenius_norm": now[0],
                "distance_from_init": now[1],
                "relative_update_norm": now[2] / before[0] if epoch else math.nan,
            }
            for n, (now, before) in rows.items()
        }
        found.append(Observation(epoch * len(batches), float(epoch), values, metrics, epoch_losses=tuple(parts)))
        if epoch:
            averaged: list[float] = []
            average.save(lambda _, out=averaged: out.append(accuracy(net, test)), Path())  # type: ignore[misc]
            truth.append([accuracy(net, test), averaged[0]])
    return found, truth


def judged(series: list[Observation], preset: str) -> tuple[list[float | None], float | None, float | None, str]:
    """The probability of every epoch, the epoch of the alarm, the epoch to keep, and what the alarm says."""
    detector = Overtraining(**PRESETS[preset])
    scores, alarm, said = [], None, ""
    for observation in series:
        found = detector.update(observation)
        scores.append(detector.probability)
        if found and alarm is None:
            alarm, said = observation.epoch, found[0].message
    return scores, alarm, detector.best_epoch, said


# --- The real loops -------------------------------------------------------------------------------------------------


def settings(folder: str) -> dict[str, Any]:
    """The callback's arguments: it records, and stops nothing."""
    return {"log_dir": folder, "verbose": 0, "every_n_epochs": 1, "detectors": [Recorder()], "quantities": "default"}


def plain(train: Data, seed: int, epochs: int, folder: str) -> Any:
    """A loop of one's own."""
    net, batches = network(seed), loader(train, seed)
    optimizer = torch.optim.SGD(net.parameters(), RATE, MOMENTUM)
    with SpectralMonitor(net, **settings(folder)) as monitor:
        for epoch in range(epochs):
            for x, y in batches:
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(net(x), y)
                loss.backward()
                optimizer.step()
                monitor.step(loss)
            monitor.observe(step=(epoch + 1) * len(batches), epoch=epoch + 1, learning_rate=RATE)
    return monitor


def lightning(train: Data, seed: int, epochs: int, folder: str) -> Any:
    """Lightning's Trainer."""
    import pytorch_lightning as pl

    from ww_callbacks.lightning import SpectralCallback

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(seed)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), RATE, MOMENTUM)

    callback = SpectralCallback(**settings(folder))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=[callback], accelerator="cpu", enable_model_summary=False, **quiet
    )
    trainer.fit(Module(), loader(train, seed))
    return callback


def huggingface(train: Data, seed: int, epochs: int, folder: str) -> Any:
    """The Hugging Face Trainer."""
    import transformers

    from ww_callbacks.huggingface import SpectralCallback

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(seed)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": nn.functional.cross_entropy(self.net(x), labels)}

    class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        def __len__(self) -> int:
            return len(train[0])

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"x": train[0][index], "labels": train[1][index]}

    class Trainer(transformers.Trainer):
        def get_train_dataloader(self) -> Any:
            order = Order(len(train[0]), seed)
            return torch.utils.data.DataLoader(self.train_dataset, batch_size=BATCH, sampler=order)

    model, callback = Model(), SpectralCallback(**settings(folder))
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    arguments = transformers.TrainingArguments(
        output_dir=folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        max_grad_norm=0.0,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=seed,
    )
    both = (optimizer, constant)
    Trainer(model=model, args=arguments, train_dataset=Rows(), callbacks=[callback], optimizers=both).train()
    return callback


def keras(train: Data, seed: int, epochs: int, folder: str) -> Any:
    """Keras's ``fit``."""
    import keras

    from ww_callbacks.keras import SpectralCallback

    dense = [keras.layers.Dense(WIDTH, "relu"), keras.layers.Dense(WIDTH, "relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((64,)), *dense])
    for layer, linear in zip(dense, [m for m in network(seed) if isinstance(m, nn.Linear)], strict=True):
        layer.set_weights([linear.weight.detach().numpy().T, linear.bias.detach().numpy()])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE, MOMENTUM), loss)

    class Batches(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self.order = Order(len(train[0]), seed)
            self.rows = list(range(len(train[0])))  # Keras looks at a batch, and calls `on_epoch_end` before the first

        def on_epoch_end(self) -> None:
            self.rows = list(self.order)

        def __len__(self) -> int:
            return math.ceil(len(train[0]) / BATCH)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            rows = self.rows[index * BATCH : (index + 1) * BATCH]
            return train[0][rows].numpy(), train[1][rows].numpy()

    callback = SpectralCallback(**settings(folder))
    model.fit(Batches(), epochs=epochs, verbose=0, shuffle=False, callbacks=[callback])
    return callback


LOOPS: dict[str, Callable[[Data, int, int, str], Any]] = {
    "plain": plain,
    "lightning": lightning,
    "huggingface": huggingface,
    "keras": keras,
}


def difference(one: list[float | None], other: list[float | None]) -> float:
    """The largest difference of two series of probabilities; infinite where only one is known."""
    if [p is None for p in one] != [p is None for p in other]:
        return math.inf
    return max((abs(a - b) for a, b in zip(one, other, strict=True) if a is not None and b is not None), default=0.0)


def main() -> None:
    parser = _report.arguments(__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--loops", nargs="*", default=list(LOOPS))
    args = parser.parse_args()
    for name in ("pytorch_lightning", "lightning.pytorch", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for scenario in args.scenarios:
        for seed in range(args.seeds):
            train, test = data(scenario, seed)
            replayed, truth = reference(train, test, seed, args.epochs)
            live = {"replay": replayed}
            alerts: dict[str, float | None] = {}
            for name in args.loops:
                Recorder.seen = []
                with tempfile.TemporaryDirectory() as folder:
                    watched = LOOPS[name](train, seed, args.epochs, folder)
                    alerts[name] = next((a.epoch for a in watched.alerts if a.kind == "overtraining"), None)
                live[name] = list(Recorder.seen)
            raw = [t[0] for t in truth]
            for preset in ("cautious", "eager"):
                expected, alarm_there, _, _ = judged(replayed, preset)
                for name, series in live.items():
                    scores, alarm, keep, said = judged(series, preset)
                    row = {"scenario": scenario, "seed": seed, "loop": name, "preset": preset, "alarm": alarm}
                    row |= {"keep": keep, "difference": difference(scores, expected), "same": alarm == alarm_there}
                    row |= {"parts": sum(bool(o.epoch_losses) for o in series), "says": said}
                    if preset == "cautious" and name in alerts:
                        row["alert"] = alerts[name]
                    if name == "replay":
                        e = int(keep or 0)
                        row |= {"best": max(raw), "best_epoch": 1 + int(np.argmax(raw)), "last": raw[-1]}
                        row |= {"last_average": truth[-1][1], "kept": truth[e - 1][0], "kept_average": truth[e - 1][1]}
                    rows.append(row)
                    print({k: v for k, v in row.items() if k != "says"}, file=sys.stderr)
    loops = [r for r in rows if r["loop"] != "replay"]
    figures = {
        "runs": float(len(loops)),
        "same_alarm": float(sum(r["same"] for r in loops)),
        "largest_difference_of_probability": max(r["difference"] for r in loops),
        "alert_of_the_callback_is_the_detectors": float(
            all(r["alert"] == r["alarm"] for r in loops if "alert" in r and r["alarm"] != args.epochs + 1)
        ),
    }
    told = {k: v for k, v in vars(args).items() if k != "json"}
    _report.write(args.json, {**told, "cautious": fitted.CAUTIOUS, "eager": fitted.EAGER}, rows, figures)


if __name__ == "__main__":
    main()
