"""What the doctests and the tests of all packages share."""

import os
import sys
from pathlib import Path

# Keras takes TensorFlow unless told otherwise; a test of another backend runs in a process of its own.
os.environ.setdefault("KERAS_BACKEND", "torch")

# TensorFlow takes seconds to import, and TensorBoard's readers and Keras's `set_random_seed` do so wherever it is
# installed: here it is not. That we never import it ourselves is tested in processes of their own.
if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]

# Tests start programs of the package `tests` in processes of their own, from any working directory.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
