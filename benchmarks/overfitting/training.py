"""Train a run and keep what a loop could see of it, and the truth: a few numbers an epoch."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.overfitting.domains import DOMAINS, build
from benchmarks.overfitting.runs import Run, all_runs
from ww_callbacks.spectral import fit_power_law

PARTS = 10
"""Parts of an epoch whose mean loss is kept."""
HORIZONS = (1.0, 2.0)
"""Horizons of the averages, in epochs."""
CACHE = Path(os.environ.get("WW_CALLBACKS_TRAJECTORIES", ".cache/overfitting"))
Arrays = dict[str, np.ndarray]


def _loss(task: str, scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if task == "regression":
        return nn.functional.mse_loss(scores, y)
    if task == "multilabel":
        return nn.functional.binary_cross_entropy_with_logits(scores, y)
    return nn.functional.cross_entropy(scores.flatten(0, -2), y.flatten())


def _accuracy(task: str, scores: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if task == "regression":
        return torch.tensor(math.nan)
    if task == "multilabel":
        return ((scores > 0) == (y > 0.5)).float().mean()
    return (scores.argmax(-1) == y).float().mean()


def _noisy(run: Run, y: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Targets of which a share is replaced by random ones."""
    if not run.noise:
        return y
    changed = torch.from_numpy(rng.random(tuple(y.shape)) < run.noise)
    if DOMAINS[run.domain].task == "regression":
        return torch.where(changed, y[torch.from_numpy(rng.permutation(len(y)))], y)
    random = torch.from_numpy(rng.integers(0, DOMAINS[run.domain].classes, tuple(y.shape))).to(y.dtype)
    return torch.where(changed, random, y)


