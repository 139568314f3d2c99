"""The same dense and convolutional weights in every framework, for the test that their records are the same.

Run as a program it trains for one epoch at a learning rate of zero and leaves the record in a folder:
``python same_weights.py FOLDER lightning|keras|huggingface|plain …``.
"""

from __future__ import annotations

import sys

import numpy as np

SETTINGS = {"verbose": 0, "quantities": ["default", "entropy", "rand_distance", "matrix_rank"], "every_n_epochs": 1}
CLASSES, CHANNELS, FILTERS, KERNEL, SIDE = 5, 3, 24, 3, 8


def weights() -> dict[str, np.ndarray]:
    """Dense (out, in) and convolutional (out, in, kh, kw) weights, float32."""
    generator = np.random.default_rng(7)
    inputs = FILTERS * (SIDE - KERNEL + 1) ** 2
    conv = generator.standard_t(4, size=(FILTERS, CHANNELS, KERNEL, KERNEL)) * 0.1
    return {
        "conv": conv.astype(np.float32),
        "dense": (generator.standard_t(4, size=(48, inputs)) * 0.02).astype(np.float32),
        "head": (generator.normal(size=(CLASSES, 48)) * 0.1).astype(np.float32),
    }


def images() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    x = generator.normal(size=(16, CHANNELS, SIDE, SIDE)).astype(np.float32)
    return x, generator.integers(0, CLASSES, 16)


def torch_net():
    import torch
    from torch import nn

    w = weights()
    net = nn.Sequential(
        nn.Conv2d(CHANNELS, FILTERS, KERNEL),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(w["dense"].shape[1], 48),
        nn.Linear(48, CLASSES),
    )
    with torch.no_grad():
        for layer, name in ((net[0], "conv"), (net[3], "dense"), (net[4], "head")):
            layer.weight.copy_(torch.from_numpy(w[name]))
    return net


def plain(folder: str) -> None:
    from ww_callbacks import SpectralMonitor

    with SpectralMonitor(torch_net(), log_dir=folder, **SETTINGS) as monitor:
        monitor.observe(step=2, epoch=1)


def lightning(folder: str) -> None:
    import pytorch_lightning as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from ww_callbacks.lightning import SpectralCallback

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch_net()

        def training_step(self, batch, _):
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.0)

    x, y = images()
    trainer = pl.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        callbacks=[SpectralCallback(log_dir=folder, **SETTINGS)],
    )
    trainer.fit(Module(), DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=8))


def huggingface(folder: str) -> None:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainingArguments
    from transformers.pytorch_utils import Conv1D

    from ww_callbacks.huggingface import SpectralCallback

    class Model(PreTrainedModel):
        """The head as HF's Conv1D, which stores (in, out)."""

        config_class = PretrainedConfig

        def __init__(self, config):
            super().__init__(config)
            self.net = torch_net()
            head = Conv1D(CLASSES, 48)
            with torch.no_grad():
                head.weight.copy_(self.net[4].weight.T)
            self.net[4] = head
            self.post_init()

        def _init_weights(self, module):
            pass

        def forward(self, x, labels):
            logits = self.net(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    x, y = images()
    rows = [{"x": torch.from_numpy(a), "labels": torch.tensor(b)} for a, b in zip(x, y, strict=True)]
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=1,
        per_device_train_batch_size=8,
        learning_rate=0.0,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    callback = SpectralCallback(log_dir=folder, **SETTINGS)
    Trainer(model=Model(PretrainedConfig()), args=arguments, train_dataset=rows, callbacks=[callback]).train()


def keras(folder: str) -> None:
    import keras

    from ww_callbacks.keras import SpectralCallback

    w = weights()
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, CHANNELS)),
            keras.layers.Conv2D(FILTERS, KERNEL, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(48),
            keras.layers.Dense(CLASSES),
        ]
    )
    layers = model.layers
    layers[0].kernel.assign(w["conv"].transpose(2, 3, 1, 0))
    layers[2].kernel.assign(w["dense"].T)
    layers[3].kernel.assign(w["head"].T)
    model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = images()
    callback = SpectralCallback(log_dir=folder, **SETTINGS)
    model.fit(x.transpose(0, 2, 3, 1), y, batch_size=8, epochs=1, verbose=0, callbacks=[callback])


if __name__ == "__main__":
    for framework in sys.argv[2:]:
        globals()[framework](f"{sys.argv[1]}/{framework}")
