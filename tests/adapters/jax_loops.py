"""Plain loops of JAX users, in a process in which torch cannot be imported; see test_jax_loops.

    python -m tests.adapters.jax_loops FOLDER

Prints one JSON object: model → what its record and its weights hold.
"""

from __future__ import annotations

import dataclasses
import importlib.abc
import json
import logging
import sys
from pathlib import Path


class Absent(importlib.abc.MetaPathFinder):
    """torch and all that brings it are not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "tensorflow", "keras", "transformers", "pytorch_lightning", "lightning"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if __name__ == "__main__":  # pytest collects this module too
    sys.meta_path.insert(0, Absent())

import jax
import jax.numpy as jnp
import numpy as np

from ww_callbacks import SpectralMonitor, spectral

X = jnp.asarray(np.random.default_rng(0).normal(size=(64, 6)), jnp.float32)
Y = X[:, :3]
STEPS, EPOCHS, RATE = 12, 3, 0.05


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Block:
    kernel: jax.Array
    bias: jax.Array
    name: str = dataclasses.field(metadata={"static": True}, default="block")


def arrays(seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    return jax.random.normal(keys[0], (6, 16)) / 3, jax.random.normal(keys[1], (16, 3)) / 4


def apply(matrices, x):
    first, last = matrices
    return jnp.tanh(x @ first) @ last


def dictionary():
    first, last = arrays()
    return {"params": {"in": {"kernel": first}, "out": {"kernel": last}}}, lambda p, x: apply(
        [p["params"]["in"]["kernel"], p["params"]["out"]["kernel"]], x
    )


def lists():
    first, last = arrays()
    return [(first, jnp.zeros(16)), [last]], lambda p, x: apply([p[0][0], p[1][0]], x)


def dataclass_tree():
    first, last = arrays()
    return (Block(first, jnp.zeros(16)), Block(last, jnp.zeros(3))), lambda p, x: apply([p[0].kernel, p[1].kernel], x)


def half():
    tree, forward = dictionary()
    return jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree), forward


def equinox():
    import equinox as eqx

    model = eqx.nn.MLP(6, 3, 16, 1, key=jax.random.key(0))
    held, static = eqx.partition(model, eqx.is_array)
    return held, lambda p, x: jax.vmap(eqx.combine(p, static))(x)


def losses(forward):
    @jax.jit
    def step(tree):
        loss, gradient = jax.value_and_grad(lambda p: jnp.mean((forward(p, X) - Y) ** 2))(tree)
        return jax.tree.map(lambda w, g: (w - RATE * g).astype(w.dtype), tree, gradient), loss

    return step


def trained(make, folder, how):
    """Train with a monitor that gets the weights as ``how`` says, and tell what it saw."""
    tree, forward = make()
    step, told = losses(forward), []
    model = (lambda: tree) if how == "function" else tree
    with SpectralMonitor(model, log_dir=str(folder), verbose=0, early_stopping="cautious", keep_best=True) as monitor:
        for epoch in range(EPOCHS):
            for _ in range(STEPS):
                tree, loss = step(tree)
                monitor.step(loss=loss)
                told.append(float(loss))
            more = {"weights": tree} if how == "observe" else {}
            monitor.observe(step=STEPS * (epoch + 1), epoch=epoch + 1, val_loss=loss, **more)
    return report(monitor, tree, told)


def nnx_model(folder):
    """A module that is updated in place."""
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(6, 16, rngs=rngs)
            self.drop = nnx.Dropout(0.1, rngs=rngs)
            self.last = nnx.Linear(16, 3, rngs=rngs)

        def __call__(self, x):
            return self.last(self.drop(jnp.tanh(self.first(x))))

    net, told = Net(nnx.Rngs(0)), []

    @nnx.jit
    def step(net):
        loss, gradient = nnx.value_and_grad(lambda net: jnp.mean((net(X) - Y) ** 2))(net)
        nnx.update(net, jax.tree.map(lambda w, g: w - RATE * g, nnx.state(net, nnx.Param), gradient))
        return loss

    with SpectralMonitor(net, log_dir=str(folder), verbose=0) as monitor:
        for epoch in range(EPOCHS):
            for _ in range(STEPS):
                loss = step(net)
                monitor.step(loss=loss)
                told.append(float(loss))
            monitor.observe(step=STEPS * (epoch + 1), epoch=epoch + 1, val_loss=loss)
    return report(monitor, nnx.state(net, nnx.Param), told)


def report(monitor, tree, told):
    history = monitor.history
    last = history[history["step"] == history["step"].max()]
    matrices = [np.asarray(a, np.float64) for a in jax.tree.leaves(tree) if getattr(a, "ndim", 0) == 2]
    return {
        "layers": last["layer"].tolist(),
        "norms": last["frobenius_norm"].tolist(),
        "expected_norms": [float(np.linalg.norm(m)) for m in matrices],
        "moved": last["relative_distance_from_init"].tolist(),
        "train_loss": monitor.summary["metrics/train_loss"].dropna().tolist(),
        "expected_loss": np.reshape(told, (EPOCHS, STEPS)).mean(axis=1).tolist(),
        "state": monitor.verdict.state,
        "analysed": spectral.analyze(tree).layers["layer"].tolist(),
        "best": None if monitor.best_checkpoint is None else monitor.best_checkpoint.name,
    }


def main(folder: Path) -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("ww_callbacks").addHandler(handler)
    found = {}
    for make in (dictionary, lists, dataclass_tree, half, equinox):
        found[make.__name__] = trained(make, folder / make.__name__, "function")
    found["by observe"] = trained(dataclass_tree, folder / "observe", "observe")
    assert not said, said
    found["nnx"] = nnx_model(folder / "nnx")
    assert not said, said
    found["stands still"] = {**trained(lists, folder / "still", "tree"), "said": said}
    assert "torch" not in sys.modules
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
