"""Files of weights that packages carry: how many are read, and whether their rows are the weights and nothing else.

``reviewed_files.json`` says of every file, checked by hand against all arrays that the format's own library finds in
it, which of them are weights and which with two axes or more are none (biases kept as rows, tables of positions). Among
the weights it names those that are fixed, not learned, which no file tells (a Fourier transform kept as a convolution).
A row is wrong if it is of another array, if it is missing, or if the rows of an array do not have its Frobenius norm as
the format's own library reads it. Figures:

- ``files_tried``, ``files_read``: files that the packages hold; those that are not refused.
- ``rows``, ``rows_wrong``: rows that are measured; wrong ones.
- ``rows_not_learned``: rows of fixed transforms, which are among the measured ones.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _report
from ww_callbacks.spectral.layers import inspect

HERE = Path(__file__).parent
REVIEWED = HERE / "reviewed_files.json"
SUFFIXES = (".onnx", ".pt", ".pth", ".pth.tar", ".jit", ".ckpt", ".safetensors", ".h5", ".keras", ".gguf")


def main() -> None:
    """Run, print, and write the JSON if asked."""
    parser = _report.arguments(__doc__)
    parser.add_argument("--packages", type=Path, metavar="FOLDER", help="where they are, or are to be kept")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.packages or Path(temporary)
        if not folder.is_dir() or not any(folder.iterdir()):
            install(folder)
        reviewed = json.loads(REVIEWED.read_text())
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name.endswith(SUFFIXES)]
        rows = [look(path, str(path.relative_to(folder)), reviewed) for path in paths]
    figures = {
        "files_tried": len(rows),
        "files_read": sum(row["refused"] == "" for row in rows),
        **{name: sum(row[name] for row in rows) for name in ("rows", "rows_wrong", "rows_not_learned")},
    }
    packages = list(_requirements(HERE / "requirements-files.txt"))
    _report.write(asked.json, {"packages": packages}, rows, figures)


def install(folder: Path) -> None:
    """Put the packages into ``folder``, without their dependencies."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, "-r", str(HERE / "requirements-files.txt")], check=True)


def _requirements(path: Path) -> Iterator[str]:
    for line in path.read_text().splitlines():
        if line.startswith("-r "):
            yield from _requirements(path.with_name(line[3:]))
        elif line and not line.startswith("#"):
            yield line


def look(path: Path, name: str, reviewed: Mapping[str, Any]) -> dict[str, Any]:
    """One file: whether it is read, and which of its rows are wrong."""
    row: dict[str, Any] = {"file": name, "bytes": path.stat().st_size, "refused": "", "rows": 0, "rows_wrong": 0}
    row |= {"rows_not_learned": 0, "wrong": [], "seconds": 0.0}
    begun = time.perf_counter()
    try:
        specs = [spec for spec in inspect(path) if not spec.skipped]
    except (ValueError, ImportError) as error:
        return row | {"refused": str(error).replace(str(path), path.name)}
    row["seconds"] = time.perf_counter() - begun
    expected, squares = reviewed.get(name, {"weights": [], "fixed": []}), defaultdict(float)
    for spec in specs:
        squares[spec.parameters] += sum(float(np.sum(np.asarray(m, np.float64) ** 2)) for m in spec.matrices())
    weights, raw = set(expected["weights"]), arrays(path)
    wrong = {spec.name for spec in specs if spec.parameters[0] not in weights}
    wrong |= {f"missing: {w}" for w in weights - {parameter for spec in specs for parameter in spec.parameters}}
    for parameters, square in squares.items():
        array = parameters[0]
        read = next((raw[key] for key in raw if key == array or key.endswith(f".{array}")), None)
        if len(parameters) == 1:  # several make one together, as values and their scale
            there = math.nan if read is None else float(np.linalg.norm(read().astype(np.float64)))
            if not math.isclose(math.sqrt(square), there, rel_tol=1e-4, abs_tol=1e-12):
                wrong.add(f"norm: {array}")
    fixed = sum(spec.parameters[0] in expected["fixed"] for spec in specs)
    return row | {"rows": len(specs), "rows_wrong": len(wrong), "rows_not_learned": fixed, "wrong": sorted(wrong)}


def arrays(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """What a file holds, by the format's own library: name → what reads it."""
    if path.suffix == ".onnx":
        return dict(_onnx(path))
    if path.suffix == ".h5":
        return dict(_hdf5(path))
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return {name: lambda a=array: a for name, array in load_file(path).items()}
    import torch

    if path.suffix == ".jit":  # named here as our rows are
        state = torch.jit.load(path, map_location="cpu").state_dict()
        return dict(_tensors({name.replace(".", "/"): value for name, value in state.items()}))
    return dict(_tensors(torch.load(path, map_location="cpu", weights_only=False)))


def _onnx(path: Path) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    waiting = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        held = [(tensor.name, tensor) for tensor in getattr(graph, "initializer", ())]
        for node in graph.node:
            held += [(node.output[0], a.t) for a in node.attribute if node.op_type == "Constant" and a.HasField("t")]
            waiting += [a.g for a in node.attribute if a.HasField("g")]
        for name, tensor in held:
            yield name, lambda t=tensor: numpy_helper.to_array(t)


def _hdf5(path: Path) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    import h5py

    with h5py.File(path) as file:
        found: list[tuple[str, np.ndarray]] = []
        file.visititems(lambda name, item: found.append((name, item[()])) if hasattr(item, "shape") else None)
    for name, array in found:
        bare = name.removesuffix(":0").removeprefix("model_weights/").partition("/")[2]
        yield bare, lambda a=array: a


def _tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    if hasattr(value, "detach"):
        yield prefix, lambda: value.detach().float().numpy()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors(inner, f"{prefix}.{key}".lstrip("."))


if __name__ == "__main__":
    main()
