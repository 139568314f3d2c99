"""Train one run and keep its trajectory: spectra and inner products of the weights, and what the loop knows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from benchmarks.trajectories.domains import DOMAINS
from benchmarks.trajectories.scenarios import Run

PARTS = 4
"""Parts of an epoch whose mean loss and accuracy are kept apart."""


def _optimizer(model: nn.Module, run: Run) -> torch.optim.Optimizer:
    if run.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), lr=run.rate, momentum=0.9, weight_decay=run.weight_decay)
    kind = torch.optim.AdamW if run.optimizer == "adamw" else torch.optim.Adam
    return kind(model.parameters(), lr=run.rate, weight_decay=run.weight_decay, foreach=True)


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    """Each weight matrix, rows = outputs, convolutions as (out, in·kernel), float64."""
    return {
        name: p.detach().double().flatten(1).numpy().copy()
        for name, p in model.named_parameters()
        if p.dim() >= 2 and name != "position"
    }


def _singular(w: np.ndarray, vectors: bool = False):
    if not np.all(np.isfinite(w)):
        nothing = np.full(min(w.shape), np.nan)
        return (None, nothing, None) if vectors else nothing
    if vectors:
        return np.linalg.svd(w, full_matrices=False)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0))


class LayerHistory:
    """Spectra and inner products of one layer, one entry a snapshot."""

    def __init__(self, w: np.ndarray, seed: int):
        self.initial = w
        self.previous = w
        self.update = np.zeros_like(w)
        self.top: tuple[np.ndarray, np.ndarray] | None = None
        self.rng = np.random.default_rng(seed)
        self.spectra: dict[str, list[np.ndarray]] = {"w": [], "d": [], "u": []}
        self.scalars: dict[str, list[float]] = {}

    def add(self, w: np.ndarray) -> None:
        """Take the next snapshot."""
        d, u, d_before = w - self.initial, w - self.previous, self.previous - self.initial
        left, s, right = _singular(w, vectors=True)
        self.spectra["w"].append(s.astype(np.float32))
        self.spectra["d"].append(_singular(d).astype(np.float32))
        self.spectra["u"].append(_singular(u).astype(np.float32))
        norm = lambda a: float(np.linalg.norm(a))  # noqa: E731
        size = max(norm(u), 1e-300)
        values = {
            "uu": float(np.vdot(u, self.update)),
            "ud": float(np.vdot(u, d_before)),
            "uw": float(np.vdot(u, self.previous)),
            "ww0": float(np.vdot(w, self.initial)),
            "mean": float(w.mean()),
            "kurtosis_w": float(np.mean((w - w.mean()) ** 4) / max(w.var() ** 2, 1e-300)),
            "kurtosis_u": float(np.mean(u**4) / max(np.mean(u**2) ** 2, 1e-300)),
            "kurtosis_d": float(np.mean(d**4) / max(np.mean(d**2) ** 2, 1e-300)),
            "shuffled_max": float(_singular(self.rng.permuted(w.ravel()).reshape(w.shape))[0]),
            "still_rows": float(np.mean(np.abs(u).max(axis=1) == 0)),
        }
        if self.top is not None:
            a, b = self.top
            values["u_in_top_left"] = (norm(a.T @ u) / size) ** 2
            values["u_in_top_right"] = (norm(u @ b.T) / size) ** 2
            values["u_in_top_both"] = (norm(a.T @ u @ b.T) / size) ** 2
        else:
            values |= {"u_in_top_left": math.nan, "u_in_top_right": math.nan, "u_in_top_both": math.nan}
        for key, value in values.items():
            self.scalars.setdefault(key, []).append(value)
        k = max(1, round(0.1 * len(s)))
        self.top = None if left is None else (left[:, :k], right[:k])
        self.previous, self.update = w, u


def _evaluate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    model.eval()
    with torch.no_grad():
        scores = torch.cat([model(piece) for piece in x.split(1000)]).flatten(0, -2)
    model.train()
    loss = nn.functional.cross_entropy(scores, y.flatten()).item()
    return loss, (scores.argmax(-1) == y.flatten()).double().mean().item()


def _damage(run: Run, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer, names: list[str]) -> None:
    """What makes a broken run break, at the end of an epoch or a step."""
    parameters = dict(model.named_parameters())
    at = 4 + run.seed % 4
    victim = parameters[names[-2]]
    if run.scenario == "dead_layer" and epoch == at:
        victim.requires_grad_(False)
        victim.grad = None
    if run.scenario == "nan" and epoch == at:
        with torch.no_grad():
            victim.view(-1)[0] = math.nan


def _penalty(run: Run, model: nn.Module, names: list[str]) -> torch.Tensor | float:
    parameters = dict(model.named_parameters())
    if run.scenario == "scale_collapse":  # too strong an L2 penalty on the layer before the last
        return 3.0 * parameters[names[-2]].square().sum()
    if run.scenario == "rank_collapse":  # a nuclear norm drives the small singular values to zero
        return 0.05 * torch.linalg.svdvals(parameters[names[-2]].flatten(1)).sum()
    return 0.0


def train(run: Run) -> dict[str, np.ndarray]:
    """The trajectory of a run, snapshots at its start and after every epoch.

    Keys: ``loss``, ``accuracy`` (running means over the epoch, NaN at the start), ``loss_parts``, ``accuracy_parts``
    (of each quarter of an epoch), ``rate``; ``val_loss``, ``val_accuracy``, ``test_loss``, ``test_accuracy``, ``tests``
    (the truth, never shown to a detector); for each layer ``<layer>|spectrum_w``, ``_d``, ``_u`` (snapshots × singular
    values) and ``<layer>|<scalar>``.
    """
    domain = DOMAINS[run.domain]
    rng = np.random.default_rng([run.seed, 7])
    generator = torch.Generator().manual_seed(run.seed)
    x, y, test_x, test_y = domain.load(run.size, rng)
    if run.noise:
        changed = torch.from_numpy(rng.random(tuple(y.shape)) < run.noise)
        y = torch.where(changed, torch.from_numpy(rng.integers(0, domain.classes, tuple(y.shape))), y)
    held = len(x) // 10
    order = torch.from_numpy(rng.permutation(len(x)))
    val_x, val_y, x, y = x[order[:held]], y[order[:held]], x[order[held:]], y[order[held:]]
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        model = domain.network(run.width, run.dropout)
        optimizer = _optimizer(model, run)
        first = weights(model)
        history = {name: LayerHistory(w, run.seed) for name, w in first.items()}
        out: dict[str, list] = {}

        def snapshot(loss: float, accuracy: float, loss_parts, accuracy_parts, rate: float) -> None:
            for name, w in weights(model).items():
                history[name].add(w)
            val, test = _evaluate(model, val_x, val_y), _evaluate(model, test_x, test_y)
            row = {
                "loss": loss, "accuracy": accuracy, "loss_parts": loss_parts, "accuracy_parts": accuracy_parts,
                "rate": rate, "val_loss": val[0], "val_accuracy": val[1],
                "test_loss": test[0], "test_accuracy": test[1],
            }  # fmt: skip
            for key, value in row.items():
                out.setdefault(key, []).append(value)

        unknown = np.full(PARTS, np.nan)
        snapshot(math.nan, math.nan, unknown, unknown, run.rate)
        total = run.epochs * math.ceil(len(x) / run.batch)
        step = 0
        for epoch in range(run.epochs):
            losses, hits = [], []
            rate = run.rate
            for batch in torch.randperm(len(x), generator=generator).split(run.batch):
                if run.cosine:
                    rate = run.rate * 0.5 * (1 + math.cos(math.pi * step / total))
                    for group in optimizer.param_groups:
                        group["lr"] = rate
                scores, target = model(x[batch]).flatten(0, -2), y[batch].flatten()
                loss = nn.functional.cross_entropy(scores, target)
                optimizer.zero_grad()
                (loss + _penalty(run, model, list(first))).backward()
                optimizer.step()
                losses.append(loss.item())
                hits.append((scores.argmax(-1) == target).double().mean().item())
                step += 1
            parts = lambda a: np.array([p.mean() if len(p) else np.nan for p in np.array_split(a, PARTS)])  # noqa: E731
            _damage(run, epoch, model, optimizer, list(first))
            snapshot(float(np.mean(losses)), float(np.mean(hits)), parts(losses), parts(hits), rate)
    arrays = {key: np.asarray(value, dtype=np.float64) for key, value in out.items()}
    arrays["tests"] = np.asarray(float(test_y.numel()))
    for name, layer in history.items():
        for key, spectra in layer.spectra.items():
            arrays[f"{name}|spectrum_{key}"] = np.stack(spectra)
        for key, scalars in layer.scalars.items():
            arrays[f"{name}|{key}"] = np.asarray(scalars)
    return arrays


def names_of(arrays) -> Iterator[str]:
    """The layers of a trajectory, in depth order."""
    return (key.split("|")[0] for key in arrays if key.endswith("|spectrum_w"))
