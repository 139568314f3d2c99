"""What the doctests and the tests of all packages share."""

import os
import sys
from pathlib import Path

# Keras takes TensorFlow unless told otherwise; a test of another backend runs in a process of its own.
os.environ.setdefault("KERAS_BACKEND", "torch")

# TensorBoard's readers import TensorFlow where it is installed, for seconds; this name is TensorBoard's own switch.
# The tests that our writers never do so run in processes of their own.
if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules.setdefault("tensorboard.compat.notf", sys)

# Tests start programs of the package `tests` in processes of their own, from any working directory.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
