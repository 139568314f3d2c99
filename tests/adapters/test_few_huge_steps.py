"""One optimiser step an epoch: full-batch training and LBFGS, whose step moves the weights as far as a usual epoch."""

import math

import pytest

torch = pytest.importorskip("torch", reason="needs the extra torch")
from torch import nn

from ww_callbacks import SpectralMonitor

EPOCHS = 10
BY_STEPS = "Overtraining cannot be judged yet: an epoch has one optimiser step"


class Curve(nn.Module):
    """A network that fits sin(2x) as well between the points as on them, so that no run overtrains."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, x, labels=None):
        loss = None if labels is None else nn.functional.mse_loss(self.net(x), labels)
        return {"loss": loss}


def points():
    x = torch.linspace(-3, 3, 400)[:, None]
    return x, torch.sin(2 * x)


def lbfgs(parameters):
    return torch.optim.LBFGS(parameters)


def rprop(parameters):
    return torch.optim.Rprop(parameters, 0.01)


def huge(parameters):
    return torch.optim.SGD(parameters, 1.0, momentum=0.9)


def plain(folder, make):
    model = Curve()
    optimizer = make(model.parameters())
    x, y = points()

    def closure():
        optimizer.zero_grad()
        loss = model(x, y)["loss"]
        loss.backward()
        return loss

    with SpectralMonitor(model, log_dir=folder, verbose=0) as monitor:
        for epoch in range(1, EPOCHS + 1):
            monitor.step(optimizer.step(closure))
            monitor.observe(step=epoch, epoch=epoch)
    return monitor


def lightning(folder, make):
    pl = pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
    from ww_callbacks.lightning import SpectralCallback

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = Curve()

        def training_step(self, batch, index):
            return self.model(*batch)["loss"]

        def configure_optimizers(self):
            return make(self.parameters())

    callback = SpectralCallback(log_dir=str(folder), verbose=0)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*points()), batch_size=400)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=EPOCHS, callbacks=callback, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(Module(), data)
    return callback


def huggingface(folder, make):
    transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
    from ww_callbacks.huggingface import SpectralCallback

    callback, model = SpectralCallback(log_dir=str(folder), verbose=0), Curve()
    arguments = transformers.TrainingArguments(
        str(folder / "out"),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=400,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
    )
    rows = [{"x": x, "labels": y} for x, y in zip(*points(), strict=True)]
    trainer = transformers.Trainer(
        model, arguments, train_dataset=rows, callbacks=[callback], optimizers=(make(model.parameters()), None)
    )
    trainer.train()
    return callback


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("loop", "make"),
    [
        pytest.param(plain, lbfgs, id="plain-lbfgs"),
        pytest.param(plain, rprop, id="plain-rprop"),
        pytest.param(lightning, lbfgs, id="lightning-lbfgs"),
        pytest.param(huggingface, rprop, id="huggingface-rprop"),  # the Trainer gives no closure to LBFGS
    ],
)
def test_a_healthy_run_is_not_alarmed(tmp_path, loop, make):
    watcher = loop(tmp_path, make)
    assert not watcher.alerts
    assert watcher.verdict.state == "not judged" and watcher.verdict.reason.startswith(BY_STEPS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loop", [plain, lightning, huggingface])
def test_a_run_that_diverges_is_found(tmp_path, loop):
    watcher = loop(tmp_path, huge)
    assert watcher.verdict.state in ("diverging", "broken")
    first = min((alert.epoch for alert in watcher.alerts if alert.kind == "explosion"), default=math.inf)
    assert first <= 7
