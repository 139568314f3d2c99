"""One small job an extra, run by ``floors.py`` in an environment that holds that extra alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from ww_callbacks import SpectralMonitor, spectral
from ww_callbacks.commands import main


def weights() -> dict[str, np.ndarray]:
    """A small model as a mapping of names to arrays."""
    generator = np.random.default_rng(0)
    return {"first.weight": generator.normal(size=(60, 40)), "second.weight": generator.normal(size=(40, 30))}


def record(folder: str = "run", **settings: object) -> SpectralMonitor:
    """A record of three snapshots."""
    model = weights()
    with SpectralMonitor(model, log_dir=folder, **settings) as monitor:
        for step in range(1, 4):
            for array in model.values():
                array *= 1.01
            monitor.observe(step=step, epoch=step, train_loss=1.0 / step)
    assert monitor.history["alpha"].notna().any() and len(monitor.summary) == 4
    return monitor


def base() -> None:
    """A record, a table of a file, a report of its text."""
    from safetensors.numpy import save_file

    record()
    save_file(weights(), "model.safetensors")
    assert len(spectral.analyze("model.safetensors").layers) == 2
    for command in (["analyze", "model.safetensors"], ["compare", "model.safetensors", "model.safetensors"]):
        assert main(command) == 0, command


def lightning() -> None:
    """A training of one epoch."""
    import torch
    from pytorch_lightning import LightningModule, Trainer

    from ww_callbacks.lightning import SpectralCallback

    class Small(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 10))

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.01)

    callback = SpectralCallback(strict=True)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(64, 20)), batch_size=16)
    Trainer(max_epochs=2, callbacks=[callback], enable_progress_bar=False, accelerator="cpu").fit(Small(), data)
    assert callback.verdict is not None and len(callback.history) > 4


def keras() -> None:
    """A training of two epochs on jax."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras as k

    from ww_callbacks.keras import SpectralCallback

    model = k.Sequential([k.Input((20,)), k.layers.Dense(30), k.layers.Dense(10)])
    model.compile(optimizer="sgd", loss="mse")
    callback = SpectralCallback(log_dir="run", strict=True)
    model.fit(np.ones((64, 20)), np.ones((64, 10)), epochs=2, verbose=0, callbacks=[callback])
    assert callback.verdict is not None and len(callback.history) > 4


def huggingface() -> None:
    """A training of a few steps."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    from ww_callbacks.huggingface import SpectralCallback

    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    rows = [{"input_ids": torch.arange(8), "labels": torch.tensor(i % 2)} for i in range(32)]
    callback = SpectralCallback(strict=True)
    arguments = TrainingArguments("out", num_train_epochs=2, report_to=[], use_cpu=True, disable_tqdm=True)
    Trainer(BertForSequenceClassification(config), arguments, train_dataset=rows, callbacks=[callback]).train()
    assert callback.verdict is not None and len(callback.history) > 4


def tensorboard() -> None:
    """Event files, and the page's data."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from ww_callbacks.integrations.tensorboard_plugin.plugin import SpectraPlugin

    monitor = record()
    events = EventAccumulator(str(next(Path(str(monitor.directory)).rglob("*tfevents*")).parent))
    events.Reload()
    assert any("spectral/" in tag for tag in events.Tags()["scalars"] + events.Tags()["tensors"])
    assert SpectraPlugin.plugin_name == "spectra"
    assert main(["report", str(monitor.directory), "-o", "report.html"]) == 0


def wandb() -> None:
    """An offline run."""
    import wandb as w

    run = w.init(mode="offline", project="floors", dir=".")
    record()
    run.log({"mine": 1.0})
    run.finish()


def figures() -> None:
    """A figure as a picture."""
    from ww_callbacks.integrations import figures as f

    f.save(f.timeline(record().directory), "timeline.png")
    assert Path("timeline.png").stat().st_size > 1000


def onnx() -> None:
    """A table of a model."""
    from onnx import TensorProto, helper, numpy_helper, save

    weight = numpy_helper.from_array(weights()["first.weight"].T.astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 60])],
        [weight],
    )
    save(helper.make_model(graph), "model.onnx")
    assert len(spectral.analyze("model.onnx").layers) == 1


def gguf() -> None:
    """A table of a model."""
    from gguf import GGUFWriter

    writer = GGUFWriter("model.gguf", "llama")
    writer.add_tensor("output.weight", weights()["first.weight"].astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert len(spectral.analyze("model.gguf").layers) == 1


def h5() -> None:
    """A table of a Keras file."""
    import h5py

    with h5py.File("model.weights.h5", "w") as file:
        file.create_group("layers/dense/vars")["0"] = weights()["first.weight"].T.astype(np.float32)
    assert len(spectral.analyze("model.weights.h5").layers) == 1


def parquet() -> None:
    """A record as Parquet."""
    import pandas as pd

    monitor = record()
    monitor.history.to_parquet("history.parquet")
    assert len(pd.read_parquet("history.parquet")) == len(monitor.history)


def probes() -> None:
    """Features measured."""
    import torch

    from ww_callbacks.probes.representation import RepresentationProbe

    net = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.ReLU(), torch.nn.Linear(30, 4))
    probe = RepresentationProbe(torch.randn(32, 20))
    with SpectralMonitor(net, log_dir="run", probe=probe, strict=True) as monitor:
        monitor.observe(step=1, epoch=1)
    assert monitor.history["feature_rank"].notna().any()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
