"""The representation probe as part of a watched run."""

import json

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")

from tests.lightning.test_callback import Net, SpectralCallback, fit
from ww_callbacks.probes.representation import RepresentationProbe


class Probed(Net):
    def forward(self, x):
        return self.net(x)


def batch():
    return torch.randn(32, 12, generator=torch.Generator().manual_seed(3))


def test_values_stand_beside_the_layers_other_quantities(tmp_path):
    probe = RepresentationProbe(batch(), every_n_epochs=2)
    callback = SpectralCallback(probe=probe, log_dir=tmp_path, verbose=0)
    fit(tmp_path, callback, model=Probed())
    history = callback.history
    measured = history[history.feature_effective_rank.notna()]
    assert sorted(measured.epoch.unique()) == [0, 2, 4]
    assert set(measured.layer) == {"net.0.weight", "net.3.weight", "net.4.weight"}
    assert (measured.feature_effective_rank > 1).all()
    rows = [json.loads(line) for line in (tmp_path / "spectral.jsonl").open()]
    summary = [r for r in rows if r["record"] == "model" and "feature_rank/median" in r]
    assert len(summary) == 3 and all(r["probe_seconds"] > 0 for r in summary)


def test_the_views_show_what_the_probe_measured_at_its_own_cadence(tmp_path):
    from ww_callbacks.integrations import figures
    from ww_callbacks.integrations.figures.run_view import views
    from ww_callbacks.integrations.scalars import describe

    callback = SpectralCallback(probe=RepresentationProbe(batch(), every_n_epochs=2), log_dir=tmp_path, verbose=0)
    fit(tmp_path, callback, model=Probed())
    picture = figures.heat_map(tmp_path, "feature_rank")
    drawn = next(trace for trace in picture.data if trace.type == "heatmap")
    assert sorted({float(x) for x in drawn.x}) == [0, 2, 4]
    assert any("numerical rank of features" in note.text for note in picture.layout.annotations)
    titles = [note.text for note in figures.timeline(tmp_path).layout.annotations]
    assert any("effective rank of features" in title for title in titles)
    assert list(views(tmp_path)[0].measured("alpha")) == [0, 1, 2, 3, 4, 5]
    assert describe("spectral/feature_rank/median").startswith("numerical rank of features: #{σ_i")


def test_values_of_the_whole_model_are_drawn_in_the_timeline_and_in_no_heat_map(tmp_path):
    from ww_callbacks.integrations import figures
    from ww_callbacks.integrations.quantity_info import quantity_info

    labels = torch.arange(32) % 3
    names = ["classification_dimension", "independence_deficit"]
    probe = RepresentationProbe(batch(), labels, every_n_epochs=2, quantities=names)
    callback = SpectralCallback(probe=probe, log_dir=tmp_path, verbose=0)
    fit(tmp_path, callback, model=Probed())
    rows = [json.loads(line) for line in (tmp_path / "spectral.jsonl").open()]
    picture = figures.timeline(tmp_path)
    titles = [note.text for note in picture.layout.annotations]
    drawn = [(list(trace.x), list(trace.y)) for trace in picture.data if trace.x is not None]
    for name in names:
        points = {r["epoch"]: r[name] for r in rows if r["record"] == "model" and r.get(name) is not None}
        assert list(points) == [0, 2, 4]
        assert (list(points), list(points.values())) in drawn
        assert sum(f"{quantity_info(name).title}: one value" in title for title in titles) == 1
        with pytest.raises(ValueError, match=f"`{name}` has one value for the whole model.*timeline"):
            figures.heat_map(tmp_path, name)


def test_training_is_not_disturbed(tmp_path):
    weights = []
    for callbacks in ((), (SpectralCallback(probe=RepresentationProbe(batch(), every_n_epochs=1), verbose=0),)):
        _, model = fit(tmp_path, *callbacks, model=Probed())
        weights.append({k: v.clone() for k, v in model.state_dict().items()})
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_collapse_of_the_features_is_an_alert(tmp_path):
    class Dying(Probed):
        def on_train_epoch_start(self):
            if self.current_epoch >= 2:
                with torch.no_grad():
                    self.net[0].weight.zero_()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.0)

    callback = SpectralCallback(probe=RepresentationProbe(batch(), every_n_epochs=1), verbose=0, log_dir=tmp_path)
    fit(tmp_path, callback, model=Dying(), epochs=7)
    alert = next(a for a in callback.alerts if a.kind == "representation collapse")
    assert "net.0.weight" in alert.layers and alert.since_epoch == 3


def test_what_cannot_be_probed_is_refused_before_training(tmp_path):
    model = Probed()
    model.training_step = lambda *_: pytest.fail("training started")
    for probe, said in (
        (RepresentationProbe(batch()[:, :5]), "5|12"),
        (RepresentationProbe(batch()[:1]), "two different samples"),
        (batch(), r"RepresentationProbe\(batch\)"),
        (RepresentationProbe, "got the class itself"),
    ):
        with pytest.raises((TypeError, ValueError, RuntimeError), match=said):
            fit(tmp_path, SpectralCallback(probe=probe, verbose=0), model=model)
