"""Every cell of the table in docs/files.md: each layout analysed, compared and taken as a baseline, by the commands."""

import json
import re
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
import pytest

from tests.spectral.layers.files.layouts import LAYOUTS, network, weights
from ww_callbacks.commands import EXIT_OK, main
from ww_callbacks.spectral.layers import inspect

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own
PAGE = Path(__file__).parents[4] / "docs" / "files.md"
GROWTH = 1.25
"""How much larger the weights of the second file are."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Layout → the files of two networks and their rounding, each written once."""
    made = {}

    def write(name):
        if name not in made:
            function, packages, rounding = LAYOUTS[name]
            if missing := [package for package in packages if PathFinder.find_spec(package) is None]:
                pytest.skip(f"{', '.join(missing)} is not installed")
            folders = (tmp_path_factory.mktemp("before"), tmp_path_factory.mktemp("after"))
            nets = (network(), network(GROWTH))
            made[name] = (*map(str, function(list(zip(folders, nets, strict=True)))), rounding)
        return made[name]

    return write


@pytest.fixture
def printed(capsys):
    """What a command prints as JSON."""

    def run(*arguments):
        capsys.readouterr()
        assert main([*arguments, "--json", "--quiet"]) == EXIT_OK
        return json.loads(capsys.readouterr().out)

    return run


def expected_norms(name, path):
    """‖W‖_F of the weights that the layout holds."""
    if "Hugging Face" in name:
        from tests.spectral.layers.files.layouts import _llama

        return [np.linalg.norm(m) for s in inspect(_llama(network())) if not s.skipped for m in s.matrices()]
    if "PEFT" in name:
        import safetensors.numpy

        held = safetensors.numpy.load_file(Path(path) / "adapter_model.safetensors")
        pairs = [(held[key], held[key.replace("lora_A", "lora_B")]) for key in held if "lora_A" in key]
        return [np.linalg.norm(2.0 * b @ a) for a, b in pairs]
    return [np.linalg.norm(weight) for weight in weights(network()).values()]


@pytest.mark.parametrize("name", LAYOUTS)
def test_analyze_measures_the_weights_and_nothing_else(written, printed, name):
    path, _, rounding = written(name)
    rows = printed("analyze", path, "--quantities", "frobenius_norm")["layers"]
    norms, there = sorted(row["frobenius_norm"] for row in rows), sorted(expected_norms(name, path))
    assert len(norms) == len(there), [row["layer"] for row in rows]
    np.testing.assert_allclose(norms, there, rtol=max(rounding, 1e-5))


@pytest.mark.parametrize("name", LAYOUTS)
def test_compare_says_how_much_each_weight_changed(written, printed, name):
    before, after, rounding = written(name)
    document = printed("compare", before, after)
    assert not document["only_before"] and not document["only_after"]
    sizes = [row["relative_distance_from_init"] for row in document["layers"]]
    assert len(sizes) == len(expected_norms(name, before))
    np.testing.assert_allclose(sizes, GROWTH - 1, atol=max(rounding, 1e-5))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_of_each_layout_is_a_baseline(written, printed, name):
    before, after, rounding = written(name)
    quantity = "relative_distance_from_init"
    document = printed("analyze", after, "--baseline", before, "--quantities", quantity)
    assert document["unmatched"] == []
    sizes = [row[quantity] for row in document["layers"]]
    np.testing.assert_allclose(sizes, GROWTH - 1, atol=max(rounding, 1e-5))


@pytest.mark.parametrize("name", ["training checkpoint", "`torch.compile`d", "Lightning"])
def test_prefixes_do_not_keep_a_checkpoint_from_its_bare_network(written, printed, name):
    (layout,) = [key for key in LAYOUTS if key.startswith(name)]
    before, (_, after, _) = written("safetensors")[0], written(layout)
    document = printed("compare", before, after)
    sizes = [row["relative_distance_from_init"] for row in document["layers"]]
    assert len(sizes) == 2
    np.testing.assert_allclose(sizes, GROWTH - 1, rtol=1e-5)


def test_the_table_of_the_docs_is_that_of_the_tests():
    table = PAGE.read_text(encoding="utf-8").partition("## What is read")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| (.+) \|$", table, re.MULTILINE)
    cells = {
        name.strip(): [cell.strip() for cell in rest.split("|")] for name, rest in rows if name.strip() != "layout"
    }
    assert list(cells) == list(LAYOUTS)
    assert all(row[:3] == ["yes", "yes", "yes"] for row in cells.values())
