"""``ww_callbacks.spectral.analyze`` on modules, mappings and files."""

import gc
import json
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import nn

from tests.spectral.golden import power_law
from ww_callbacks import spectral
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights
from ww_callbacks.spectral.quantities.tail.power_law import alpha_evidence

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.Linear(60, 80), nn.Linear(80, 30))


def test_the_table_has_one_row_a_layer_in_depth_order(model):
    result = spectral.analyze(model)
    assert list(result.layers["layer"]) == ["0.weight", "2.weight", "3.weight"]
    assert list(result.layers["matrices"]) == ["24×27", "80×60", "30×80"]
    assert set(result.layers["status"]) == {"ok"}
    sigma = torch.linalg.svdvals(model[2].weight.detach().double()).numpy()
    row = result.layers.set_index("layer").loc["2.weight"]
    assert row["log_spectral_norm"] == pytest.approx(2 * np.log10(sigma[0]), rel=1e-9)
    assert row["frobenius_norm"] == pytest.approx(np.sqrt((sigma**2).sum()), rel=1e-9)
    assert "update_norm" not in result.layers
    assert "distance_from_init" not in result.layers


def test_every_source_of_the_same_weights_gives_the_same_numbers(model, tmp_path):
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "model.ckpt")
    expected = spectral.analyze(model).layers.drop(columns="type")
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    for source in (model.state_dict(), arrays, tmp_path / "model.safetensors", str(tmp_path / "model.ckpt")):
        pd.testing.assert_frame_equal(spectral.analyze(source).layers.drop(columns="type"), expected, check_exact=True)


def test_the_number_of_workers_changes_nothing(model):
    one, three = (spectral.analyze(model, workers=n).layers for n in (1, 3))
    pd.testing.assert_frame_equal(one, three, check_exact=True)


def test_bad_layers_say_so_and_are_not_averaged_in(model):
    good = spectral.analyze(nn.Sequential(model[0], model[2])).summary
    with torch.no_grad():
        model[3].weight[0, 0] = torch.nan
    result = spectral.analyze(model)
    row = result.layers.set_index("layer").loc["3.weight"]
    assert row["status"] == "non-finite"
    assert np.isnan(row["effective_rank"])
    assert result.summary == pytest.approx(good, nan_ok=True)
    assert "1 of them not ok" in result.heading()


def test_a_layer_that_cannot_be_read_does_not_lose_the_others(model, tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)

    def cut(done, total, name):
        path.write_bytes(path.read_bytes()[:2000])  # the file is overwritten while it is read

    result = spectral.analyze(path, workers=1, progress=cut)
    assert result.layers["status"].str.startswith("failed: ").sum() == 2
    assert (result.layers["status"] == "ok").sum() == 1


def test_distances_from_a_baseline(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "w0.pt")
    before = model[2].weight.detach().clone()
    with torch.no_grad():
        model[2].weight.mul_(1.1)
        model[3] = nn.Linear(80, 31)
    result = spectral.analyze(model, baseline=tmp_path / "w0.pt")
    rows = result.layers.set_index("layer")
    assert rows.loc["0.weight", "distance_from_init"] == 0
    assert rows.loc["2.weight", "relative_distance_from_init"] == pytest.approx(0.1, rel=1e-5)
    assert rows.loc["2.weight", "distance_from_init"] == pytest.approx(0.1 * before.norm().item(), rel=1e-5)
    assert rows.loc["2.weight", "scale_collapse"] == pytest.approx(np.log10(1.1), rel=1e-5)
    assert result.unmatched == ("3.weight",)
    assert np.isnan(rows.loc["3.weight", "distance_from_init"])
    with pytest.raises(ValueError, match="baseline holds none of the layers"):
        spectral.analyze(model, baseline={"other": np.eye(3)})


def test_a_baseline_file_is_arranged_as_the_model_arranges_it(tmp_path):
    """The groups of a convolution cannot be told from a file, but the model knows them."""
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Linear(4, 4))
    torch.save(model.state_dict(), tmp_path / "w0.pt")
    for convolution in ("matrix", "slices", "separate"):
        result = spectral.analyze(model, "distance_from_init", baseline=tmp_path / "w0.pt", convolution=convolution)
        assert result.unmatched == ()
        assert (result.layers["distance_from_init"] == 0).all()


def test_quantities_that_need_a_baseline_are_refused_without_one(model):
    with pytest.raises(ValueError, match="name a `baseline`"):
        spectral.analyze(model, ["distance_from_init"])
    with pytest.raises(ValueError, match="Did you mean `effective_rank`"):
        spectral.analyze(model, "efective_rank")