def _shifted(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images moved by up to two pixels."""
    across, down = (int(torch.randint(-2, 3, (), generator=generator)) for _ in range(2))
    return torch.roll(x, (across, down), (-1, -2))


class Average:
    """A debiased exponential moving average of all parameters and buffers, updated after every step.

    After t steps the weight of the newest is (1 − d)/(1 − dᵗ), so the start has no weight of its own.
    """

    def __init__(self, model: nn.Module, horizon_steps: float) -> None:
        self.d, self.t = 1.0 - 1.0 / max(horizon_steps, 1.0), 0
        self.source = [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]
        self.values = [p.detach().clone() for p in self.source]

    @torch.no_grad()
    def step(self) -> None:
        """Take the weights of now into the average."""
        self.t += 1
        torch._foreach_lerp_(self.values, self.source, (1 - self.d) / (1 - self.d**self.t))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and the average."""
        for a, b in zip(self.source, self.values, strict=True):
            kept = a.detach().clone()
            a.copy_(b)
            b.copy_(kept)


def _evaluate(model: nn.Module, task: str, x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    if not len(x):
        return math.nan, math.nan
    model.eval()
    with torch.no_grad():
        scores = model(x)
        out = float(_loss(task, scores, y)), float(_accuracy(task, scores, y))
    model.train()
    return out


class Gradients:
    """Sums of a few batches' gradients in an epoch, for the published rules that read gradients.

    The weights move between the batches, so the mean and the variance are those of a path, not of one point.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.count, self.squares = 0, 0.0
        self.sums = [torch.zeros_like(p) for p in parameters]
        self.square_sums = [torch.zeros_like(p) for p in parameters]

    def add(self) -> None:
        """Take the gradients of now."""
        found = [p.grad for p in self.parameters]
        torch._foreach_add_(self.sums, found)
        squared = torch._foreach_mul(found, found)
        torch._foreach_add_(self.square_sums, squared)
        self.squares += sum(float(s.sum()) for s in squared)
        self.count += 1

    def summary(self) -> tuple[float, float, float]:
        """‖ḡ‖², the mean of ‖g‖², and the evidence criterion 1 − (1/D) Σ_k ḡ_k² / (s_k² / n) of n batches.

        Reference: Mahsereci, Balles, Lassner and Hennig, Early Stopping without a Validation Set (2017), equation 13.
        """
        n = self.count
        if n < 2:
            return math.nan, math.nan, math.nan
        means = torch.cat([s.flatten() for s in self.sums]) / n
        variances = (torch.cat([s.flatten() for s in self.square_sums]) / n - means**2).clamp_min(0) * (n / (n - 1))
        used = variances > 0
        evidence = 1 - float((means[used] ** 2 * n / variances[used]).mean()) if bool(used.any()) else math.nan
        return float((means**2).sum()), self.squares / n, evidence


class LayerTrace:
    """Norms and inner products of one layer's matrix over the epochs."""

    def __init__(self, w: torch.Tensor, fits: bool = False) -> None:
        self.fits = fits
        self.first = self.previous = w.detach().clone().flatten(1).double()
        self.rows: list[tuple[float, ...]] = []

    def add(self, parameter: torch.Tensor) -> None:
        """Take the next snapshot."""
        w = parameter.detach().flatten(1).double()
        d, u = w - self.first, w - self.previous
        before = self.previous - self.first
        spectrum = (math.nan, math.nan, math.nan)
        if min(w.shape) <= 96 and bool(torch.isfinite(w).all()):
            gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
            s = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
            p = s[s > 0] / s.sum()
            alpha = fit_power_law((s * s).numpy()).alpha if self.fits and len(s) >= 10 else math.nan
            spectrum = (float(s[-1]), float(torch.exp(-(p * p.log()).sum())), alpha)
        norm = lambda a: float(a.norm())  # noqa: E731
        self.rows.append((norm(w), norm(d), norm(u), float((u * before).sum()), *spectrum))
        self.previous = w.clone()


def train(run: Run) -> Arrays:
    """The trajectory of a run: one row an epoch, the first before training."""
    domain = DOMAINS[run.domain]
    rng = np.random.default_rng([run.seed, 7])
    x, y, test_x, test_y = domain.load(run.size, rng)
    y = _noisy(run, y, rng)
    extra = min(max(1, len(x) // 10), len(test_x) // 3)
    extra_x, test_x = test_x[:extra], test_x[extra:]
    extra_y, test_y = _noisy(run, test_y[:extra], np.random.default_rng([run.seed, 11])), test_y[extra:]
    held = max(1, len(x) // 10) if run.held_out else 0
    order = torch.from_numpy(rng.permutation(len(x)))
    val_x, val_y, x, y = x[order[:held]], y[order[:held]], x[order[held:]], y[order[held:]]
    torch.manual_seed(run.seed)
    model = build(run.domain, run.width, run.dropout, run.seed)
    torch.manual_seed(run.seed + 1)
    generator = torch.Generator().manual_seed(run.seed)
    parameters = list(model.parameters())
    if run.optimizer == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=run.rate, momentum=0.9)
    else:
        kind = torch.optim.AdamW if run.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(parameters, lr=run.rate, weight_decay=run.weight_decay, foreach=True)
    layers = {
        n: LayerTrace(p, not run.held_out) for n, p in model.named_parameters() if p.dim() >= 2 and n != "position"
    }
    steps = math.ceil(len(x) / run.batch)
    averages = [Average(model, h * steps) for h in HORIZONS]
    rows: dict[str, list] = {}

    def note(**values: object) -> None:
        for key, value in values.items():
            rows.setdefault(key, []).append(value)

    def snapshot() -> None:
        for name, p in model.named_parameters():
            if name in layers:
                layers[name].add(p)
        seen = [(*_evaluate(model, domain.task, val_x, val_y), *_evaluate(model, domain.task, test_x, test_y))]
        for average in averages:
            average.swap()
            seen.append((*_evaluate(model, domain.task, val_x, val_y), *_evaluate(model, domain.task, test_x, test_y)))
            average.swap()
        extra_seen = [_evaluate(model, domain.task, extra_x, extra_y)]
        averages[0].swap()
        extra_seen.append(_evaluate(model, domain.task, extra_x, extra_y))
        averages[0].swap()
        note(truth=np.array(seen), extra=np.array(extra_seen))

    snapshot()
    missing = np.full(3, math.nan)
    note(loss=math.nan, accuracy=math.nan, rate=run.rate, parts=np.full(PARTS, math.nan), own=math.nan, root=math.nan,
         gradients=missing, head=missing, spread=math.nan, apart=missing[:2])  # fmt: skip
    first_loss, step, total = math.nan, 0, run.epochs * steps
    for _epoch in range(run.epochs):
        losses, hits, own = [], [], []
        whole, head = Gradients(parameters), Gradients(parameters[-2:])
        sampled = set(np.linspace(0, steps - 1, min(8, steps)).astype(int).tolist())
        for k, batch in enumerate(torch.randperm(len(x), generator=generator).split(run.batch)):
            rate = run.rate * (0.5 * (1 + math.cos(math.pi * step / total)) if run.cosine else 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rate
            inputs = _shifted(x[batch], generator) if domain.augment else x[batch]
            scores = model(inputs)
            loss = _loss(domain.task, scores, y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for average in averages:
                average.step()
            losses.append(loss.detach())
            hits.append(_accuracy(domain.task, scores.detach(), y[batch]))
            if k in sampled:
                whole.add()
                head.add()
                squares = torch._foreach_mul([p.grad for p in parameters], [p.grad for p in parameters])
                if run.optimizer == "sgd":
                    own.append(10 * rate * sum(float(s.sum()) for s in squares))
                else:
                    t = step + 1
                    roots = [(optimizer.state[p]["exp_avg_sq"] / (1 - 0.999**t)).sqrt() for p in parameters]
                    own.append(rate * sum(float((s / (r + 1e-8)).sum()) for s, r in zip(squares, roots, strict=True)))
            step += 1
        lost, hit = torch.stack(losses).double().numpy(), torch.stack(hits).double().numpy()
        if math.isnan(first_loss):
            first_loss = float(lost[0])
        parts, spread = np.full(PARTS, math.nan), float(lost.std())
        if len(lost) >= PARTS:
            pieces = np.array_split(lost, PARTS)
            parts = np.array([p.mean() for p in pieces])
            if len(lost) >= 2 * PARTS:
                within = sum(float(((p - p.mean()) ** 2).sum()) for p in pieces)
                spread = math.sqrt(within / (len(lost) - PARTS))
        root = math.nan
        if run.optimizer != "sgd":
            root = sum(float(optimizer.state[p]["exp_avg_sq"].sqrt().sum()) for p in parameters)
        with torch.no_grad():
            apart = [math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(parameters, m.values, strict=False)))
                     for m in averages]  # fmt: skip
        note(loss=lost.mean(), accuracy=hit.mean(), rate=rate, parts=parts, own=float(np.mean(own)), root=root,
             gradients=np.array(whole.summary()), head=np.array(head.summary()), spread=spread,
             apart=np.array(apart))  # fmt: skip
        snapshot()
        if not math.isfinite(lost[-1]):
            break
    arrays = {k: np.asarray(v, dtype=np.float32) for k, v in rows.items()}
    arrays["layers"] = np.array([t.rows for t in layers.values()], dtype=np.float32)
    arrays["scalars"] = np.array([first_loss, steps, len(test_x), held], dtype=np.float64)
    arrays["names"] = np.array(list(layers))
    return arrays


def kept(run: Run) -> Path:
    """Where the trajectory of a run lies, or would."""
    return CACHE / f"{run.key}{'-held' if run.held_out else ''}.npz"


def trajectory(run: Run) -> Arrays:
    """The run's trajectory, trained where it is missing or was made with other settings."""
    path, settings = kept(run), json.dumps(run.as_dict(), sort_keys=True)
    if path.exists():
        with np.load(path) as file:
            if str(file["settings"]) == settings:
                return {k: file[k] for k in file.files if k not in ("settings", "seconds")}
    start = time.perf_counter()
    arrays = train(run)
    CACHE.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part.npz")
    np.savez_compressed(part, settings=settings, seconds=time.perf_counter() - start, **arrays)
    part.replace(path)
    return arrays


def main(seeds: int, share: int = 0, shares: int = 1, families: Sequence[str] = ()) -> None:
    """Train all that is missing; ``share`` of ``shares`` in this process."""
    torch.set_num_threads(1)
    for number, run in enumerate(all_runs(seeds)):
        if number % shares == share and (not families or run.family in families):
            for held_out in (False, True):
                trajectory(replace(run, held_out=held_out))


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--share", type=int, default=0)
    parser.add_argument("--shares", type=int, default=1)
    options = parser.parse_args()
    main(options.seeds, options.share, options.shares)
