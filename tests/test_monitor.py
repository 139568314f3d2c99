"""The monitor in a plain loop."""

import numpy as np
import pandas as pd
import pytest

from ww_callbacks import SpectralMonitor, spectral
from ww_callbacks.spectral.measuring import registry


@pytest.fixture
def weights():
    generator = np.random.default_rng(0)
    return {f"layer{i}": generator.normal(size=(40, 60)) for i in range(3)}


def test_every_call_is_a_snapshot_where_no_cadence_is_asked_for(weights, tmp_path):
    with SpectralMonitor(weights, log_dir=tmp_path, verbose=0) as monitor:
        for epoch in range(3):
            weights["layer1"] *= 1.1
            monitor.observe(step=10 * (epoch + 1), epoch=epoch + 1, train_loss=1.0 / (epoch + 1))
    history = monitor.history
    assert list(history.groupby("epoch").size()) == [3] * 4
    assert list(history[history.layer == "layer1"].changed) == [True] * 4
    assert list(history[history.layer == "layer0"].changed) == [True, False, False, False]
    one_line = pd.read_json(tmp_path / "spectral.jsonl", lines=True).query("record == 'layer'")
    np.testing.assert_allclose(one_line.alpha.to_numpy(float), history.alpha.to_numpy(float), rtol=1e-14)
    assert monitor.verdict is not None


def test_a_run_says_of_weights_what_an_analysis_says_of_them(weights, tmp_path):
    names = ("default", "rand_distance", "trap_z_uncentred")
    with SpectralMonitor(weights, quantities=names, log_dir=tmp_path, seed=3, verbose=0) as monitor:
        history = monitor.history.set_index("layer")
    layers = spectral.analyze(weights, names, seed=3).layers.set_index("layer")
    shared = [name for name in layers.columns if name in history.columns and name != "kind"]
    assert {"alpha", "effective_rank", "rand_distance", "trap_z_uncentred"} <= set(shared)
    pd.testing.assert_frame_equal(history[shared], layers[shared], check_exact=True, check_dtype=False)


def test_cadence_where_every_step_is_told(weights, tmp_path):
    monitor = SpectralMonitor(weights, log_dir=tmp_path, every_n_steps=4, cheap_every_n_steps=2, verbose=0)
    taken = {}
    for step in range(1, 9):
        weights["layer0"] += 0.01
        snapshot = monitor.observe(step=step, epoch=step / 8)
        taken[step] = None if snapshot is None else snapshot.kind
    monitor.close()
    assert taken == {1: None, 2: "cheap", 3: None, 4: "full", 5: None, 6: "cheap", 7: None, 8: "full"}


def test_stops_with_a_reason(weights, tmp_path, capsys):
    with SpectralMonitor(weights, log_dir=tmp_path, early_stopping="cautious") as monitor:
        for epoch in range(10):
            if epoch == 2:
                weights["layer2"][:] = np.nan
            monitor.observe(step=epoch + 1, epoch=epoch + 1)
            if monitor.should_stop:
                break
    assert epoch == 2
    assert "layer2" in monitor.stop_reason and monitor.verdict.stopped
    assert "layer2" in capsys.readouterr().out


def test_policies(weights, tmp_path):
    heard = []
    with SpectralMonitor(weights, log_dir=tmp_path, policies={"non-finite": heard.append}, verbose=0) as monitor:
        weights["layer0"][0, 0] = np.inf
        for epoch in range(1, 4):
            monitor.observe(step=epoch, epoch=epoch)
    assert [a.kind for a in heard] == ["non-finite"]  # reported once, then the cooldown holds
    assert not monitor.should_stop


def test_a_policy_of_the_users_may_stop(weights, tmp_path):
    with SpectralMonitor(
        weights, log_dir=tmp_path, policies={"non-finite": lambda alert: "stop"}, verbose=0
    ) as monitor:
        weights["layer0"][0, 0] = np.inf
        monitor.observe(step=1, epoch=1)
    assert monitor.should_stop


def test_a_baseline_under_other_names_is_matched_and_said(weights, tmp_path, caplog):
    torch = pytest.importorskip("torch")
    state = {f"model.{name}": torch.from_numpy(w * 0.5) for name, w in weights.items()}
    torch.save({"teacher": state, "student": {"x.weight": torch.ones(2, 2)}}, tmp_path / "start.pt")
    path = f"{tmp_path / 'start.pt'}:teacher"
    with SpectralMonitor(weights, log_dir=tmp_path / "run", baseline=path, verbose=0) as monitor:
        pass
    np.testing.assert_allclose(monitor.history.scale_collapse, np.log10(2.0), rtol=1e-5)
    assert "names matched without the prefix `model.`" in caplog.text
    with pytest.raises(ValueError, match="names a file that does not exist"):
        SpectralMonitor(weights, log_dir=tmp_path / "other", baseline=str(tmp_path / "none.pt:teacher"))


