"""Check that the lowest and the newest versions that pyproject.toml admits really work together.

Each extra is installed alone, in a fresh environment, at its lowest direct versions and at its newest, on Python 3.11;
the base also on the other Pythons that are found. In each environment one small job of that extra runs. It downloads
several gigabytes and takes about a quarter of an hour, so CI does not run it: run it after a change of a dependency.

    python .ci/floors.py                     # everything
    python .ci/floors.py --extras wandb onnx --resolution lowest-direct

It needs uv (``pip install uv``) and, for ``figures``, Chrome or Chromium.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECKS = Path(__file__).with_name("floor_checks.py")
EXTRAS = (
    "base",
    "lightning",
    "keras",
    "huggingface",
    "tensorboard",
    "wandb",
    "figures",
    "onnx",
    "gguf",
    "h5",
    "parquet",
    "probes",
)
ALSO = {"keras": ["jax>=0.4.30"], "tensorboard": ["torch>=2.4"]}
"""What an extra leaves to the user: Keras's backend, the torch whose SummaryWriter writes beside our values."""
PYTHONS = ("3.11", "3.12", "3.13")


def check(extra: str, resolution: str, python: str, folder: Path) -> str:
    """Install ``extra`` and run its job; an empty text, or what went wrong."""
    target = str(ROOT) if extra == "base" else f"{ROOT}[{extra}]"
    environment = folder / f"{extra}-{resolution}-{python}"
    interpreter = environment / "bin" / "python"
    commands = [
        ["uv", "venv", "--quiet", "--python", python, str(environment)],
        [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--python",
            str(interpreter),
            "--resolution",
            resolution,
            target,
            *ALSO.get(extra, []),
        ],
        [str(interpreter), str(CHECKS), extra],
    ]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "UV_PYTHON_DOWNLOADS": "never"
    }
    for command in commands:
        done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)
        if done.returncode:
            return f"{' '.join(command[:3])} … failed:\n{(done.stdout + done.stderr)[-1500:]}"
    return ""


def main() -> int:
    """Run the checks that the command line names; the exit code is the number of failures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extras", nargs="+", choices=EXTRAS, default=EXTRAS)
    parser.add_argument(
        "--resolution", nargs="+", choices=("lowest-direct", "highest"), default=("lowest-direct", "highest")
    )
    parser.add_argument("--python", nargs="+", default=PYTHONS, help="versions or paths; extras use the first")
    arguments = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for extra in arguments.extras:
            for resolution in arguments.resolution:
                for python in arguments.python if extra == "base" else arguments.python[:1]:
                    wrong = check(extra, resolution, python, Path(folder))
                    failures += bool(wrong)
                    print(f"{extra:12} {resolution:14} {python:5} {wrong if wrong else 'ok'}", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main())
