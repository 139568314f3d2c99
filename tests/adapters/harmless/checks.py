"""What a run leaves behind for its user, with our callback and without it: the two must be the same.

A row of the matrix is a function ``case(folder, watch)``: it trains from a fixed seed with whatever the framework logs
written below ``folder``, with the callback that ``watch(folder)`` makes, or without one where ``watch`` is None, and
returns an :class:`Outcome`. Each framework has its rows in ``harmless_<framework>.py``, in the dictionary ``CASES``.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Watch = Callable[[Path], Any] | None
Case = Callable[[Path, Watch], "Outcome"]
OURS = "spectral"


@dataclass
class Outcome:
    """What is compared.

    Attributes:
        weights: every parameter and buffer at the end, optimiser states too.
        logged: logger → what the user has logged there, in order: (step, name, value), ours left out.
        results: whatever else the user gets: scores, best checkpoints, metrics, counters.
        ended: how the run ended: the exception's type and text, or an empty text.
        process: see :func:`process_state`.
    """

    weights: dict[str, np.ndarray]
    logged: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    ended: str = ""
    process: dict[str, Any] = field(default_factory=dict)


def assert_same(bare: Outcome, watched: Outcome) -> None:
    """Every value is bit-for-bit the same."""
    assert bare.weights.keys() == watched.weights.keys() and bare.weights
    for name, value in bare.weights.items():
        assert value.dtype == watched.weights[name].dtype, name
        assert value.tobytes() == watched.weights[name].tobytes(), name
    assert bare.logged.keys() == watched.logged.keys()
    for logger, rows in bare.logged.items():
        assert rows, f"{logger}: the case logs nothing, so it shows nothing"
        # `repr`: NaN is itself, and types count.
        differ = [pair for pair in zip(rows, watched.logged[logger], strict=False) if repr(pair[0]) != repr(pair[1])]
        assert repr(rows) == repr(watched.logged[logger]), (logger, differ[:3])
    assert repr(bare.results) == repr(watched.results)
    assert bare.ended == watched.ended
    for name, state in bare.process.items():
        assert state == watched.process[name], name


def process_state() -> dict[str, Any]:
    """What a library must leave alone in its user's process: random states, and what is set for all."""
    found: dict[str, Any] = {
        "random": random.getstate(),
        "numpy random": repr(np.random.get_state()),
        "numpy errors": np.geterr(),
        # W&B's and pytest's change by themselves; `threadpoolctl`, which scikit-learn imports too, sets the last.
        "environment": {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "PYTEST", "TF_", "KMP_"))},
        "folder": os.getcwd(),
        "signals": {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)},
        "stdout": (sys.stdout.write.__qualname__, sys.excepthook),
    }
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "nn"):
        from torch.nn.modules import module
        from torch.optim import optimizer

        found |= {
            "torch random": torch.get_rng_state().tolist(),
            "torch gradients": torch.is_grad_enabled(),
            "torch threads": torch.get_num_threads(),
            "torch type": torch.get_default_dtype(),
            "torch hooks": [
                len(hooks)
                for hooks in (
                    module._global_forward_hooks,
                    module._global_forward_pre_hooks,
                    module._global_backward_hooks,
                    optimizer._global_optimizer_pre_hooks,
                    optimizer._global_optimizer_post_hooks,
                )
            ],
        }
        for device in range(torch.cuda.device_count()):
            found[f"cuda:{device} random"] = torch.cuda.get_rng_state(device).tolist()
    return found


def torch_weights(model: Any, optimizers: Any = ()) -> dict[str, np.ndarray]:
    """Every tensor of a torch module and of its optimisers' states."""
    found = {name: tensor.detach().cpu().numpy().copy() for name, tensor in model.state_dict().items()}
    for i, optimizer in enumerate(optimizers):
        for j, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                found[f"optimiser {i}, {j}: {name}"] = np.array(value.detach() if hasattr(value, "detach") else value)
    return found


def torch_attributes(model: Any) -> list[Any]:
    """What hangs on the modules of ``model``: attributes and hooks."""
    return [
        (name, sorted(vars(m)), [len(v) for k, v in sorted(vars(m).items()) if k.endswith("_hooks")], m.training)
        for name, m in model.named_modules()
    ]


def csv_rows(path: Path) -> list[tuple[Any, ...]]:
    """The rows of a CSV file with a column ``step``."""
    found: list[tuple[Any, ...]] = []
    with path.open() as file:
        for row in csv.DictReader(file):
            step = row.pop("step")
            found += [(step, name, value) for name, value in sorted(row.items()) if value and not _ours(name)]
    return found


def tensorboard_rows(folder: Path) -> list[tuple[Any, ...]]:
    """The values in all event files of ``folder``, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "histograms": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    found: list[tuple[Any, ...]] = []
    for tag in sorted(tags["scalars"]):
        found += [(e.step, tag, e.value) for e in events.Scalars(tag) if not _ours(tag)]
    for tag in sorted(tags["tensors"]):
        found += [(e.step, tag, e.tensor_proto.SerializeToString()) for e in events.Tensors(tag) if not _ours(tag)]
    return found


def wandb_rows(folder: Path) -> list[tuple[Any, ...]]:
    """The rows of the only W&B run below ``folder``, which is finished, and its summary and configuration."""
    (run,) = folder.glob("**/offline-run-*")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", run]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found: list[tuple[Any, ...]] = []
    # Lightning asks W&B to fill in its axis in every row, and a row of ours at the end is one.
    filled = {"_step", "_runtime", "_timestamp", "_wandb.runtime", "trainer/global_step"}
    summary: dict[str, Any] = {}
    for row in map(json.loads, lines):
        if row["type"] == "history":
            values = {k: v for k, v in row["history"]["item"].items() if not _ours(k)}
            if values.keys() - filled:
                step = values["_step"]
                found += [(step, k, v) for k, v in sorted(values.items()) if k not in ("_runtime", "_timestamp")]
        elif row["type"] == "summary":
            summary |= {k: v for k, v in row["summary"]["update"].items() if not _ours(k) and k not in filled}
    return [*found, ("summary", *sorted(summary.items()))]


def _ours(name: str) -> bool:
    return name.startswith((OURS, "custom_scalars__"))


def plain_results(values: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as floats, ours left out."""
    return {name: float(value) for name, value in sorted(values.items()) if not _ours(name)}


def ended_by(action: Callable[[], object]) -> str:
    """How ``action`` ended: the exception's type and text; empty if it returned."""
    try:
        action()
    except BaseException as error:
        return f"{type(error).__module__}.{type(error).__name__}: {error}"
    return ""
