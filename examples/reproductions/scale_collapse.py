"""Scale collapse under distillation and pruning: what the callback sees before the accuracy shows it.

Published: scale collapse accompanies poorly fine-tuned, distilled or pruned models; there is no published threshold.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from examples.reproductions._lightning import Rows, fit
from examples.reproductions._networks import seeded
from examples.reproductions._report import Report, arguments
from examples.reproductions._training import accuracy, flat_digits, train

DROP = 0.02
"""Test accuracy this far below the teacher's counts as visible."""


def network() -> nn.Sequential:
    """64-128-128-10 with batch norm, so that its function does not depend on the scale of its first two matrices."""
    return nn.Sequential(
        nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(),
        nn.Linear(128, 128), nn.BatchNorm1d(128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip


def watch(
    student: nn.Module,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    data: Sequence[torch.Tensor],
    epochs: int,
    rate: float,
    decay: float,
    after_epoch: Callable[[int], None] | None,
    seed: int,
) -> tuple[Any, list[float]]:
    """Train under Lightning with the callback; the callback, and the test accuracy after each epoch."""
    import pytorch_lightning as pl

    from ww_callbacks.lightning import SpectralCallback

    images, _, test, test_labels = data
    accuracies = [accuracy(student, test, test_labels)]
    student.train()

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = student

        def training_step(self, rows: torch.Tensor, index: int) -> torch.Tensor:
            value = loss(self.net(images[rows]), rows)
            self.log("train_loss", value)
            return value

        def on_train_epoch_end(self) -> None:
            if after_epoch is not None:
                after_epoch(self.current_epoch)
            accuracies.append(accuracy(self.net, test, test_labels))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), rate, weight_decay=decay)

    with tempfile.TemporaryDirectory() as folder:
        callback = SpectralCallback(
            quantities=["scale_collapse", "log_spectral_norm", "frobenius_norm"],
            log_dir=folder,
            verbose=0,
            every_n_epochs=1,
        )
        fit(Module(), Rows(len(images), 64, seed), epochs, callback)
        history = callback.history
        alerts = list(callback.alerts)
    return (history, alerts), accuracies


def prune(student: nn.Module, share: float) -> None:
    """Set the smallest ``share`` of each matrix's elements to zero."""
    with torch.no_grad():
        for layer in student:
            if isinstance(layer, nn.Linear):
                size = layer.weight.abs().flatten()
                cut = size.kthvalue(max(1, int(share * len(size)))).values
                layer.weight.mul_(layer.weight.abs() > cut)


def main(argv: Sequence[str] | None = None) -> dict:
    args = arguments(__doc__, argv)
    torch.set_num_threads(args.threads)
    data = flat_digits(args.seed)
    images, labels, test, test_labels = data
    epochs = 8 if args.quick else 40
    teacher = seeded(network, args.seed)
    train(teacher, images, labels, 5 if args.quick else 30, seed=args.seed)
    teacher.eval()
    with torch.no_grad():
        answers = torch.softmax(teacher(images) / 4, dim=1)
    own = accuracy(teacher, test, test_labels)
    report = Report(
        "scale_collapse",
        "Scale collapse under distillation and pruning",
        {
            "network": "64-128-128-10, batch norm, on digits",
            "teacher's accuracy": own,
            "epochs": epochs,
            "seed": args.seed,
        },
    )

    def distil(output: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return 16 * nn.functional.kl_div(torch.log_softmax(output / 4, 1), answers[rows], reduction="batchmean")

    def classify(output: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, labels[rows])

    shares = [min(0.99, 1 - 0.9 ** (2 * (e + 1))) for e in range(epochs)]
    students = {name: copy.deepcopy(teacher) for name in ("fine-tuned", "distilled, weight decay 20", "pruned")}
    runs = {
        "fine-tuned": (classify, 1e-4, 0.0, None),
        "distilled, weight decay 20": (distil, 1e-3 if args.quick else 3e-4, 20.0, None),
        "pruned": (classify, 1e-4, 0.0, lambda epoch: prune(students["pruned"], shares[epoch])),
    }
    rows, lines = [], {}
    for name, (loss, rate, decay, after) in runs.items():
        (history, alerts), accuracies = watch(students[name], loss, data, epochs, rate, decay, after, args.seed)
        least = history.groupby("epoch")["scale_collapse"].min()
        said = [a for a in alerts if a.kind == "scale collapse"]
        visible = next((e for e, a in enumerate(accuracies) if a < own - DROP), None)
        rows.append(
            {
                "run": name,
                "scale_collapse, least layer, at the end": float(least.iloc[-1]),
                "first alert, epoch": said[0].epoch if said else "none",
                "it began in epoch": said[0].since_epoch if said else "",
                "accuracy then": accuracies[int(said[0].epoch)] if said else "",
                f"accuracy {DROP * 100:g} points down, epoch": "never" if visible is None else visible,
                "accuracy at the end": accuracies[-1],
            }
        )
        if said:
            report.text(f"{name}: the callback said: “{said[0].message} {said[0].recommendation}”")
        lines[f"{name}: scale"] = (list(least.index), list(least))
        lines[f"{name}: ln accuracy"] = (
            list(range(len(accuracies))),
            [float(torch.tensor(a).log()) for a in accuracies],
        )
    report.table("runs", rows, "What the callback said, and when the accuracy showed it")
    report.figure("runs", "Least scale over layers, and accuracy", "epoch", "scale_collapse; ln accuracy", lines)
    report.text(
        "With batch norm the function does not depend on the scale of a matrix before it, so weight decay can shrink "
        "the weights while the accuracy stays. Pruning takes the smallest elements first, so most of the norm stays "
        "until few elements are left. No threshold is published to compare with."
    )
    report.write(args.out)
    return report.numbers


if __name__ == "__main__":
    main()
