"""The engine on a GPU: layers of GPT-2-small's to a 7B model's shapes, on the device against the host.

    python -m benchmarks.gpu --json benchmarks/results/gpu.json

Without a CUDA device it says so and writes no figures.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import _report
from ww_callbacks.engine.accelerator import HostCopies, tensor_digest
from ww_callbacks.spectral.linalg.spectrum import gram_singular_values

SHAPES = {
    "small": [(128, 768)],
    "gpt2": [(768, 768), (2304, 768), (3072, 768)],
    "1b": [(2048, 2048), (8192, 2048)],
    "7b": [(4096, 4096), (11008, 4096)],
}


def seconds(function: Callable[[], object], rounds: int) -> float:
    """The fastest of ``rounds`` calls, the device waited for."""
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        began = time.perf_counter()
        function()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best


def row(model: str, shape: tuple[int, int], rounds: int) -> dict[str, object]:
    """One shape: its spectrum here and there, the difference, the fingerprint, and a copy during training."""
    weight = torch.randn(shape, device="cuda") * 0.02
    host, copies = weight.cpu().numpy(), HostCopies()
    on_device, on_host = gram_singular_values(weight), gram_singular_values(host)

    def queue() -> None:
        copies.take("w", [weight])

    queue()
    copies.wait()
    began = time.perf_counter()
    queue()
    queued = time.perf_counter() - began
    copies.wait()
    return {
        "model": model,
        "shape": list(shape),
        "device_seconds": seconds(lambda: gram_singular_values(weight), rounds),
        "host_seconds": seconds(lambda: gram_singular_values(host), 1),
        "largest_relative_difference": float(abs(on_device / on_host - 1.0).max()),
        "fingerprint_seconds": seconds(lambda: tensor_digest(weight), rounds),
        "queued_copy_seconds": queued,
    }


def main() -> None:
    """Measure every shape, print, write."""
    parser = _report.arguments(__doc__)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: there is no CUDA device here")
        _report.write(args.json, {"skipped": "there is no CUDA device here"}, [], {})
        return
    rows = [row(model, shape, args.rounds) for model in args.models for shape in SHAPES[model]]
    for one in rows:
        print(one, file=sys.stderr)
    figures = {
        f"host_over_device_{model}": sum(float(r["host_seconds"]) for r in rows if r["model"] == model)  # type: ignore[arg-type]
        / sum(float(r["device_seconds"]) for r in rows if r["model"] == model)  # type: ignore[arg-type]
        for model in args.models
    }
    figures["largest_relative_difference"] = max(float(r["largest_relative_difference"]) for r in rows)  # type: ignore[arg-type]
    settings = {"device": torch.cuda.get_device_name(), "rounds": args.rounds, "models": args.models}
    _report.write(args.json, settings, rows, figures)


if __name__ == "__main__":
    main()
