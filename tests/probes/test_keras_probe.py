"""The representation probe on Keras models; on torch in this process, on jax in another."""

import os
import subprocess
import sys

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs the extra keras")

from ww_callbacks.probes.representation import RepresentationProbe


def network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(6, 3),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=1),
            keras.layers.Flatten(),
            keras.layers.Dense(12),
            keras.layers.Dense(3),
        ]
    )


def batch():
    return np.random.default_rng(0).standard_normal((20, 8, 8, 1)).astype("float32")


def the_probe_reads_a_keras_model():
    model = network()
    before = [keras.ops.convert_to_numpy(w).copy() for w in model.weights]
    probe = RepresentationProbe(batch())
    probe.validate(model)
    found = probe.observe(model)
    paths = [w.path for w in model.weights]
    assert [p.rpartition("/")[2] for p in list(found)[:-1]] == ["kernel"] * 3 and set(list(found)[:-1]) <= set(paths)
    assert [found[p]["feature_rank"] for p in list(found)[:-1]] == [6, 12, 3]
    output = keras.ops.convert_to_numpy(model(batch(), training=False)).astype(float)
    sigma = np.linalg.svd(output - output.mean(0), compute_uv=False)
    p = sigma / sigma.sum()
    assert found[list(found)[2]]["feature_effective_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)
    assert all(np.array_equal(keras.ops.convert_to_numpy(w), b) for w, b in zip(model.weights, before, strict=True))


def test_features_of_a_keras_model():
    the_probe_reads_a_keras_model()


def test_features_on_the_jax_backend():
    pytest.importorskip("jax", reason="needs jax")
    code = "from tests.probes.test_keras_probe import the_probe_reads_a_keras_model as go; go()"
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; assert 'torch' not in sys.modules"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=os.path.dirname(os.path.abspath(__file__)) + "/../../..",
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_a_keras_model_does_not_give_is_refused():
    with pytest.raises(TypeError, match="of Keras models only the features' ranks"):
        RepresentationProbe(batch(), quantities=["jacobian_rank"]).validate(network())

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(keras.ops.reshape(x, (-1, 64)))

    model = Subclassed()
    model(batch())
    with pytest.raises(ValueError, match="is subclassed"):
        RepresentationProbe(batch()).validate(model)
    with pytest.raises(ValueError, match="matches nothing"):
        RepresentationProbe(batch(), layers=["encoder/*"]).validate(network())
