"""What the doctests and the tests of all packages share."""

import os
from pathlib import Path

# Keras takes TensorFlow unless told otherwise, and it is not installed; a test of another backend runs in a process
# of its own.
os.environ.setdefault("KERAS_BACKEND", "torch")

# Tests start programs of the package `tests` in processes of their own, from any working directory.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