def test_filters(model):
    assert list(spectral.analyze(model, "norm", layers="2.*").layers["layer"]) == ["2.weight"]
    assert list(spectral.analyze(model, "norm", exclude=["2.*"], types="Linear").layers["layer"]) == ["3.weight"]
    assert list(spectral.analyze(model, "norm", min_eigenvalues=50).layers["layer"]) == ["2.weight"]
    with pytest.raises(ValueError, match=r"'3.wieght' in `layers` matches nothing. Near matches: '3.weight'"):
        spectral.analyze(model, layers="3.wieght")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (nn.ReLU(), ValueError, "It has no parameters"),
        ({}, ValueError, "It has no parameters"),
        ({"bias": np.ones(3)}, ValueError, "a vector: it has no spectrum"),
        (nn.Sequential(nn.LazyLinear(3)), ValueError, "first batch"),
        (3, TypeError, "but got builtins.int"),
        ("no/such/file", FileNotFoundError, "no/such/file"),
    ],
)
def test_nothing_to_measure_is_refused(source, error, message):
    with pytest.raises(error, match=message):
        spectral.analyze(source)
    if error is TypeError:
        with pytest.raises(error, match=message):
            spectral.describe(source)


def test_one_matrix():
    matrix = np.random.default_rng(0).standard_normal((40, 30))
    (row,) = spectral.analyze(matrix).layers.to_dict("records")
    assert row["layer"] == "matrix"
    assert row["alpha_evidence"] == alpha_evidence(LayerWeights([matrix]))


def test_progress_is_told_of_every_layer(model):
    told = []
    spectral.analyze(model, "norm", workers=2, progress=lambda *args: told.append(args))
    assert [(done, total) for done, total, _ in told] == [(1, 3), (2, 3), (3, 3)]
    assert {name for *_, name in told} == {"0.weight", "2.weight", "3.weight"}


def test_labels_only_where_the_evidence_suffices():
    heavy = power_law(1.6)
    rows = spectral.analyze({"heavy": heavy, "small": heavy[:10, :10]}).layers.set_index("layer")
    assert rows.loc["small", "warning"] == ""
    for _, row in rows.iterrows():
        sure = row["alpha_evidence"] == "sufficient"
        expected = "over-trained" if row["alpha"] < 2 else "under-trained" if row["alpha"] > 6 else ""
        assert row["warning"] == (expected if sure else "")
    assert rows.loc["heavy", "warning"] == "over-trained"


def test_representations(model):
    result = spectral.analyze({"<b>": np.eye(3), "w": np.eye(4)})
    assert "<b>" in repr(result)
    assert "effective_rank" in repr(result)
    page = result._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "more in `layers`" in page and "more in `layers`" in repr(result)
    assert list(result.describe()["layer"]) == ["<b>", "w"]
    short = spectral.analyze(np.eye(3), "norm")
    assert "norm" in short.shown() and "more in" not in repr(short) + short._repr_html_()


def test_a_result_can_be_kept_without_its_model(model):
    result = spectral.analyze(model)
    kept = pickle.loads(pickle.dumps(result))
    pd.testing.assert_frame_equal(kept.layers, result.layers)
    pd.testing.assert_frame_equal(kept.describe(), spectral.describe(model))
    alive = weakref.ref(model[2].weight)
    model[2] = nn.Identity()
    gc.collect()
    assert alive() is None


def test_describe_says_what_was_done_with_every_parameter(model):
    table = spectral.describe(model)
    assert set(table["parameters"]) == {name for name, _ in model.named_parameters()}
    assert list(table[table["measured"]]["layer"]) == ["0.weight", "2.weight", "3.weight"]
    assert (table["what"][~table["measured"]] != "").all()
    assert spectral.describe(model, "slices")["matrices"][0] == "9 of 24×3"


def test_random_state_is_not_touched(model):
    np.random.seed(0)
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    spectral.analyze(model)
    assert (np.random.get_state()[1] == before).all()
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_threads_that_read_parametrised_layers_leave_no_trace():
    torch.manual_seed(0)
    norm = nn.utils.parametrizations.spectral_norm
    model = nn.Sequential(*[norm(nn.Linear(20, 20)) for _ in range(12)])
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    for _ in range(5):
        spectral.analyze(model, "norm", workers=8)
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_importing_and_analysing_arrays_imports_no_framework(tmp_path):
    safetensors.torch.save_file({"w": torch.eye(3).bfloat16()}, tmp_path / "model.safetensors")
    code = (
        "import sys, numpy as np\nfrom ww_callbacks import spectral\n"
        "assert 'pandas' not in sys.modules\n"
        f"spectral.analyze({str(tmp_path / 'model.safetensors')!r})\n"
        "spectral.analyze({'a': np.eye(3)})\n"
        "import ww_callbacks.spectral.analysis\n"
        "assert callable(spectral.analyze)\n"
        "assert not {'torch', 'keras', 'jax', 'onnx', 'transformers'} & set(sys.modules), 'a framework was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shape", ["40x16x3x3", "64x48x1x1", "24x32x5x3"])