def test_a_checkpoint_as_the_baseline(weights, tmp_path):
    from safetensors.numpy import save_file

    start = {name: array.copy() for name, array in weights.items()}
    save_file(start, tmp_path / "start.safetensors")
    for array in weights.values():
        array *= 2.0
    with SpectralMonitor(
        weights, log_dir=tmp_path / "run", baseline=str(tmp_path / "start.safetensors"), verbose=0
    ) as monitor:
        pass
    history = monitor.history
    np.testing.assert_allclose(history.relative_distance_from_init, 1.0)
    np.testing.assert_allclose(history.scale_collapse, np.log10(2.0))
    np.testing.assert_allclose(history.cosine_to_init, 1.0)


def test_a_checkpoint_of_another_model_is_refused(weights, tmp_path):
    from safetensors.numpy import save_file

    save_file({"other": np.ones((3, 4))}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="contains none of the watched layers"):
        SpectralMonitor(weights, log_dir=tmp_path / "run", baseline=str(tmp_path / "other.safetensors"))


def test_hopeless_layers_are_recorded_and_said(tmp_path):
    generator = np.random.default_rng(0)
    weights = {
        "zero": np.zeros((20, 30)),
        "rank_one": np.outer(np.arange(1.0, 21.0), np.arange(1.0, 31.0)),
        "row": generator.normal(size=(2, 30)),
        "good": generator.normal(size=(40, 30)),
    }
    with SpectralMonitor(weights, log_dir=tmp_path, verbose=0) as monitor:
        monitor.observe(step=1, epoch=1)
    last = monitor.history.query("step == 1").set_index("layer")
    assert last.status["zero"] == "zero" and np.isnan(last.alpha["zero"])
    assert last.alpha_evidence["rank_one"] != "sufficient" and last.effective_rank["rank_one"] == pytest.approx(
        1.0, abs=1e-6
    )
    assert last.alpha_evidence["row"] != "sufficient" and np.isfinite(last.frobenius_norm["row"])
    assert last.status["good"] == "ok"


