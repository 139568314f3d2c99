"""Every reproduction runs with ``--quick`` and its report holds what it is about; no trend is asserted at that size."""

import importlib
import json
import math

import pytest

pytest.importorskip("torch", reason="needs torch")


def quick(name, tmp_path, monkeypatch):
    script = importlib.import_module(f"examples.reproductions.{name}")
    # Figures need a browser and are drawn in separate processes: tested once, below.
    monkeypatch.setattr("examples.reproductions._report._write_svgs", lambda figures: None)
    numbers = script.main(["--quick", "--out", str(tmp_path)])
    report = (tmp_path / f"{name}.md").read_text()
    kept = json.loads((tmp_path / f"{name}.json").read_text())
    assert report.startswith("# ") and "Settings: " in report and kept["settings"]
    return numbers, report


def test_hessian_rank(tmp_path, monkeypatch):
    numbers, report = quick("hessian_rank", tmp_path, monkeypatch)
    assert numbers["wrong"] == 0 and "150 / 175 / 250" in report
    assert len(numbers["linear"]) == 2 * 3 * 3


def test_gaussian_products(tmp_path, monkeypatch):
    numbers, _ = quick("gaussian_products", tmp_path, monkeypatch)
    assert numbers["largest difference"] < 0.06
    linear = [row["linear"] for row in numbers["mlp"]]
    assert linear[0] > 2 * linear[-1]


def test_rank_diminishing(tmp_path, monkeypatch):
    numbers, report = quick("rank_diminishing", tmp_path, monkeypatch)
    lost = {row["component"]: row for row in numbers["components"]}
    assert lost["batch norm"]["rank"] == 512 and lost["mean pooling 2×2"]["rank"] == 128
    assert lost["layer norm"]["lost beyond its width"] in (1.0, 2.0)
    assert {"depth MLP", "depth residual CNN", "depth transformer", "independence", "orthogonal"} <= set(numbers)
    assert "149" in report and "residual branch's share" in report
    for row in numbers["depth residual CNN"]:
        assert row["Jacobian rank, 4×4 centre, trained"] <= 16


def test_effective_rank_mnist_on_digits(tmp_path, monkeypatch):
    pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
    numbers, report = quick("effective_rank_mnist", tmp_path, monkeypatch)
    assert [row["epoch"] for row in numbers["epochs"]] == [0, 1, 2]
    assert "728.74" in report
    for key in ("compression dropout .5", "compression L1"):
        sizes = [row["size"] for row in numbers[key]]
        assert sizes == sorted(sizes) and sizes[0] == pytest.approx(2 * 2 / 100)


def test_scale_collapse(tmp_path, monkeypatch):
    pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
    numbers, report = quick("scale_collapse", tmp_path, monkeypatch)
    scale = {row["run"]: row["scale_collapse, least layer, at the end"] for row in numbers["runs"]}
    assert scale["distilled, weight decay 20"] < scale["pruned"] < 0 < 0.1 + scale["fine-tuned"]
    assert "the callback said" in report


def test_twins(tmp_path, monkeypatch):
    numbers, _ = quick("twins", tmp_path, monkeypatch)
    good, poor = numbers["summary"]
    assert good["test accuracy"] > poor["test accuracy"]
    assert sum(row["enough data"] for row in numbers["histogram"]) == 3


def test_model_series(tmp_path, monkeypatch):
    numbers, _ = quick("model_series", tmp_path, monkeypatch)
    assert len(numbers["models"]) == 8 and {row["series"] for row in numbers["series"]} >= {"all"}
    assert all(math.isfinite(row["RMSE"]) for row in numbers["series"] if row["metric"] == "log_spectral_norm")


def test_phases(tmp_path, monkeypatch):
    from ww_callbacks.spectral.random_matrix.phases import PHASES

    numbers, _ = quick("phases", tmp_path, monkeypatch)
    assert all(row["layer 2"] in PHASES for row in numbers["batches"])
    (row,) = numbers["semantics"]
    assert 1 <= row["power-law tail: rank"] <= row["documents"]


def test_a_missing_browser_costs_only_the_figures(tmp_path, monkeypatch, capsys):
    from examples.reproductions._report import Report

    pytest.importorskip("plotly", reason="needs the extra figures")
    report = Report("name", "Title", {"seed": 0})
    report.table("rows", [{"a": 1.5, "b": float("nan")}], "Rows")
    report.figure("line", "Line", "x", "y", {"one": ([1, 2], [3, 4])})
    monkeypatch.setattr("examples.reproductions._report._IMAGES", "raise SystemExit(1)")
    report.write(tmp_path)
    assert json.loads((tmp_path / "name.json").read_text())["rows"] == [{"a": 1.5, "b": None}]
    assert "| 1.5 |  |" in (tmp_path / "name.md").read_text()
    assert "could not be drawn" in capsys.readouterr().out


def test_larger_data_that_is_not_there_is_asked_for(monkeypatch):
    from examples.reproductions import twins

    monkeypatch.delenv("WW_CALLBACKS_DATA", raising=False)
    with pytest.raises(SystemExit, match="WW_CALLBACKS_DATA"):
        twins.main([])
