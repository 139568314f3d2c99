"""Compiled, in half precision, accumulated, adapted, frozen, parametrised and averaged models, in real Trainers."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

pl = pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch.nn.utils import parametrizations

from tests.adapters.nets import Net, fit, seeded
from ww_callbacks.engine.engine import Engine
from ww_callbacks.lightning import SpectralCallback
from ww_callbacks.spectral.layers import inspect
from ww_callbacks.spectral.linalg import spectrum
from ww_callbacks.spectral.measuring.registry import resolve

LAYERS = {"net.0.weight", "net.2.weight", "net.4.weight"}


def watch(folder, model, *callbacks, **options):
    callback = SpectralCallback(log_dir=str(folder), verbose=0, every_n_epochs=1, **options.pop("settings", {}))
    trainer = fit(model, *callbacks, callback, epochs=options.pop("epochs", 3), **options)
    return callback, trainer


def assert_last_row_is(callback, model):
    """The last snapshot holds what a fresh measurement of ``model`` gives."""
    quantities = [q for q in resolve() if not q.needs]
    last = callback.history.query("step == step.max()").set_index("layer")
    rows = Engine([s for s in inspect(model) if not s.skipped], quantities).measure()
    assert [row.layer for row in rows] == list(last.index)
    for row in rows:
        assert row.status == "ok"
        np.testing.assert_equal({q.name: last.loc[row.layer, q.name] for q in quantities}, dict(row.values))


def assert_undisturbed(make, **options):
    """Without the callback the trained weights and buffers are bit-for-bit the same."""
    bare = make()
    fit(bare, epochs=3, **options)
    return bare.state_dict()


def same_states(one, other):
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_compiled(tmp_path):
    class Compiled(Net):
        def __init__(self):
            super().__init__()
            self.net = torch.compile(self.net, backend="eager")

    callback, _ = watch(tmp_path, model := seeded(Compiled))
    assert set(callback.history["layer"]) == LAYERS
    assert_last_row_is(callback, model)
    same_states(model.state_dict(), assert_undisturbed(lambda: seeded(Compiled)))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-true"])
def test_half_precision(tmp_path, precision):
    if precision == "16-true" and not hasattr(torch.finfo(torch.float16), "max"):
        pytest.skip("no half precision")
    callback, trainer = watch(tmp_path, model := seeded(), precision=precision)
    assert trainer.current_epoch == 3
    assert callback.history["status"].eq("ok").all()
    assert_last_row_is(callback, model)
    same_states(model.state_dict(), assert_undisturbed(seeded, precision=precision))
    assert next(model.parameters()).dtype == {"bf16-mixed": torch.float32, "bf16-true": torch.bfloat16}.get(
        precision, torch.float16
    )


def test_accumulated_gradients_count_optimiser_steps(tmp_path):
    callback, trainer = watch(tmp_path, seeded(), accumulate_grad_batches=2)
    assert callback.summary["step"].tolist() == [0, 2, 4, 6] and trainer.global_step == 6


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised(tmp_path, wrap):
    class Wrapped(Net):
        def __init__(self):
            super().__init__()
            wrap(self.net[2])

    callback, _ = watch(tmp_path, model := seeded(Wrapped))
    assert set(callback.history["layer"]) == LAYERS
    weight = model.net[2].eval().weight.detach().numpy()
    norm = callback.history.query("layer == 'net.2.weight'")["frobenius_norm"].iloc[-1]
    assert norm == pytest.approx(np.linalg.norm(weight.astype(float)), rel=1e-6)
    same_states(model.state_dict(), assert_undisturbed(lambda: seeded(Wrapped)))


def test_a_frozen_backbone_costs_no_spectra(tmp_path, monkeypatch):
    model = seeded()
    for parameter in (*model.net[0].parameters(), *model.net[2].parameters()):
        parameter.requires_grad_(False)
    decomposed = []
    real = spectrum.symmetric_eigenvalues
    monkeypatch.setattr(spectrum, "symmetric_eigenvalues", lambda a: decomposed.append(a.shape) or real(a))
    callback, _ = watch(tmp_path, model)
    history = callback.history
    frozen = history["layer"].isin(["net.0.weight", "net.2.weight"])
    assert not history[frozen & (history["step"] > 0)]["changed"].any()
    assert history[frozen]["distance_from_init"].eq(0).all()
    assert history[~frozen & (history["step"] > 0)]["changed"].all()
    assert len(decomposed) == 3 + 3


def test_lora_of_peft(tmp_path):
    peft = pytest.importorskip("peft", reason="needs peft")

    class Adapted(Net):
        def __init__(self):
            super().__init__()
            peft.inject_adapter_in_model(peft.LoraConfig(r=4, target_modules=["net.0"]), self)

    callback, _ = watch(tmp_path, seeded(Adapted))
    history = callback.history
    assert set(history["layer"]) == {
        "net.0.lora_update[default]",
        "net.0.merged_weight",
        "net.2.weight",
        "net.4.weight",
    }
    last = history.query("step == step.max()").set_index("layer")
    assert last.loc["net.0.merged_weight", "distance_from_init"] > 0
    assert last.loc["net.2.weight", "distance_from_init"] == 0, "injecting an adapter freezes the rest"
    update, merged = last.loc["net.0.lora_update[default]"], last.loc["net.0.merged_weight"]
    assert merged["distance_from_init"] == pytest.approx(update["frobenius_norm"], rel=1e-5)


def test_ema_in_lightning(tmp_path):
    averaging = EMAWeightAveraging(decay=0.5)
    model, seen = seeded(), {}

    class Look(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen[trainer.global_step] = [
                float(torch.linalg.norm(m.net[0].weight.double())) for m in (pl_module, averaging._average_model.module)
            ]

    callback, _ = watch(tmp_path, model, averaging, Look(), settings={"weights": "average"})
    rows = callback.history.query("layer == 'net.0.weight'").set_index("step")["frobenius_norm"]
    for step, (trained, averaged) in seen.items():
        assert trained != pytest.approx(averaged, rel=1e-9)
        assert rows[step] == pytest.approx(averaged, rel=1e-9)


def test_swa_in_lightning(tmp_path):
    averaging = StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2)
    callback, _ = watch(tmp_path, seeded(), averaging, epochs=5, settings={"weights": "average"})
    assert callback.history["status"].eq("ok").all()
    average = averaging._average_model.net[0].weight.detach().numpy().astype(float)
    rows = callback.history.query("layer == 'net.0.weight'")["frobenius_norm"]
    assert np.isclose(rows, np.linalg.norm(average), rtol=1e-7).any()


def test_averages_that_nobody_keeps_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Trainer has none of these callbacks"):
        watch(tmp_path, seeded(), settings={"weights": "average"})


def test_ema_in_keras(tmp_path):
    keras = pytest.importorskip("keras", reason="needs the extra keras")
    from ww_callbacks.keras import SpectralCallback as Callback

    def trained(use_ema):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((12,)), keras.layers.Dense(24, name="a"), keras.layers.Dense(3, name="b")]
        )
        optimizer = keras.optimizers.SGD(0.1, use_ema=use_ema, ema_momentum=0.9)
        model.compile(optimizer, keras.losses.MeanSquaredError())
        x = np.random.default_rng(0).normal(size=(64, 12)).astype("float32")
        norms = []

        def look(epoch, logs=None):
            average = optimizer._model_variables_moving_average[0]
            norms.append(float(np.linalg.norm(keras.ops.convert_to_numpy(average).astype(float))))

        callback = Callback(log_dir=str(tmp_path / str(use_ema)), verbose=0, every_n_epochs=1, weights="average")
        peek = keras.callbacks.LambdaCallback(on_epoch_end=look)
        model.fit(x, x[:, :3], epochs=3, batch_size=16, verbose=0, callbacks=[peek, callback])
        return callback, norms

    callback, norms = trained(True)
    first = callback.history.groupby("step").first()["frobenius_norm"]
    np.testing.assert_allclose(first.iloc[1:], norms, rtol=1e-6)
    with pytest.raises(ValueError, match="use_ema"):
        trained(False)