def test_importing_the_roots_imports_no_framework():
    import subprocess
    import sys

    code = (
        "import sys, ww_callbacks.spectral, ww_callbacks.integrations; from ww_callbacks import SpectralMonitor;"
        "heavy = {'torch', 'keras', 'jax', 'transformers', 'wandb', 'tensorboard', 'plotly', 'pytorch_lightning'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def memorising(**settings):
    """A model whose output layer turns from learning to growing without end, at epoch 12, with errors left."""
    generator = np.random.default_rng(0)
    weights = {n: generator.normal(size=(30, 30)) for n in ("hidden", "output")}
    start = {n: a.copy() for n, a in weights.items()}
    ways = {n: generator.normal(size=(30, 30)) for n in weights}
    with SpectralMonitor(weights, verbose=0, **settings) as monitor:
        for epoch in range(1, 60):
            far = epoch**0.15 if epoch < 12 else 12**0.15 * (epoch / 12) ** 1.5
            weights["hidden"][:] = start["hidden"] + ways["hidden"] * epoch**0.15
            weights["output"][:] = start["output"] + ways["output"] * far
            monitor.observe(step=10 * epoch, epoch=epoch, train_accuracy=0.7, train_loss=1.0 / epoch)
            if monitor.should_stop:
                break
    return monitor, start["output"] + ways["output"] * (monitor.verdict.best_epoch or 0) ** 0.15


def test_the_best_weights_are_kept_where_nothing_validates(tmp_path):
    from safetensors.numpy import load_file

    monitor, expected = memorising(log_dir=tmp_path, early_stopping="cautious")
    assert monitor.verdict.state == "overtraining" and monitor.verdict.stopped
    assert 8 <= monitor.verdict.best_epoch <= 16
    assert monitor.best_checkpoint == tmp_path / f"best-step-{monitor.verdict.best_step}.safetensors"
    assert [p.name for p in tmp_path.glob("best-*")] == [monitor.best_checkpoint.name]
    if monitor.verdict.best_epoch < 12:
        np.testing.assert_allclose(load_file(monitor.best_checkpoint)["output"], expected)


def test_a_loss_without_a_graph_is_named_where_nothing_changes(tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(4, 4)
    with SpectralMonitor(net, log_dir=tmp_path, verbose=0) as monitor:
        for step in range(1, 4):
            monitor.step(torch.tensor(net(torch.ones(4)).sum().item(), requires_grad=True))
            monitor.observe(step=step, epoch=step, learning_rate=0.1)
    assert "No layer has changed since the start: the loss has no graph" in monitor.verdict.reason


def test_the_output_layer_is_found_in_the_graph_of_the_loss(tmp_path):
    torch = pytest.importorskip("torch")

    class HeadFirst(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.body = torch.nn.Linear(6, 3), torch.nn.Linear(4, 6)

        def forward(self, x):
            return self.head(torch.relu(self.body(x)))

    net = HeadFirst()
    with SpectralMonitor(net, log_dir=tmp_path, verbose=0) as monitor:
        named = []
        monitor.run.diagnosis.name_output = named.append
        loss = net(torch.ones(2, 4)).sum()
        loss.backward()
        monitor.step(loss)
        monitor.step(loss)
    assert named == ["head.weight"]


def test_nothing_is_kept_unasked(tmp_path):
    monitor, _ = memorising(log_dir=tmp_path)
    assert monitor.best_checkpoint is None and not list(tmp_path.glob("best-*"))
    assert not monitor.should_stop and any(a.kind == "overtraining" for a in monitor.alerts)
    with pytest.raises(ValueError, match="background=False"):
        SpectralMonitor({"a": np.ones((3, 3))}, keep_best=True, background=True)


def test_the_start_is_measured_once(weights, tmp_path):
    with SpectralMonitor(weights, log_dir=tmp_path, verbose=0) as monitor:
        assert monitor.observe(step=0, epoch=0).step == 0
        monitor.observe(step=1, epoch=1)
    assert list(monitor.summary.step) == [0, 1]


@pytest.mark.parametrize("loss", ["a", [1.0, 2.0], np.ones(3), np.ones((1, 2))])
def test_a_loss_that_is_none_is_refused_at_its_step(weights, tmp_path, loss):
    with (
        SpectralMonitor(weights, log_dir=tmp_path, verbose=0) as monitor,
        pytest.raises((TypeError, ValueError), match="Expected `loss` to be a number"),
    ):
        monitor.step(loss=loss)


def test_after_the_end_nothing_is_recorded_and_that_is_said(weights, tmp_path, caplog):
    monitor = SpectralMonitor(weights, log_dir=tmp_path, verbose=0)
    monitor.step(loss=np.float32(1.0))
    monitor.step(loss=None)
    monitor.close()
    assert monitor.observe(step=1, epoch=1) is None and monitor.observe(step=2, epoch=2) is None
    assert caplog.text.count("after `close`") == 1 and "failed" not in caplog.text
    assert monitor.summary["step"].tolist() == [0]


def test_an_own_quantity_that_raises_costs_no_other_value(weights, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(registry, "_QUANTITIES", {q.name: q for q in registry.all_quantities()})

    @spectral.quantity("boom", title="boom", definition="", family="norm", cost="cheap")
    def boom(layer):
        raise RuntimeError("no")

    names = ["default", "boom"]
    with SpectralMonitor(weights, quantities=names, log_dir=tmp_path, verbose=0) as monitor:
        weights["layer1"] *= 1.1
        monitor.observe(step=1, epoch=1)
    assert caplog.text.count("boom could not be computed for layer0 and 2 more (RuntimeError: no)") == 1
    assert monitor.history["boom"].isna().all() and monitor.history["effective_rank"].notna().all()
    lines = pd.read_json(tmp_path / "spectral.jsonl", lines=True)
    assert set(lines[lines.record == "layer"].status) == {"partly: boom: RuntimeError: no"}
    result = spectral.analyze(weights, names)
    assert "3 without some of your own quantities" in result.heading() and "not ok" not in result.heading()


def test_metrics_as_real_loops_pass_them(weights, tmp_path, caplog, capsys, recwarn):
    torch = pytest.importorskip("torch")
    with SpectralMonitor(weights, log_dir=tmp_path) as monitor:
        loss = torch.tensor(0.5, requires_grad=True)
        for epoch in range(1, 4):
            more = {"val_los": 0.4} if epoch < 3 else {}
            monitor.observe(step=epoch, epoch=epoch, train_loss=loss, val_loss=None, my_metric=1.0, **more)
        with pytest.raises(ValueError, match=r"Expected `val_loss` to be a number or an array of one element"):
            monitor.observe(step=9, epoch=9, val_loss=torch.ones(2))
    assert caplog.text.count("`val_los` was not recognised (did you mean `val_loss`?)") == 1
    assert "my_metric" not in caplog.text and not recwarn.list
    assert capsys.readouterr().out.count("spectra: metrics recognised: train_loss from `train_loss`.") == 1
    assert "metrics/val_loss" not in monitor.summary


def test_losses_passed_to_step_are_named(weights, tmp_path, capsys):
    with SpectralMonitor(weights, log_dir=tmp_path) as monitor:
        monitor.step(0.5)
        monitor.observe(step=1, epoch=1, train_loss=0.5)
    assert "metrics recognised: train_loss from `step()`. No validation values" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["loss", "train/loss", "training_loss", "TrainLoss"])
def test_the_training_loss_under_other_names(weights, tmp_path, caplog, capsys, name):
    with SpectralMonitor(weights, log_dir=tmp_path) as monitor:
        for epoch in range(1, 4):
            weights["layer0"] *= 1.01
            monitor.observe(step=10 * epoch, epoch=epoch, metrics={name: 1.0 / epoch})
    assert list(monitor.summary["metrics/train_loss"].dropna()) == [1.0, 1 / 2, 1 / 3]
    assert f"metrics recognised: train_loss from `{name}`" in capsys.readouterr().out and not caplog.text
    assert monitor.verdict.state == "no sign of overtraining"


def test_a_loss_of_the_last_batch_does_not_replace_those_of_the_steps(weights, tmp_path):
    with SpectralMonitor(weights, log_dir=tmp_path, verbose=0) as monitor:
        for loss in (3.0, 1.0):
            monitor.step(loss=loss)
        monitor.observe(step=2, epoch=1, loss=1.0)
    assert monitor.summary["metrics/train_loss"].iloc[-1] == 2.0


def test_a_model_without_a_matrix_is_not_judged_by_its_losses(tmp_path, caplog):
    vectors = {"scale": np.ones(5)}
    with SpectralMonitor(vectors, log_dir=tmp_path / "losses", verbose=0) as monitor:
        for epoch in range(1, 6):
            monitor.observe(step=10 * epoch, epoch=epoch, loss=1.0 / epoch)
    assert monitor.verdict.state == "not judged"
    assert "no layer of the model has a matrix" in monitor.verdict.reason
    with SpectralMonitor(vectors, log_dir=tmp_path / "validated", verbose=0) as monitor:
        for epoch in range(1, 6):
            monitor.observe(step=epoch, epoch=epoch, loss=1.0 / epoch, val_loss=1.0 / epoch)
    assert monitor.verdict.state == "healthy" and "5 values of the validation loss" in monitor.verdict.reason


def test_lazy_layers_are_watched_from_their_first_weights_on_and_that_is_said(tmp_path, caplog):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.LazyLinear(8), torch.nn.ReLU(), torch.nn.LazyLinear(3))
    with SpectralMonitor(net, log_dir=tmp_path, verbose=0) as monitor:
        for epoch in range(1, 3):
            net(torch.ones(4, 5))
            monitor.observe(step=epoch, epoch=epoch, loss=1.0)
    assert caplog.text.count("Its layers are watched from the first snapshot at which they have weights") == 1
    assert "no spectra are watched" not in caplog.text and "call the model on a batch first" in caplog.text
    assert set(monitor.history.query("step > 0").layer) == {"0.weight", "2.weight"}


def test_an_old_spectral_norm_that_was_evaluated_first_starts_where_training_starts(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(*(torch.nn.utils.spectral_norm(torch.nn.Linear(12, 12)) for _ in range(2)))
    optimizer, data = torch.optim.SGD(net.parameters(), 0.01), torch.randn(16, 12)
    with torch.no_grad():
        net.eval()(data)
    with SpectralMonitor(net.train(), log_dir=tmp_path, verbose=0) as monitor:
        for epoch in range(1, 6):
            loss = net(data).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                net.eval()(data)
            net.train()
            monitor.observe(step=epoch, epoch=epoch, loss=loss)
    assert monitor.history["log_spectral_norm"].abs().max() < 0.5 and not monitor.alerts
    assert monitor.history["scale_collapse"].abs().max() < 0.5


def test_validation_that_is_no_number_is_said(weights, tmp_path):
    with SpectralMonitor(weights, log_dir=tmp_path, verbose=0) as monitor:
        for epoch in range(1, 4):
            weights["layer0"] *= 1.01
            monitor.observe(step=10 * epoch, epoch=epoch, train_loss=1.0 / epoch, val_loss=np.nan)
    assert "`val_loss` was NaN or infinite in all 3 epochs" in str(monitor.verdict)
    assert "No validation values are logged" not in str(monitor.verdict)
