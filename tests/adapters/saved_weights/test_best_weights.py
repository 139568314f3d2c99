"""The weights that are kept, through the real Trainers: raw and averaged files, and ``restore="best"``."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import nn

from tests.adapters.saved_weights.best_epoch import best_at

STEPS, EPOCHS = 4, 4
SETTINGS = {"verbose": 0, "every_n_epochs": 1, "early_stopping": "cautious"}


def numbers(tensors):
    return {n.removeprefix("net."): t.detach().double().numpy().copy() for n, t in tensors.items()}


class Trace:
    """Every step's weights; the average that follows from them.

    Args:
        known: whether the length of an epoch is known from the start; else the first epoch's steps weigh the same.
    """

    def __init__(self, known=True):
        self.seen, self.known = [], known

    def add(self, net):
        self.seen.append(numbers(net.state_dict()))

    def average(self, steps=None):
        seen = self.seen[:steps]
        begins = 0 if self.known else STEPS - 1
        w = np.array([(1 - 1 / STEPS) ** (len(seen) - 1 - max(s, begins)) for s in range(len(seen))])
        return {n: np.tensordot(w / w.sum(), np.array([s[n] for s in seen]), 1) for n in seen[0]}


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 3))


def data():
    x = torch.randn(STEPS * 8, 12, generator=torch.Generator().manual_seed(0))
    return x, x[:, :3].argmax(1)


def plain(folder, **settings):
    from safetensors.torch import load_file

    from ww_callbacks import SpectralMonitor

    model, trace = net(), Trace(known=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    x, y = data()
    watched = settings.pop("watched", True)
    monitor = SpectralMonitor(model, log_dir=folder, **SETTINGS | settings) if watched else None
    for epoch in range(EPOCHS):
        for batch in torch.arange(len(x)).split(8):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            trace.add(model)
            if monitor is not None:
                monitor.step(loss)
        if monitor is not None:
            monitor.observe(step=STEPS * (epoch + 1), epoch=epoch + 1)
    if monitor is not None:
        monitor.close()
    return SimpleNamespace(model=model, trace=trace, callback=monitor, load=lambda path: numbers(load_file(path)))


def lightning(folder, **settings):
    pl = pytest.importorskip("pytorch_lightning")
    from tests.adapters.nets import Net, fit
    from ww_callbacks.lightning import SpectralCallback

    class Module(Net):
        def __init__(self):
            super().__init__()
            self.net = net()

    trace, more = Trace(), settings.pop("callbacks", [])

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            trace.add(module.net)

    callback = SpectralCallback(log_dir=folder, **SETTINGS | settings) if settings.pop("watched", True) else None
    x, y = data()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)
    model = Module()
    fit(model, *([callback] if callback is not None else []), Note(), *more, epochs=EPOCHS, data=loader)

    def load(path):
        return numbers(torch.load(path, weights_only=True)["state_dict"])

    return SimpleNamespace(model=model.net, trace=trace, callback=callback, load=load)


def huggingface(folder, **settings):
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    from ww_callbacks.huggingface import SpectralCallback

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, x, labels):
            return {"loss": nn.functional.cross_entropy(self.net(x), labels)}

    trace = Trace()

    class Note(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **_):
            trace.add(model.net)

    callback = SpectralCallback(log_dir=folder, **SETTINGS | settings) if settings.pop("watched", True) else None
    x, y = data()
    model = Model()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=8,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        learning_rate=0.01,
        seed=0,
    )
    rows = [{"x": a, "labels": b} for a, b in zip(x, y, strict=True)]
    callbacks = [Note(), *([callback] if callback is not None else [])]
    transformers.Trainer(model=model, args=arguments, train_dataset=rows, callbacks=callbacks).train()

    def load(path):
        return numbers(load_file(path / "model.safetensors"))

    return SimpleNamespace(model=model.net, trace=trace, callback=callback, load=load)


FRAMEWORKS = [plain, lightning, huggingface]


def assert_close(found, expected):
    for name, value in expected.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(found[name], value, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("train", FRAMEWORKS)
def test_raw_and_averaged_weights_are_kept_and_the_training_is_the_same(tmp_path, train):
    run = train(tmp_path / "watched")
    last = STEPS * EPOCHS
    assert run.callback.best_checkpoint.name.startswith(f"best-step-{last}")
    assert run.callback.best_average.name.startswith(f"best-step-{last}-average")
    assert len(list((tmp_path / "watched").rglob("best-step-*"))) == 2, "what is superseded is removed"
    assert_close(run.load(run.callback.best_checkpoint), run.trace.seen[-1])
    assert_close(run.load(run.callback.best_average), run.trace.average())
    bare = train(tmp_path / "bare", watched=False)
    for name, value in bare.model.state_dict().items():
        assert torch.equal(value, run.model.state_dict()[name]), name


@pytest.mark.parametrize("train", FRAMEWORKS)
def test_the_best_weights_are_in_the_model_at_the_end(tmp_path, train, capsys):
    run = train(tmp_path, restore="best", verbose=1)
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "the model now has" in line]
    assert f"the average of the weights over epoch {EPOCHS} (step {STEPS * EPOCHS}); average in " in said
    assert run.callback.best_average.name in said and run.callback.best_checkpoint.name in said
    assert_close(numbers(run.model.state_dict()), run.trace.average())
    assert run.model[1].num_batches_tracked == STEPS * EPOCHS


@pytest.mark.parametrize("train", FRAMEWORKS)
def test_an_earlier_epoch_is_put_back_where_it_is_the_best(tmp_path, train, monkeypatch):
    best_at(monkeypatch, 2 * STEPS)
    run = train(tmp_path / "average", restore="best", early_stopping="off")
    assert_close(numbers(run.model.state_dict()), run.trace.average(2 * STEPS))
    run = train(tmp_path / "raw", restore="best", keep_average=False)
    assert_close(numbers(run.model.state_dict()), run.trace.seen[2 * STEPS - 1])
    assert run.callback.best_average is None and run.callback.best_checkpoint is not None


def test_the_users_own_average_stands_alone(tmp_path):
    pytest.importorskip("pytorch_lightning")
    from pytorch_lightning.callbacks import StochasticWeightAveraging

    swa = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2)
    run = lightning(tmp_path / "kept", callbacks=[swa])
    assert run.callback.best_checkpoint is not None and run.callback.best_average is None
    with pytest.raises(ValueError, match="either `restore='best'` or StochasticWeightAveraging"):
        lightning(tmp_path / "refused", restore="best", callbacks=[swa])


def test_the_reloaded_best_model_of_the_trainer_stands_alone(tmp_path):
    transformers = pytest.importorskip("transformers")
    from tests.huggingface.test_resume import Model, train
    from ww_callbacks.huggingface import SpectralCallback

    assert transformers
    with pytest.raises(ValueError, match="load_best_model_at_end"):
        train(
            tmp_path,
            SpectralCallback(log_dir=tmp_path / "log", restore="best", **SETTINGS),
            Model(),
            load_best_model_at_end=True,
        )


def test_a_lightning_run_that_is_taken_up_again_has_the_same_average(tmp_path):
    pl = pytest.importorskip("pytorch_lightning")
    from tests.adapters.nets import Net, fit, same_batches, seeded
    from ww_callbacks.lightning import SpectralCallback

    def watch(folder):
        return SpectralCallback(log_dir=folder, restore="best", **SETTINGS)

    whole = seeded(Net)
    fit(whole, watch(tmp_path / "whole"), epochs=4, data=same_batches())
    saver = pl.callbacks.ModelCheckpoint(tmp_path, filename="second", save_top_k=-1)
    callback = watch(tmp_path / "parts")
    fit(seeded(Net), callback, saver, epochs=2, data=same_batches())
    again, model = watch(tmp_path / "parts"), Net()
    fit(model, again, epochs=4, data=same_batches(), ckpt_path=tmp_path / "second.ckpt")
    assert again.run.resumed
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)


def test_a_trainer_that_is_taken_up_again_has_the_same_average(tmp_path):
    pytest.importorskip("transformers")
    from tests.huggingface.test_resume import Model, train
    from ww_callbacks.huggingface import SpectralCallback

    def watch(folder):
        return SpectralCallback(log_dir=folder, restore="best", **SETTINGS)

    whole = Model()
    train(tmp_path / "whole", watch(tmp_path / "whole/log"), whole, save_strategy="epoch")
    model, again = Model(), watch(tmp_path / "whole/log")
    train(tmp_path / "whole", again, model, resume=str(tmp_path / "whole/checkpoint-8"))
    assert again.run.resumed
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-6)
