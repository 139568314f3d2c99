"""State files: whole or named in an error, whatever is in them; nothing loaded from a disk is ever executed."""

import ast
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from ww_callbacks.engine.baseline_store import Baseline
from ww_callbacks.engine.layer_memory import LayerMemory
from ww_callbacks.integrations.schema import Alert
from ww_callbacks.lifecycle.saved_state import RunState, Saved, read_sidecar, write_sidecar

ROOT = Path(__file__).parents[2]


def saved():
    alert = Alert(
        "explosion",
        "critical",
        ("a",),
        {"norm": 3.0},
        1,
        0.5,
        "It grew.",
        "Lower the rate.",
        step=2,
        epoch=1.0,
        action="stop",
    )
    state = RunState(
        run_id="abc",
        directory="/nowhere",
        step=8,
        snapshots=3,
        first_step=0,
        spent=0.1,
        elapsed=2.0,
        layers={
            "a": LayerMemory("00ff", {"alpha": float("nan"), "alpha_evidence": "sufficient"}, "ok", {"x": 1.5}, 0.01)
        },
        detectors={"overtraining": {"slopes": [[1.0, None], {"deep": [True]}]}},
        desk={"count": 3, "said": {"explosion": {"a": [1, 2]}}},
        alerts=(alert,),
        known={"spectral/alpha/median": 3.5},
        adapter={"loss": [1.5, 4], "measured": 8},
    )
    return Saved(state, {"a": [np.arange(6.0, dtype=np.float32).reshape(2, 3)]})


def test_round_trip(tmp_path):
    write_sidecar(tmp_path, "state-2", saved())
    back = read_sidecar(tmp_path, "state-2")
    np.testing.assert_equal(back.state.plain(), saved().state.plain())
    np.testing.assert_array_equal(back.previous["a"][0], saved().previous["a"][0])
    write_sidecar(tmp_path, "state-2", Saved(saved().state))
    assert read_sidecar(tmp_path, "state-2").previous == {}, "the weights of an older state are not taken for its own"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_thousands_of_mutations(tmp_path, suffix):
    write_sidecar(tmp_path, "state", saved())
    path = tmp_path / f"state.{suffix}"
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    began = time.perf_counter()
    for _ in range(2000):
        mutated = bytearray(whole)
        for place in generator.integers(0, min(len(whole), 700), generator.integers(1, 6)):
            mutated[place] = generator.integers(0, 256)
        if generator.random() < 0.2:
            del mutated[generator.integers(0, len(mutated)) :]
        path.write_bytes(mutated)
        try:
            read_sidecar(tmp_path, "state")
        except ValueError as error:
            refused += 1
            assert path.name in str(error)
    assert refused > 500
    assert time.perf_counter() - began < 60


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"run_id":' + "9" * 10_000 + "}", "null", "[]", "{}", "\x00", '"x"', ""]
)
def test_hostile_json(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(ValueError, match=r"state\.json"):
        read_sidecar(tmp_path, "state")


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_in_the_place_of_a_file_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("state.json", "state.safetensors", "w0.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"state\.json"):
        read_sidecar(tmp_path, "state")
    with pytest.raises(ValueError, match=r"w0\.safetensors"):
        Baseline.open(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_newer_layout_is_refused():
    value = saved().state.plain() | {"version": 99}
    with pytest.raises(ValueError, match="newer version"):
        RunState.parse(value, "state.json")


def test_nothing_in_the_packages_loads_code():
    """No pickle, eval or exec of Python's; torch loads weights only.

    One file unpickles, with an unpickler that finds no class but those of tensors: tests/spectral/layers/files has the
    tests that nothing of a checkpoint runs.
    """
    reader = ROOT / "ww_callbacks/spectral/layers/files/torch_checkpoint.py"
    assert "def find_class" in reader.read_text()
    for package in ("spectral", "integrations", "ww_callbacks"):
        for path in (ROOT / package).rglob("*.py"):
            if path.resolve() == reader.resolve():
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                    assert not names & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}, path
                if not isinstance(node, ast.Call):
                    continue
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "compile", "pd.read_pickle"), (path, node.lineno)
                options = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert called != "torch.load" or options.get("weights_only") == "True", (path, node.lineno)
                assert options.get("allow_pickle", "False") == "False", (path, node.lineno)
