"""`accuracy=` in the loops that users have: the same weights, right errors, and the same estimates after a resume."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

from tests.integrations.test_errors_of_estimates import with_spikes
from tests.lifecycle.records import Stop, assert_same
from ww_callbacks.integrations.record import read_run

ROWS, COLUMNS, CLASSES, EPOCHS, BATCH = 600, 520, 3, 4, 16
RATE = 0.01
SETTINGS: dict[str, Any] = {"accuracy": 0.01, "every_n_epochs": 1, "strict": True, "verbose": 0}
Weights = list[np.ndarray]


def large() -> np.ndarray:
    """The weights that the large layer starts from, out × in."""
    return with_spikes(ROWS, COLUMNS)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Four equal batches: the order is the same wherever an epoch is resumed."""
    x = np.random.default_rng(0).standard_normal((BATCH, COLUMNS)).astype(np.float32)
    return np.tile(x, (4, 1)), np.tile(x[:, :CLASSES].argmax(1), 4)


def torch_model(stop_in: int | None = None, forward: Callable[..., Any] | None = None) -> Any:
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(COLUMNS, ROWS), nn.Tanh(), nn.Linear(ROWS, CLASSES))
            self.net[0].weight.data = torch.from_numpy(large())
            self.calls = 0

        def forward(self, x: Any, labels: Any = None) -> Any:
            self.calls += 1
            if stop_in is not None and self.calls == 4 * stop_in + 3:
                raise Stop("the user's own error")
            logits = self.net(x)
            return logits if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}

    return Model()


def weights_of(model: Any) -> Weights:
    return [p.detach().numpy().copy() for p in model.parameters()]


def plain(folder: Path, settings: dict[str, Any] | None) -> Weights:
    import torch
    from torch import nn

    from ww_callbacks import SpectralMonitor

    model = torch_model()
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9)
    monitor = SpectralMonitor(model, log_dir=folder / "record", **settings) if settings else None
    x, y = map(torch.from_numpy, data())
    for step in range(4 * EPOCHS):
        rows = slice(step % 4 * BATCH, (step % 4 + 1) * BATCH)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        if monitor is not None:
            monitor.observe(step=step + 1, epoch=(step + 1) / 4, train_loss=loss.item())
    if monitor is not None:
        monitor.close()
    return weights_of(model)


def lightning(folder: Path, settings: dict[str, Any] | None, stop_in: int | None = None, **options: Any) -> Weights:
    pl = pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
    import torch
    from pytorch_lightning.callbacks import ModelCheckpoint
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from tests.adapters.nets import fit
    from ww_callbacks.lightning import SpectralCallback

    class Net(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = torch_model(stop_in)

        def training_step(self, batch: Any, index: int) -> Any:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), RATE, momentum=0.9)

    net = Net()
    callbacks = [SpectralCallback(log_dir=str(folder / "record"), **settings)] if settings else []
    saved = sorted((folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    fit(
        net,
        *callbacks,
        ModelCheckpoint(folder / "checkpoints", save_top_k=-1),
        epochs=EPOCHS,
        data=DataLoader(TensorDataset(*map(torch.from_numpy, data())), batch_size=BATCH),
        ckpt_path=saved[-1] if saved else None,
        **options,
    )
    return weights_of(net)


def huggingface(folder: Path, settings: dict[str, Any] | None, stop_in: int | None = None) -> Weights:
    pytest.importorskip("transformers", reason="needs the extra huggingface")
    from tests.huggingface.small import train
    from ww_callbacks.huggingface import SpectralCallback

    x, y = data()
    rows = [{"x": a, "labels": int(b)} for a, b in zip(x, y, strict=True)]
    callbacks = [SpectralCallback(log_dir=str(folder / "record"), **settings)] if settings else []
    saved = list((folder / "out").glob("checkpoint-*"))
    done = train(
        folder / "out",
        *callbacks,
        model=torch_model(stop_in),
        data=rows,
        resume=bool(saved) or None,
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        save_strategy="epoch",
        learning_rate=RATE / 10,
        optim="sgd",
    )
    return weights_of(done.model)


def keras_fit(
    folder: Path, settings: dict[str, Any] | None, stop_in: int | None = None, more: Sequence[Any] = ()
) -> Weights:
    keras = pytest.importorskip("keras", reason="needs the extra keras")
    from tests.keras.test_resume import stop_in as stopping
    from ww_callbacks.keras import SpectralCallback

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(ROWS, "tanh", name="a"), keras.layers.Dense(CLASSES, name="b")]
    model = keras.Sequential([keras.Input((COLUMNS,)), *layers], name="net")
    layers[0].kernel.assign(large().T)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE / 10, momentum=0.9), loss)
    callbacks = [SpectralCallback(log_dir=str(folder / "record"), **settings)] if settings else []
    callbacks.append(keras.callbacks.BackupAndRestore(str(folder / "backup")))
    callbacks += [*more] if stop_in is None else [*more, stopping(stop_in)]
    x, y = data()
    model.fit(x, y, epochs=EPOCHS, batch_size=BATCH, shuffle=False, verbose=0, callbacks=callbacks)
    return [np.array(v) for v in model.get_weights()]


LOOPS = {"plain": plain, "lightning": lightning, "huggingface": huggingface, "keras": keras_fit}


