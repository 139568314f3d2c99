"""A run with a tolerance: spectra where they are needed, estimates and old values with their errors between."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.engine.test_engine import specs_of
from ww_callbacks.engine.baseline_store import Baseline
from ww_callbacks.engine.engine import Engine
from ww_callbacks.engine.layer_memory import LayerMemory
from ww_callbacks.integrations.record.format import decode
from ww_callbacks.integrations.schema import LayerRow
from ww_callbacks.lifecycle.saved_state import RunState
from ww_callbacks.spectral.estimates import lanczos
from ww_callbacks.spectral.linalg import spectrum
from ww_callbacks.spectral.measuring.registry import Quantity, resolve

TOLERANCE = 0.01
DEFAULT = resolve(["default", "alpha_hill_top", "participation_ratio", "sv_max"])
ESTIMABLE = resolve("estimable")


def trained(rows: int, columns: int) -> np.ndarray:
    """A layer with a heavy tail."""
    rng = np.random.default_rng(0)
    scale = np.sqrt(0.05 + rng.pareto(3.0, columns))
    return (rng.standard_normal((rows, columns)) * scale / np.sqrt(rows)).astype(np.float32)


def started(
    arrays: dict[str, np.ndarray], folder: Path, quantities: tuple[Quantity, ...], tolerance: float | None = TOLERANCE
) -> tuple[Engine, list[LayerRow]]:
    """An engine with its first snapshot."""
    specs = specs_of(arrays)
    folder.mkdir(exist_ok=True)
    engine = Engine(specs, quantities, tolerance=tolerance)
    engine.baseline = Baseline.write(folder, {name: [a.copy()] for name, a in arrays.items()}, specs)
    return engine, engine.measure()


def move(array: np.ndarray, relative: float, seed: int) -> None:
    """Move the weights by so much of their norm."""
    step = np.random.default_rng(seed).standard_normal(array.shape)
    array += (relative * np.linalg.norm(array) / np.linalg.norm(step) * step).astype(np.float32)


@pytest.fixture
def no_spectrum(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Any spectrum and any estimate fails the test, until it is undone."""
    monkeypatch.setattr(spectrum, "symmetric_eigenvalues", lambda *_, **__: pytest.fail("a spectrum was computed"))
    monkeypatch.setattr(lanczos.BlockLanczos, "extend", lambda *_: pytest.fail("an estimate was made"))
    return monkeypatch


