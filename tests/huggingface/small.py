"""A network and data on which a Trainer takes a second."""

import torch
from torch import nn
from transformers import Trainer, TrainingArguments, set_seed


class Rows(torch.utils.data.Dataset):
    def __init__(self, count=32, seed=0):
        self.x = torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"x": self.x[index], "labels": self.x[index, :3].argmax()}


class Stream(torch.utils.data.IterableDataset):
    """The same rows without a length."""

    def __init__(self, count):
        self.rows = Rows(count)

    def __iter__(self):
        return (self.rows[i] for i in range(len(self.rows)))


class Classifier(nn.Module):
    def __init__(self, dropout=0.1):
        super().__init__()
        torch.manual_seed(0)
        layers = nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 24), nn.Dropout(dropout), nn.Linear(24, 3)
        self.net = nn.Sequential(*layers)

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def trainer(folder, *callbacks, model=None, data=None, kind=Trainer, validation=None, more=None, **options):
    """A Trainer of 4 epochs of 4 steps that has not begun; ``options`` go into the TrainingArguments."""
    set_seed(0)
    arguments = {
        "num_train_epochs": 4,
        "per_device_train_batch_size": 8,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 2,
        "learning_rate": 1e-2,
    } | options
    return kind(
        model=Classifier() if model is None and not (more or {}).get("model_init") else model,
        args=TrainingArguments(output_dir=str(folder), **arguments),
        train_dataset=data or Rows(),
        eval_dataset=validation or Rows(16, seed=1),
        callbacks=list(callbacks),
        **(more or {}),
    )


def train(folder, *callbacks, resume=None, **options):
    """Train, and return the Trainer."""
    made = trainer(folder, *callbacks, **options)
    made.train(resume_from_checkpoint=resume)
    return made
