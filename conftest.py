"""What the doctests and the tests of all packages share."""

import os

# Keras takes TensorFlow unless told otherwise, and it is not installed; a test of another backend runs in a process
# of its own.
os.environ.setdefault("KERAS_BACKEND", "torch")
