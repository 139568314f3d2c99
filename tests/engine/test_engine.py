import numpy as np
import pytest

import ww_callbacks.engine.engine as engine_module
from ww_callbacks.engine.baseline_store import Baseline
from ww_callbacks.engine.engine import Engine
from ww_callbacks.spectral.layers.spec import LayerSpec
from ww_callbacks.spectral.linalg import spectrum
from ww_callbacks.spectral.measuring.registry import resolve


def specs_of(arrays, broken=()):
    def reader(name):
        def read():
            if name in broken:
                raise RuntimeError("gone")
            return [arrays[name]]

        return read

    return [
        LayerSpec(n, (n,), "dense", "Linear", a.shape, (a.shape,), read=reader(n), arrange=lambda given: list(given))
        for n, a in arrays.items()
    ]


@pytest.fixture
def arrays():
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=(30, 40)).astype(np.float32) for name in "abc"}


def started(arrays, folder, **options):
    specs = specs_of(arrays, options.pop("broken", ()))
    engine = Engine(specs, resolve(), **options)
    capture = engine.capture()
    engine.baseline = Baseline.write(
        folder, {k: v for k, v in capture.arrays.items() if not isinstance(v, Exception)}, specs
    )
    return engine, engine.measure(capture)


def test_the_first_snapshot_is_w0(arrays, tmp_path):
    _, rows = started(arrays, tmp_path)
    assert [r.layer for r in rows] == ["a", "b", "c"]
    for row in rows:
        assert row.status == "ok" and row.changed
        assert row.values["distance_from_init"] == 0.0
        assert row.values["cosine_to_init"] == pytest.approx(1.0)
        assert row.values["scale_collapse"] == pytest.approx(0.0, abs=1e-12)
        assert np.isnan(row.values["update_norm"])
        assert row.values["frobenius_norm"] == pytest.approx(np.linalg.norm(arrays[row.layer].astype(float)))


def test_only_what_changed_is_measured_again(arrays, tmp_path, monkeypatch):
    engine, before = started(arrays, tmp_path)
    spectra = []
    real = engine_module.merged
    monkeypatch.setattr(engine_module, "merged", lambda *given: spectra.append(1) or real(*given))
    arrays["b"] *= 2.0
    rows = engine.measure(engine.capture())
    assert [r.changed for r in rows] == [False, True, False]
    assert len(spectra) == 1
    assert rows[0].values["alpha"] == before[0].values["alpha"]
    assert rows[0].values["update_norm"] == 0.0
    assert rows[1].values["update_norm"] == pytest.approx(np.linalg.norm(arrays["b"].astype(float)) / 2)
    assert rows[1].values["relative_distance_from_init"] == pytest.approx(1.0)
    assert rows[1].values["scale_collapse"] == pytest.approx(np.log10(2.0))


@pytest.mark.parametrize("tolerance", [None, 0.01])
def test_what_refers_to_w0_needs_nothing_else_to_be_asked_for(arrays, tmp_path, tolerance):
    specs = specs_of(arrays)
    engine = Engine(specs, resolve("scale_collapse"), tolerance=tolerance)
    engine.baseline = Baseline.write(tmp_path, {name: [a.copy()] for name, a in arrays.items()}, specs)
    assert engine.measure()[0].values["scale_collapse"] == pytest.approx(0.0, abs=1e-9)
    arrays["a"] *= 2.0
    assert engine.measure()[0].values["scale_collapse"] == pytest.approx(np.log10(2.0))


def test_the_update_is_measured_from_the_last_snapshot(arrays, tmp_path):
    engine, _ = started(arrays, tmp_path)
    for size in (1.0, 3.0):
        arrays["a"] += np.float32(size / np.sqrt(arrays["a"].size))
        row = engine.measure(engine.capture())[0]
        assert row.values["update_norm"] == pytest.approx(size, rel=1e-3)


def test_cheap_snapshots_need_no_spectrum(arrays, tmp_path, monkeypatch):
    engine, _ = started(arrays, tmp_path)
    arrays["a"] += np.float32(0.1)
    with monkeypatch.context() as patch:
        patch.setattr(spectrum, "symmetric_eigenvalues", lambda *_, **__: pytest.fail("a spectrum was computed"))
        row = engine.measure(engine.capture(), "cheap")[0]
    assert set(row.values) == {q.name for q in resolve() if q.cost == "cheap"}
    full = engine.measure(engine.capture(), "full")[0]
    assert not full.changed and np.isfinite(full.values["log_spectral_norm"])
    assert full.density is not None


@pytest.mark.parametrize(("value", "status"), [(np.nan, "non-finite"), (np.inf, "non-finite")])
def test_non_finite_weights_are_said_and_nothing_is_lost(arrays, tmp_path, value, status):
    engine, _ = started(arrays, tmp_path)
    arrays["b"][3, 4] = value
    rows = engine.measure(engine.capture())
    assert rows[1].status == status and np.isnan(rows[1].values["alpha"])
    assert rows[0].status == "ok"
    arrays["b"][3, 4] = 0.5
    assert engine.measure(engine.capture())[1].status == "ok"


def test_a_layer_that_cannot_be_read(arrays, tmp_path):
    _, rows = started(arrays, tmp_path, broken=("b",))
    assert rows[1].status == "failed: RuntimeError: gone"
    assert np.isnan(rows[1].values["alpha"]) and rows[1].values["alpha_evidence"] == ""
    assert rows[0].status == rows[2].status == "ok"


def test_the_number_of_workers_changes_nothing(arrays, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    _, alone = started(arrays, one, workers=1)
    _, together = started(arrays, two, workers=2)
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_equal(dict(a.values), dict(b.values))


def test_the_baseline_is_mapped_and_read_only(arrays, tmp_path):
    engine, _ = started(arrays, tmp_path)
    kept = Baseline.open(tmp_path).get("a")
    np.testing.assert_array_equal(kept[0], arrays["a"])
    assert isinstance(kept[0], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        kept[0][0, 0] = 1.0
    assert engine.baseline.get("unknown") is None


def test_a_mutilated_baseline_is_refused_by_name(arrays, tmp_path):
    started(arrays, tmp_path)
    path = tmp_path / "w0.safetensors"
    whole = path.read_bytes()
    generator = np.random.default_rng(1)
    for cut in [*generator.integers(0, len(whole), 50), 0, 7, 9]:
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"w0\.safetensors is not a baseline"):
            Baseline.open(tmp_path)
    for _ in range(500):
        mutated = bytearray(whole)
        mutated[generator.integers(0, 400)] = generator.integers(0, 256)
        path.write_bytes(mutated)
        try:
            Baseline.open(tmp_path)
        except ValueError as error:
            assert "w0.safetensors" in str(error)
