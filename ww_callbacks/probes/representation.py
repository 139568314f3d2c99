"""The representation probe: the ranks of the features of a fixed batch during training."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from ww_callbacks.probes.batch import check_kind, check_values, class_labels, loaded
from ww_callbacks.spectral.representation import (
    classification_dimension,
    feature_effective_rank,
    feature_rank,
    independence_deficit,
    perturbed_pca_dimension,
    resolve_probe,
)

if TYPE_CHECKING:
    from ww_callbacks.probes.keras_driver import KerasDriver
    from ww_callbacks.probes.torch_driver import TorchDriver

_DOUBLE = ("jacobian_rank", "perturbed_pca_dimension")


class RepresentationProbe:
    """Runs the model on a fixed batch, at its own cadence, and measures the ranks of the features of its layers.

    The probe does not change the model: it removes its hooks, restores train/eval mode, BatchNorm statistics and random
    states bit for bit, and does not change gradients. The model runs in evaluation mode, so dropout is off.

    Args:
        batch: inputs of the model: a tensor or array, a dict of them for keyword arguments, or the path of a ``.npy``,
            ``.npz`` or safetensors file. A few dozen samples are enough for the ranks, with at least two different
            ones; the classification dimension needs several per class and dimension.
        labels: class of each sample, 0 … classes − 1, or the path of a ``.npy`` file; needed by
            ``classification_dimension`` and ``independence_deficit``.
        every_n_epochs: the cadence, in epochs; the untrained model (epoch 0) is always measured.
        quantities: ``"default"`` (the features' numerical and effective rank), ``"all"``, or names; see
            ``ww_callbacks.spectral.representation.PROBE_QUANTITIES``.
        layers: shell patterns of layers (``encoder.*``); empty for every layer with a matrix.
        output: function that extracts the tensor from the output of the model, if that is not a tensor.
        points: number of samples, from the start of the batch, for the Jacobian and the perturbed PCA, which cost most.
        patch: side of the square input patch of the Jacobian.
        corner: row and column of the upper left corner of the patch; None for the centre.
        perturbations: n of the perturbed PCA.
        delta: standard deviation of its perturbations.
        eta: weight of the L1 norm in the independence deficit.
        memory: maximum bytes for Jacobians or perturbed features at a time.
        seed: seed of the probe's own generator.

    Raises:
        TypeError: for a batch that is neither a tensor or array nor a dict of them.
        ValueError: if a value is invalid, such as labels that are not integers.
    """

    def __init__(
        self,
        batch: Any,
        labels: Any = None,
        *,
        every_n_epochs: int = 5,
        quantities: str | Iterable[str] = "default",
        layers: Sequence[str] = (),
        output: Callable[[Any], Any] | None = None,
        points: int = 8,
        patch: int = 16,
        corner: tuple[int, int] | None = None,
        perturbations: int = 5000,
        delta: float = 1e-3,
        eta: float = 20.0,
        memory: float = 2e9,
        seed: int = 0,
    ) -> None:
        self.quantities = tuple(q.name for q in resolve_probe(quantities))
        counts = {"every_n_epochs": every_n_epochs, "points": points, "patch": patch, "perturbations": perturbations}
        for name, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Expected `{name}` of the probe to be an integer of at least 1, but got {value!r}.")
        if not delta > 0 or not eta > 0 or not memory > 0:
            raise ValueError(
                f"Expected positive `delta`, `eta` and `memory` of the probe, but got {delta}, {eta}, {memory}."
            )
        needing = [q.name for q in resolve_probe(quantities) if q.needs_labels]
        if needing and labels is None:
            raise ValueError(f"Expected `labels` with the probe batch, since `{needing[0]}` needs them; got none.")
        self.batch = check_kind(loaded(batch))
        labels = loaded(labels)
        # Unused labels may be anything, a regression's targets for example.
        self.labels = class_labels(labels) if needing else labels
        self.every_n_epochs = every_n_epochs
        self.layers = (layers,) if isinstance(layers, str) else tuple(layers)
        self.points, self.patch, self.corner = points, patch, corner
        self.perturbations, self.delta, self.eta = perturbations, delta, eta
        self.memory, self.seed = memory, seed
        self._output = output
        self._last: int | None = None

    def due(self, epoch: float) -> bool:
        """Whether a probe is due after ``epoch`` completed epochs; True once an interval, and at the first call."""
        interval = int(epoch // self.every_n_epochs)
        if self._last is not None and interval <= self._last:
            return False
        self._last = interval
        return True

    def state_dict(self) -> dict[str, Any]:
        """The state of the cadence, as plain values."""
        return {"last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        last = state.get("last")
        self._last = None if last is None else int(last)

    def validate(self, model: Any) -> None:
        """Run the model once on the batch and refuse what could not be measured; call before training starts.

        The cadence starts over, so that one probe serves several runs.

        Raises:
            TypeError: if the model is neither torch nor Keras, or refuses float64 where a quantity needs it.
            ValueError: if the batch is empty, not finite or holds no two different samples, the model's forward fails
                on it, the output is no tensor, a class has no sample, a layer has no matrix, the batch cannot be
                differentiated, or something does not fit in memory.
        """
        self._last = None
        check_values(self.batch, ranked=any(name not in _DOUBLE for name in self.quantities))
        with _random_states_kept():
            self._validate(self._driver(model))

    def _validate(self, driver: TorchDriver | KerasDriver) -> None:
        try:
            features = driver.features(self._head_of_batch(1))
        except ValueError:
            raise
        except Exception as error:  # the user's own forward may raise anything
            raise ValueError(
                "Expected a probe batch that the model's forward takes, but it fails on the first sample: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not features:
            raise ValueError("Expected the model to call at least one of the probed layers, but it calls none.")
        if any(name in _DOUBLE for name in self.quantities):
            sizes = self._torch(driver).check_double(self._head_of_batch(1))
            if "perturbed_pca_dimension" in self.quantities:
                self._torch(driver).check_memory(sizes, self.perturbations, self.memory)
        if "jacobian_rank" in self.quantities:
            self._torch(driver).check_patch(self._head_of_batch(1), self._patch())
        if self._needs_head():
            self._check_labels(driver)

    def observe(self, model: Any) -> dict[str, dict[str, float]]:
        """Measure.

        Args:
            model: the model that :meth:`validate` saw, trained further or not.

        Returns:
            Layer name (as in the record) → quantity → value; under ``"model"`` the model's own quantities, the minimum,
            median and maximum over layers as ``<quantity>/<statistic>``, and ``probe_seconds``. NaN where features are
            not finite.

        Raises:
            TypeError, ValueError: as :meth:`validate`.
        """
        started = time.perf_counter()
        with _random_states_kept():
            found, whole = self._measure(self._driver(model))
        return {**found, "model": {**whole, "probe_seconds": time.perf_counter() - started}}

    # -- parts --------------------------------------------------------------------------------------------------------

    def _measure(self, driver: TorchDriver | KerasDriver) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        found: dict[str, dict[str, float]] = {}
        self._feature_ranks(driver, found)
        if "jacobian_rank" in self.quantities:
            torch_driver = self._torch(driver)
            ranks = torch_driver.jacobian_ranks(self._head_of_batch(self.points), self._patch(), self.memory)
            for layer, values in ranks.items():
                found.setdefault(layer, {})["jacobian_rank"] = float(np.mean(values))
        if "perturbed_pca_dimension" in self.quantities:
            for layer, value in self._perturbed(self._torch(driver)).items():
                found.setdefault(layer, {})["perturbed_pca_dimension"] = value
        whole = _statistics(found)
        if self._needs_head():
            whole |= self._of_classes(self._torch(driver))
        return found, whole

    def _driver(self, model: Any) -> TorchDriver | KerasDriver:
        keras, torch = sys.modules.get("keras"), sys.modules.get("torch")
        if keras is not None and hasattr(keras, "Layer") and isinstance(model, keras.Layer):
            from ww_callbacks.probes.keras_driver import KerasDriver

            unsupported = [name for name in self.quantities if name not in ("feature_rank", "feature_effective_rank")]
            if unsupported:
                raise TypeError(
                    f"Expected a torch model for `{unsupported[0]}`, but got the Keras model "
                    f"`{type(model).__name__}`: of Keras models only the features' ranks are measured."
                )
            return KerasDriver(model, self.layers)
        if torch is not None and isinstance(model, torch.nn.Module):
            from ww_callbacks.probes.torch_driver import TorchDriver

            return TorchDriver(model, self.layers, self._output)
        raise TypeError(f"Expected a torch module or a Keras model to probe, but got {type(model).__name__}.")

    @staticmethod
    def _torch(driver: TorchDriver | KerasDriver) -> TorchDriver:
        from ww_callbacks.probes.torch_driver import TorchDriver

        assert isinstance(driver, TorchDriver)  # _driver refuses the other for what needs this one
        return driver

    def _head_of_batch(self, n: int) -> Any:
        if isinstance(self.batch, dict):
            return {name: value[:n] for name, value in self.batch.items()}
        return self.batch[:n]

    def _patch(self) -> Any:
        from ww_callbacks.probes.jacobian import Patch

        return Patch(self.patch, self.corner)

    def _needs_head(self) -> bool:
        return "classification_dimension" in self.quantities or "independence_deficit" in self.quantities

    def _feature_ranks(self, driver: TorchDriver | KerasDriver, found: dict[str, dict[str, float]]) -> None:
        functions = {"feature_rank": feature_rank, "feature_effective_rank": feature_effective_rank}
        wanted = [(name, functions[name]) for name in self.quantities if name in functions]
        if wanted:
            for layer, features in driver.features(self.batch).items():
                found[layer] = {name: function(features) for name, function in wanted}

    def _perturbed(self, driver: TorchDriver) -> dict[str, float]:
        batch = self._head_of_batch(self.points)
        dimensions: dict[str, list[float]] = {}
        for at_point in driver.perturbed_features(batch, self.perturbations, self.delta, self.seed, self.memory):
            for layer, features in at_point.items():
                dimensions.setdefault(layer, []).append(perturbed_pca_dimension(features))
        return {layer: float(np.mean(values)) for layer, values in dimensions.items()}

    def _check_labels(self, driver: TorchDriver | KerasDriver) -> None:
        assert self.labels is not None
        features, weight, _, _ = self._torch(driver).head(self.batch)
        if self.labels.shape != (len(features),):
            raise ValueError(
                f"Expected one label for each of the probe's {len(features)} samples, but got the shape "
                f"{self.labels.shape}."
            )
        missing = sorted(set(range(len(weight))) - {int(label) for label in self.labels})
        if missing:
            raise ValueError(
                f"Expected the probe batch to hold samples of all {len(weight)} classes, but got none of: {missing}."
            )

    def _of_classes(self, driver: TorchDriver) -> dict[str, float]:
        assert self.labels is not None
        features, weight, bias, logits = driver.head(self.batch)
        if not (np.isfinite(features).all() and np.isfinite(logits).all()):
            return {name: float("nan") for name in ("classification_dimension", "independence_deficit")}
        values = {}
        if "classification_dimension" in self.quantities:
            dimension = classification_dimension(features, weight, bias, self.labels)
            values["classification_dimension"] = float(dimension.dimension)
        if "independence_deficit" in self.quantities:
            values["independence_deficit"] = independence_deficit(logits, self.labels, self.eta)
        return values


def _random_states_kept() -> AbstractContextManager[None]:
    """See ``state.random_states_kept``; nothing to do where torch, which that needs, is not loaded."""
    if "torch" not in sys.modules:
        return nullcontext()
    from ww_callbacks.probes.state import random_states_kept

    return random_states_kept()


def _statistics(found: dict[str, dict[str, float]]) -> dict[str, float]:
    by_quantity: dict[str, list[float]] = {}
    for values in found.values():
        for name, value in values.items():
            by_quantity.setdefault(name, []).append(value)
    whole = {}
    for name, values_of in by_quantity.items():
        finite = [v for v in values_of if np.isfinite(v)]
        for statistic, function in (("min", np.min), ("median", np.median), ("max", np.max)):
            whole[f"{name}/{statistic}"] = float(function(finite)) if finite else float("nan")
    return whole