def test_convolutions_as_weightwatcher_has_them(shape):
    """WeightWatcher 0.7.7's numbers on W[o, j] = frac(sin(12.9898·o + 78.233·j)·43758.5453) − ½, j over in·kernel."""
    golden = json.loads((DATA / "weightwatcher-0.7.7-conv2d.json").read_bytes())[shape]
    out, *rest = map(int, shape.split("x"))
    o, j = np.arange(out)[:, None], np.arange(np.prod(rest))[None]
    weight = (np.sin(12.9898 * o + 78.233 * j) * 43758.5453 % 1.0 - 0.5).astype(np.float32).reshape(out, *rest)
    (row,) = spectral.analyze({"weight": weight}, list(golden), convolution="weightwatcher").layers.to_dict("records")
    for name in golden:
        assert row[name] == pytest.approx(golden[name], rel=1e-9), name


@pytest.mark.parametrize(
    ("quantities", "message"),
    [
        ([], "at least one quantity"),
        ("update_norm", "which an analysis has not"),
        ("distance_from_init", "name a `baseline`"),
        ("raw", "Did you mean `distance_from_init`"),
        ("alpha_hat", "Did you mean `alpha_weighted`"),
        ("All", "Did you mean `all`"),
        ("log_norm,alpha", "give several as a list"),
    ],
)
def test_wrong_quantities_are_refused_with_the_remedy(quantities, message):
    with pytest.raises(ValueError, match=message):
        spectral.analyze(np.eye(3), quantities)


@pytest.mark.parametrize("wrong", [{"seed": "a"}, {"seed": -1}, {"seed": True}, {"min_eigenvalues": 0}])
def test_numbers_out_of_their_range_are_refused(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` to be a whole number from"):
        spectral.analyze(np.eye(3), "norm", **wrong)
    assert spectral.analyze(np.eye(3), "norm", seed=np.int64(3)).layers["status"].tolist() == ["ok"]


@pytest.mark.parametrize(
    "wrong", [{"quantities": None}, {"quantities": [1]}, {"layers": 3}, {"types": torch.nn.Linear}, {"exclude": [b"a"]}]
)
def test_names_that_are_no_texts_are_refused(wrong):
    with pytest.raises(TypeError, match=f"Expected `{next(iter(wrong))}` as a text or several but got "):
        spectral.analyze(np.eye(3), **wrong)


def test_names_may_come_from_anything_that_gives_them():
    assert "D" in spectral.analyze(np.eye(3), iter(["alpha", "D"])).layers


def test_an_array_of_other_than_two_dimensions_is_refused_with_its_shape():
    with pytest.raises(TypeError, match=r"ndarray of shape \(3, 4, 5\): give it a name, as a mapping, or make it 2-D"):
        spectral.analyze(np.ones((3, 4, 5)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_baseline_that_is_not_finite_is_said_in_the_status(bad):
    w = np.random.default_rng(0).standard_normal((20, 10))
    before = w.copy()
    before[0, 0] = bad
    row = spectral.analyze(w, ["norm", "distance_from_init", "scale_collapse"], baseline=before).layers.iloc[0]
    assert "scale_collapse, distance_from_init: ValueError: the baseline's norm is not finite" in row["status"]
    assert np.isnan(row["distance_from_init"]) and np.isnan(row["scale_collapse"]) and np.isfinite(row["norm"])


def test_a_baseline_of_zeros_has_no_scale_to_compare_with():
    w = np.random.default_rng(0).standard_normal((20, 10))
    row = spectral.analyze(w, ["scale_collapse"], baseline=np.zeros((20, 10))).layers.iloc[0]
    assert np.isnan(row["scale_collapse"])


def test_layers_that_the_baseline_lacks_are_named():
    w = {"a": np.ones((3, 4)), "b": np.ones((3, 4))}
    result = spectral.analyze(w, ["distance_from_init"], baseline={"a": np.ones((3, 4))})
    assert "1 layer not in the baseline (b)" in result.heading()
