"""Memory at the start of a run and in a snapshot, each case in a separate process.

``python -m benchmarks._large_memory CASE`` prints the case's numbers as JSON. Memory is the process's own (anonymous
pages, sampled every millisecond) above what it had before; pages of mapped files are the system's to take back.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

EXPERTS = 64


class Peak:
    """The peak memory of this process in the context, above that on entering."""

    def __enter__(self) -> Peak:
        self._before, self._most, self._ended = _own(), 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.bytes = max(self._most, _own()) - self._before

    def _watch(self) -> None:
        while not self._ended.wait(0.001):
            self._most = max(self._most, _own())


def _own() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status tells no RssAnon: this benchmark needs Linux")


def moe_start() -> dict[str, Any]:
    """A run's start with 64 fused experts in bfloat16, 48 MB: W_0 is taken and the first snapshot measured."""
    import torch
    from torch import nn

    from ww_callbacks import SpectralMonitor

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_up_proj = nn.Parameter(torch.randn(EXPERTS, 1024, 256, dtype=torch.bfloat16) / 16)
            self.down_proj = nn.Parameter(torch.randn(EXPERTS, 256, 512, dtype=torch.bfloat16) / 16)

    model = Experts()
    weights = sum(p.nbytes for p in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        _warm(folder)
        began = time.perf_counter()
        with Peak() as peak:
            monitor = SpectralMonitor(model, log_dir=f"{folder}/run", verbose=0)
            monitor.observe(step=1, epoch=1.0)
        seconds = time.perf_counter() - began
        monitor.close()
        stored = sum(path.stat().st_size for path in Path(folder).rglob("run/**/w0*.safetensors"))
    return {"weights": weights, "peak": peak.bytes, "w0": stored, "seconds": seconds}


def _warm(folder: str) -> None:
    """What any first run loads is no memory of this one's."""
    from torch import nn

    from ww_callbacks import SpectralMonitor

    monitor = SpectralMonitor(nn.Linear(64, 64), log_dir=f"{folder}/warm", verbose=0)
    monitor.observe(step=1, epoch=1.0)
    monitor.close()


def fused() -> dict[str, Any]:
    """The seconds that a file's bfloat16 experts take, fused in one tensor and each in its own."""
    import numpy as np
    import safetensors.torch
    import torch

    from ww_callbacks import spectral

    torch.manual_seed(0)
    experts = torch.randn(EXPERTS, 256, 512).bfloat16()
    seconds: dict[str, list[float]] = {"fused": [], "separate": []}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: f"{folder}/{name}.safetensors" for name in seconds}
        safetensors.torch.save_file({"mlp.experts.down_proj": experts}, paths["fused"])
        one_each = {f"mlp.experts.{i}.down_proj.weight": e.clone() for i, e in enumerate(experts)}
        safetensors.torch.save_file(one_each, paths["separate"])
        found = {}
        for _ in range(4):
            for name, path in paths.items():
                began = time.perf_counter()
                found[name] = spectral.analyze(path, "stable_rank", workers=1)
                seconds[name].append(time.perf_counter() - began)
        with Peak() as peak:
            spectral.analyze(paths["fused"], "stable_rank", workers=1)
    a, b = (np.sort(found[name].layers["stable_rank"]) for name in seconds)
    assert np.array_equal(a, b), "the same experts, the same values"
    return {"weights": experts.nbytes, "peak": peak.bytes, **{name: min(s) for name, s in seconds.items()}}


def snapshot(rows: int, columns: int, dtype: str, transposed: bool = False) -> dict[str, Any]:
    """The second snapshot of one layer, with W_0 and the weights before to compare with, by one worker."""
    import torch
    from torch import nn

    from ww_callbacks import SpectralMonitor

    class Experts(nn.Module):
        """One of a stack that is stored (in, out), so that it is copied into C order."""

        is_transposed = True

        def __init__(self) -> None:
            super().__init__()
            self.down_proj = nn.Parameter(torch.randn(1, columns, rows) / columns**0.5)

    torch.manual_seed(0)
    model = (Experts() if transposed else nn.Linear(columns, rows, bias=False)).to(getattr(torch, dtype))
    with tempfile.TemporaryDirectory() as folder:
        _warm(folder)
        monitor = SpectralMonitor(model, log_dir=f"{folder}/run", verbose=0, workers=1)
        monitor.observe(step=1, epoch=1.0)
        with torch.no_grad():
            for weight in model.parameters():
                weight *= 1.01
        with Peak() as peak:
            monitor.observe(step=2, epoch=2.0)
        monitor.close()
    return {"matrix": 8 * rows * columns, "peak": peak.bytes}


CASES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "moe_start": moe_start,
    "fused": fused,
    # Above 32 MB, where the allocator gives back what is freed.
    "snapshot_float32_3072": lambda: snapshot(3072, 3072, "float32"),
    "snapshot_bfloat16_3072": lambda: snapshot(3072, 3072, "bfloat16"),
    "snapshot_bfloat16_3072_transposed": lambda: snapshot(3072, 3072, "bfloat16", transposed=True),
    "snapshot_bfloat16_10240x1024": lambda: snapshot(10240, 1024, "bfloat16"),
}


def measure() -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The rows and figures of all cases."""
    rows = {name: {"part": "memory", "case": name, **_apart(name)} for name in CASES}
    moe, both = rows["moe_start"], rows["fused"]
    return list(rows.values()), {
        "moe_start_peak_over_weights": moe["peak"] / moe["weights"],
        "w0_bytes_over_weights": moe["w0"] / moe["weights"],
        "fused_over_separate": both["fused"] / both["separate"],
        "snapshot_peak_copies": max(row["peak"] / row["matrix"] for row in rows.values() if "matrix" in row),
    }


def _apart(case: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks._large_memory", case]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[1]]()))
