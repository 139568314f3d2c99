"""Which backend Keras has and lacks; the tests of this folder on the backends that need a process of their own."""

import os
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

pytest.importorskip("keras", reason="needs the extra keras")

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, *more):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
import ww_callbacks.keras
"""


@pytest.mark.parametrize(
    ("hidden", "backend", "said"),
    [
        (["keras"], "torch", 'pip install "ww-callbacks[keras]" and one of tensorflow, torch, jax.'),
        (
            ["tensorflow"],
            None,
            "KERAS_BACKEND is not set, so Keras uses `tensorflow`, which is not installed: set KERAS",
        ),
        (
            ["jax", "tensorflow"],
            "jax",
            "KERAS_BACKEND=jax asks for the backend `jax`, which is not installed: set KERAS_B",
        ),
        (
            ["tensorflow", "torch", "jax"],
            None,
            "install another (torch, jax) and set KERAS_BACKEND to it, or pip install",
        ),
    ],
)
def test_a_missing_backend_is_named_with_the_way_to_another(tmp_path, hidden, backend, said):
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"} | {"KERAS_HOME": str(tmp_path)}
    environment |= {"KERAS_BACKEND": backend} if backend else {}
    program = [sys.executable, "-c", HIDE.format(hidden=set(hidden))]
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert said in done.stderr.splitlines()[-1]


RUN = """
import sys
import keras, numpy, pytest
from ww_callbacks.keras import SpectralCallback

# Before pytest's own configuration hides TensorFlow: what is merely installed beside the backend is not imported.
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
model.compile("sgd", "mse")
callback = SpectralCallback(log_dir=sys.argv[2], verbose=0)
model.fit(numpy.zeros((8, 4)), numpy.zeros((8, 3)), verbose=0, callbacks=[callback])
assert list(callback.directory.glob("events.out.tfevents.*"))
code = pytest.main([*sys.argv[3:], "-q", "-p", "no:cacheprovider", "--durations=5"])
# TensorFlow itself imports jax.
others = {name for name in {"tensorflow", "torch"} - {sys.argv[1]} if sys.modules.get(name) is not None}
assert not others, f"{others} imported on {sys.argv[1]}"
sys.exit(code)
"""
FILES = sorted(str(p) for p in Path(__file__).parent.glob("test_*.py") if p.name != Path(__file__).name)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The tests of this folder on the backends that this process does not have, side by side."""
    folder = tmp_path_factory.mktemp("backends")
    return {
        backend: subprocess.Popen(
            [sys.executable, "-c", RUN, backend, str(folder / backend), *FILES],
            env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for backend in ("jax", "tensorflow")
        if PathFinder.find_spec(backend) is not None
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["jax", "tensorflow"])
def test_the_same_on(backend, running):
    if backend not in running:
        pytest.skip(f"needs {backend}")
    output, _ = running[backend].communicate(timeout=550)
    assert running[backend].returncode == 0, output[-5000:]
