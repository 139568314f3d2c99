"""Which backend Keras has and lacks; the tests of this folder on the backends that need a process of their own."""

import os
import subprocess
import sys

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
            "KERAS_BACKEND is not set, so Keras takes `tensorflow`, which is not installed: set KERAS",
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