@pytest.fixture(scope="module", params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Callable[..., Weights]:
    return LOOPS[request.param]


@pytest.fixture(scope="module")
def whole(loop, tmp_path_factory) -> tuple[Path, Weights]:
    """An uninterrupted run at the tolerance, and its weights."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "record", loop(folder, SETTINGS)


def rows_of(record: Path) -> Any:
    return read_run(record).layers.set_index(["step", "layer"])


def test_weights_are_the_same_and_estimates_within_their_errors(loop, whole, tmp_path):
    """Against the same training without the callback, and against one with exact values."""
    record, weights = whole
    for without, mine in zip(loop(tmp_path / "without", None), weights, strict=True):
        np.testing.assert_array_equal(without, mine)
    loop(tmp_path / "exact", {**SETTINGS, "accuracy": "exact"})
    estimated, exact = rows_of(record), rows_of(tmp_path / "exact" / "record")
    assert estimated.index.equals(exact.index)
    errors = [name for name in estimated if name.endswith("_error")]
    assert {"log_spectral_norm_error", "stable_rank_error", "effective_rank_error"} <= set(errors)
    assert not [name for name in exact if name.endswith("_error")]
    compared = 0
    for name in errors:
        values = estimated[name.removesuffix("_error")]
        known = estimated[name] > 0.0
        compared += int(known.sum())
        away = (values - exact[name.removesuffix("_error")]).abs()
        # The record keeps seven digits.
        assert (away[known] <= estimated[name][known] + 1e-6 * values[known].abs()).all(), name
        assert (away[~known].fillna(0.0) == 0.0).all(), name
    assert compared >= 8
    assert read_run(record).verdict.state == read_run(tmp_path / "exact" / "record").verdict.state


def test_the_keys_are_the_same_in_every_epoch(tmp_path):
    """As Keras's CSVLogger needs them, though the first epochs may have no estimate."""
    keras = pytest.importorskip("keras", reason="needs the extra keras")
    keras_fit(tmp_path, SETTINGS, more=[keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))])
    first, *lines = (tmp_path / "log.csv").read_text().splitlines()
    assert "spectral/effective_rank/median_error" in first.split(",") and len(lines) == EPOCHS
    assert {len(line.split(",")) for line in lines} == {len(first.split(","))}


def test_alpha_waits_and_a_verdict_comes(whole):
    rows = rows_of(whole[0])
    large_layer = rows.index.get_level_values("layer")[0]
    alpha = rows["alpha"].xs(large_layer, level="layer")
    assert np.isfinite(alpha.iloc[0]) and alpha.isna().any()
    assert read_run(whole[0]).verdict is not None


def test_after_a_resume_the_estimates_are_the_same(loop, whole, tmp_path):
    if loop is plain:
        pytest.skip("a plain loop does not resume its record")
    with pytest.raises(Stop):
        loop(tmp_path, SETTINGS, stop_in=2)
    loop(tmp_path, SETTINGS)
    assert read_run(tmp_path / "record").run.resumed_at == 8
    assert_same(whole[0], tmp_path / "record")


@pytest.mark.parametrize(
    "more",
    [{"workers": 2}, {"background": True}, {"max_overhead": 0.5}, {"restore": "best"}],
    ids=lambda more: next(iter(more)),
)
def test_with_other_settings(loop, whole, tmp_path, more):
    """The same weights; and the same rows, unless the time decides what is measured."""
    record, weights = whole
    mine = loop(tmp_path, {**SETTINGS, **more})
    if "restore" not in more:
        for one, other in zip(mine, weights, strict=True):
            np.testing.assert_array_equal(one, other)
    one, other = rows_of(tmp_path / "record"), rows_of(record)
    if "max_overhead" not in more and len(one) == len(other):  # in the background, a slow machine skips snapshots
        assert one.drop(columns="kind").equals(other.drop(columns="kind"))
    assert set(one.index) <= set(other.index) and (one["status"] == "ok").all()


CONSTRUCTORS = {
    "plain": "ww_callbacks.SpectralMonitor",
    "lightning": "ww_callbacks.lightning.SpectralCallback",
    "huggingface": "ww_callbacks.huggingface.SpectralCallback",
    "keras": "ww_callbacks.keras.SpectralCallback",
    "analyze": "ww_callbacks.spectral.analyze",
}


@pytest.mark.parametrize("name", CONSTRUCTORS)
@pytest.mark.parametrize("wrong", [1, 0.0, -0.01, 5, True, "1 %", "0.01", None, float("nan"), [0.01]])
def test_a_wrong_accuracy_is_refused_with_the_remedy(name, wrong):
    """Before training, whatever the loop."""
    module, _, attribute = CONSTRUCTORS[name].rpartition(".")
    if name in ("lightning", "huggingface", "keras"):
        pytest.importorskip({"lightning": "pytorch_lightning", "huggingface": "transformers"}.get(name, name))
    model = [{"w": np.eye(4)}] if name in ("plain", "analyze") else []
    with pytest.raises(ValueError, match=r"`accuracy` to be 'exact' or a relative error from 0\.0001 to 0\.1 \(0\.01"):
        getattr(import_module(module), attribute)(*model, accuracy=wrong)
