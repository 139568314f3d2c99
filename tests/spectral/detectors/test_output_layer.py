"""The output layer, also where it shares its weights with the embedding or is not watched."""

import pytest

from ww_callbacks.spectral.detectors import output_layer
from ww_callbacks.spectral.layers import inspect

torch = pytest.importorskip("torch")


def test_the_last_layer_with_a_matrix():
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 3), torch.nn.LayerNorm(3), torch.nn.Linear(3, 2), torch.nn.LayerNorm(2)
    )
    assert output_layer(inspect(model)) == "2.weight"


def test_a_tied_output_is_its_embedding():
    model = torch.nn.ModuleDict(
        {"embed": torch.nn.Embedding(9, 4), "hidden": torch.nn.Linear(4, 4), "head": torch.nn.Linear(4, 9, bias=False)}
    )
    model["head"].weight = model["embed"].weight
    assert output_layer(inspect(model)) == "embed.weight"


def test_a_model_without_matrices_has_none():
    assert output_layer(inspect(torch.nn.LayerNorm(3))) is None
    assert output_layer([]) is None
