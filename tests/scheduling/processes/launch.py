"""Starts a helper program as several gloo processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[3]


def torchrun(module: str, folder: Path, processes: int = 2) -> str:
    """Run ``module`` with ``folder`` as its argument on the CPU; what the processes wrote to standard error."""
    return _run(["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)], module, folder)


def accelerate_launch(module: str, folder: Path, processes: int = 2) -> str:
    """The same by ``accelerate launch``; without MPI its launcher for several GPUs starts processes on the CPU, too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    command = ["accelerate.commands.launch", *options, "--dynamo_backend", "no", "--main_process_port", str(port)]
    return _run(command, module, folder)


def _run(command: list[str], module: str, folder: Path) -> str:
    on_cpu = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "1"}
    run = subprocess.Popen(
        [sys.executable, "-m", *command, "-m", module, str(folder)],
        cwd=ROOT,
        env={**os.environ, **on_cpu},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        return run.communicate(timeout=280)[1]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)  # torchrun leaves its workers behind when it is killed
