"""Our lines next to the frameworks' own progress bars, on the screen of a real terminal."""

from __future__ import annotations

import re

import pytest

from tests.integrations.terminal import screen

OURS = re.compile(
    r"spectra: (watching|medians over|epoch \d(\.\d+)?  |metrics recognised: |verdict: |\d+ snapshots?, "
    r"|to look inside: )"
)

LIGHTNING = """
import logging, sys, warnings
warnings.filterwarnings("ignore")
import pytorch_lightning as pl
import torch
from ww_callbacks.lightning import SpectralCallback
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(32, 40), torch.nn.ReLU(), torch.nn.Linear(40, 5))
    def training_step(self, batch, index):
        loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, prog_bar=True)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

data = torch.utils.data.TensorDataset(torch.randn(320, 32), torch.randint(0, 5, (320,)))
for bar in (pl.callbacks.RichProgressBar, pl.callbacks.TQDMProgressBar):
    callbacks = [bar(), SpectralCallback(log_dir=FOLDER + bar.__name__, every_n_epochs=1)]
    trainer = pl.Trainer(
        max_epochs=3, logger=False, enable_checkpointing=False, enable_model_summary=False, accelerator="cpu",
        callbacks=callbacks,
    )
    trainer.fit(Model(), torch.utils.data.DataLoader(data, 32))
    print("END OF", bar.__name__)
"""

KERAS = """
import os
os.environ["KERAS_BACKEND"] = "jax"
import keras
import numpy as np
from ww_callbacks.keras import SpectralCallback

rng = np.random.default_rng(0)
for verbose in (1, 2):
    model = keras.Sequential([keras.layers.Input((32,)), keras.layers.Dense(40), keras.layers.Dense(5)])
    model.compile("sgd", "mse")
    callback = SpectralCallback(log_dir=f"{FOLDER}{verbose}", every_n_epochs=1)
    model.fit(rng.normal(size=(320, 32)), rng.normal(size=(320, 5)), epochs=3, verbose=verbose, callbacks=[callback])
    print("END OF", verbose)
"""

HUGGING_FACE = """
import warnings
warnings.filterwarnings("ignore")
import torch
from transformers import Trainer, TrainingArguments
from ww_callbacks.huggingface import SpectralCallback

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(32, 40), torch.nn.ReLU(), torch.nn.Linear(40, 5))
    def forward(self, x, labels):
        return {"loss": torch.nn.functional.cross_entropy(self.net(x), labels)}

data = [{"x": torch.randn(32), "labels": torch.tensor(i % 5)} for i in range(320)]
arguments = TrainingArguments(
    FOLDER + "out", num_train_epochs=3, per_device_train_batch_size=32, report_to="none", save_strategy="no",
    use_cpu=True, logging_strategy="epoch",
)
Trainer(Model(), arguments, train_dataset=data, callbacks=[SpectralCallback(log_dir=FOLDER, every_n_epochs=1)]).train()
"""


@pytest.mark.parametrize(
    ("program", "runs", "bar"),
    [
        pytest.param(LIGHTNING, 2, r"^Epoch 2.*10/10 .*loss", id="lightning"),
        pytest.param(KERAS, 2, r"^10/10 .* - loss: [\d.]+$", id="keras"),
        pytest.param(HUGGING_FACE, 1, r"^100%\|█+\| 30/30 \[.*\]$", id="huggingface"),
    ],
)
def test_lines_and_bars_leave_each_other_whole(tmp_path, program, runs, bar):
    lines = screen(f"FOLDER = {str(tmp_path) + '/'!r}\n{program}")
    shown = "\n".join(lines)
    said = [line for line in lines if "spectra:" in line]
    assert all(OURS.match(line) for line in said), shown
    always = [line for line in said if "metrics recognised" not in line]  # said where the loop has names to read
    assert len(always) == runs * 9, shown  # watching, legend, W_0, three epochs, verdict, cost, how to look inside
    assert all(len(line) < 80 for line in said if "record" not in line and "look inside" not in line), shown
    wrapped = "\n".join(lines).replace("\n         ", " ")
    assert wrapped.count("Log a validation loss for a firm answer.") == runs, "broken within a word:\n" + shown
    assert sum(bool(re.search(bar, line)) for line in lines) >= runs, shown
