"""The harmless matrix on the backend of this process: with the callback, a user's run is bit-for-bit the same."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import pytest

pytest.importorskip("keras", reason="needs the extra keras")

from tests.adapters.harmless import keras_loops
from tests.adapters.harmless.checks import assert_same


@pytest.mark.parametrize(("case", "watch"), [*((case, "watch") for case in keras_loops.CASES), ("plain", "quietly")])
def test_the_run_is_the_same_with_the_callback_as_without(tmp_path, case, watch, bare):
    (tmp_path / "watched").mkdir()
    watched = keras_loops.CASES[case](tmp_path / "watched", getattr(keras_loops, watch))
    assert_same(bare(case), watched)
    assert list((tmp_path / "watched").rglob("spectral.jsonl")), "the watched run was watched"
    assert {p.name for p in tmp_path.iterdir()} == {"watched"}, "nothing is left in the working folder"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Each case without the callback, trained once."""
    known = {}

    def outcome(case):
        if case not in known:
            folder = tmp_path_factory.mktemp("bare")
            known[case] = keras_loops.CASES[case](folder, None)
        return known[case]

    return outcome