def test_old_values_stand_with_their_bounds(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """While the layer hardly moves nothing is decomposed, α waits, and what stands is as near as it says."""
    arrays = {"a": trained(300, 260)}
    engine, first = started(arrays, tmp_path, DEFAULT)
    assert first[0].errors == {} and np.isfinite(first[0].values["alpha"])
    patch: pytest.MonkeyPatch = request.getfixturevalue("no_spectrum")
    rows = []
    for step in range(3):
        move(arrays["a"], 3e-5, seed=step)
        if step == 1:
            engine.measure(kind="cheap")  # its move counts, too
        rows += engine.measure()
    patch.undo()
    exact = started(arrays, tmp_path / "exact", DEFAULT, tolerance=None)[1][0]
    for row in rows:
        assert row.status == "ok" and "alpha" not in row.values and "alpha_evidence" not in row.values
    errors = [row.errors["stable_rank"] for row in rows]
    assert errors == sorted(errors) and errors[0] > 0.0
    compared = set(rows[-1].errors) - {"scale_collapse"}  # that one's W_0 is another here
    assert compared >= {"log_spectral_norm", "stable_rank", "effective_rank", "alpha_hill_top", "participation_ratio"}
    for name in compared:
        assert abs(rows[-1].values[name] - exact.values[name]) <= rows[-1].errors[name], name
        assert rows[-1].errors[name] <= 0.011 * max(abs(rows[-1].values[name]), 0.44)
    assert rows[-1].values["frobenius_norm"] == exact.values["frobenius_norm"]
    assert {"frobenius_norm", "distance_from_init", "update_norm"}.isdisjoint(rows[-1].errors)


def test_a_layer_that_has_moved_is_measured_again(tmp_path: Path) -> None:
    """Beyond the bounds all is exact, α with it, and the count starts again."""
    arrays = {"a": trained(300, 260)}
    engine, _ = started(arrays, tmp_path, DEFAULT)
    move(arrays["a"], 0.02, seed=1)
    row = engine.measure()[0]
    assert row.errors == {} and np.isfinite(row.values["alpha"]) and row.density is not None
    known = engine.states["a"].known
    assert known is not None and known.moved == 0.0
    move(arrays["a"], 1e-5, seed=2)
    assert engine.measure()[0].errors


def test_no_bounds_are_made_while_the_weights_move_far(tmp_path: Path) -> None:
    """They cost time, and no value stands from one snapshot to the next; they come with the first small move."""
    arrays = {"a": trained(300, 260)}
    engine, _ = started(arrays, tmp_path, DEFAULT)
    reaches = []
    for seed, relative in enumerate((0.05, 0.05, 0.011, 1e-5)):
        move(arrays["a"], relative, seed=seed)
        row = engine.measure()[0]
        known = engine.states["a"].known
        assert known is not None
        reaches.append(len(known.reaches))
    assert reaches[:2] == [0, 0] and reaches[2] > 3
    assert row.errors, "values stand again"


def test_small_moves_add_up(tmp_path: Path) -> None:
    """To a spectrum in the end: the bound is of the distance since the last one, not of the last step."""
    arrays = {"a": trained(300, 260)}
    engine, _ = started(arrays, tmp_path, DEFAULT)
    exact = []
    for step in range(30):
        move(arrays["a"], 1e-4, seed=step)
        exact.append(not engine.measure()[0].errors)
    assert 0 < sum(exact) < 15


def test_one_quantity_stands_and_another_is_estimated(tmp_path: Path) -> None:
    """The effective rank hardly changes with the weights, and the largest eigenvalues are quickly estimated."""
    arrays = {"a": trained(1500, 1200)}
    quantities = resolve(["effective_rank", "stable_rank", "alpha"])
    engine, _ = started(arrays, tmp_path, quantities)
    known = engine.states["a"].known
    assert known is not None and known.reaches["effective_rank"].unit > 5.0 * known.reaches["stable_rank"].unit
    move(arrays["a"], 0.005, seed=1)
    row = engine.measure()[0]
    exact = started(arrays, tmp_path / "exact", quantities, tolerance=None)[1][0]
    assert set(row.errors) == {"effective_rank", "stable_rank"}
    assert row.errors["stable_rank"] < 1e-4 * row.values["stable_rank"]  # an estimate; a bound would be a per cent
    for name, error in row.errors.items():
        assert abs(row.values[name] - exact.values[name]) <= error <= 0.01 * row.values[name]


def test_with_exact_nothing_stands(tmp_path: Path) -> None:
    """The default keeps nothing and estimates nothing."""
    arrays = {"a": trained(300, 260)}
    engine, _ = started(arrays, tmp_path, DEFAULT, tolerance=None)
    move(arrays["a"], 1e-6, seed=1)
    row = engine.measure()[0]
    assert row.errors == {} and np.isfinite(row.values["alpha"])
    assert engine.states["a"].known is None


def test_a_large_layer_is_estimated_between_two_alphas(tmp_path: Path) -> None:
    """Exact at first, estimates within their errors after a small move, exact again after a large one."""
    arrays = {"a": trained(1500, 1200)}
    quantities = resolve(["log_spectral_norm", "stable_rank", "alpha", "alpha_evidence", "sigma", "alpha_hill_top"])
    engine, first = started(arrays, tmp_path, quantities)
    move(arrays["a"], 0.008, seed=1)
    row = engine.measure()[0]
    assert set(row.values) == {"log_spectral_norm", "stable_rank", "alpha_hill_top"} == set(row.errors)
    assert row.density is None
    exact = started(arrays, tmp_path / "exact", quantities, tolerance=None)[1][0]
    for name, error in row.errors.items():
        assert abs(row.values[name] - exact.values[name]) <= error
    move(arrays["a"], 0.008, seed=2)
    again = engine.measure()[0]
    assert np.isfinite(again.values["alpha"]) and again.errors == {}
    assert np.isfinite(first[0].values["alpha"])


def test_without_alpha_no_large_spectrum_is_ever_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even at W_0: `scale_collapse` then has the errors of both."""
    monkeypatch.setattr(spectrum, "symmetric_eigenvalues", lambda *_, **__: pytest.fail("a spectrum was computed"))
    arrays = {"a": trained(1500, 1200)}
    quantities = resolve(["log_spectral_norm", "stable_rank", "scale_collapse", "frobenius_norm"])
    engine, first = started(arrays, tmp_path, quantities)
    assert first[0].errors and first[0].status == "ok"
    arrays["a"] *= 2.0
    row = engine.measure()[0]
    assert abs(row.values["scale_collapse"] - np.log10(2.0)) <= row.errors["scale_collapse"] < 0.0043


def test_a_resumed_run_gives_the_same_rows(tmp_path: Path) -> None:
    """What stands, what is estimated and what is due are those of a run that was not interrupted."""
    arrays = {"a": trained(300, 260), "b": trained(1500, 1200)}
    quantities = resolve(["stable_rank", "log_spectral_norm", "alpha", "scale_collapse"])
    engine, _ = started(arrays, tmp_path, quantities)

    def step(number: int, of: Engine) -> list[LayerRow]:
        move(arrays["a"], 5e-5, seed=number)
        move(arrays["b"], 2e-3, seed=number)
        return of.measure()

    step(0, engine)
    plain = json.loads(json.dumps({name: _plain(s.memory()) for name, s in engine.states.items()}))
    saved = {name: array.copy() for name, array in arrays.items()}
    uninterrupted = [step(number, engine) for number in (1, 2)]
    for name, array in saved.items():
        arrays[name][...] = array
    other = Engine(specs_of(arrays), quantities, tolerance=TOLERANCE)
    other.baseline = engine.baseline
    other.restore({name: decode(LayerMemory, value) for name, value in plain.items()}, {})
    resumed = [step(number, other) for number in (1, 2)]
    assert [row.errors for row in resumed[0]] == [row.errors for row in uninterrupted[0]]
    assert resumed == uninterrupted
    assert all(row.errors for row in resumed[0])


def _plain(memory: LayerMemory) -> object:
    from dataclasses import asdict

    state = RunState("", "", 0, 0, 0, 0.0, 0.0, {"x": memory}, {}, {})
    assert asdict(state)
    return state.plain()["layers"]["x"]


@pytest.mark.parametrize("accuracy", ["exact", 0.01])
def test_a_training_ends_in_the_same_weights_and_its_record_says_what_is_exact(
    tmp_path: Path, accuracy: float | str
) -> None:
    """The plain loop at a tiny rate: after W_0 values stand, and α waits."""
    torch = pytest.importorskip("torch")
    from ww_callbacks import SpectralMonitor

    def train(monitored: bool) -> tuple[dict[str, np.ndarray], object]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(300, 280), torch.nn.ReLU(), torch.nn.Linear(280, 4))
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        monitor = (
            SpectralMonitor(model, log_dir=str(tmp_path / "run"), accuracy=accuracy, verbose=0) if monitored else None
        )
        for step in range(1, 5):
            loss = model(torch.randn(8, 300)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if monitor is not None:
                monitor.observe(step=step, epoch=step, train_loss=loss.item())
        if monitor is not None:
            monitor.close()
        return {n: w.numpy() for n, w in model.state_dict().items()}, monitor and monitor.history

    plain, _ = train(False)
    watched, history = train(True)
    assert all(np.array_equal(plain[name], watched[name]) for name in plain)
    layer = history[history["layer"] == "0.weight"]
    exact = layer["alpha"].notna().tolist()
    if accuracy == "exact":
        assert all(exact) and "stable_rank_error" not in history
    else:
        assert exact == [True] + [False] * 4
        assert layer["stable_rank_error"].notna().tolist() == [False] + [True] * 4
        assert layer["stable_rank"].notna().all() and layer["frobenius_norm"].notna().all()
