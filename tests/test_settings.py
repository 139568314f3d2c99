import json
import sys
from dataclasses import fields
from types import SimpleNamespace

import pytest

from ww_callbacks.scheduling import snapshots as measuring
from ww_callbacks.settings import Settings


def test_defaults_are_plain_values():
    json.dumps(Settings().as_dict())


def test_sequences_and_single_strings():
    assert Settings(layers="encoder.*").layers == ("encoder.*",)
    assert Settings(layers=["a", "b"]).as_dict()["layers"] == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantities": ["alhpa"]}, "`alpha`"),
        ({"policies": {"overtrainig": "stop"}}, "'overtraining'"),
        ({"policies": {"overtraining": "halt"}}, "ignore, log, warn, stop"),
        ({"policies": {"alpha out of range": "stop"}}, "never stops"),
        ({"every_n_epochs": 0}, "at least 1"),
        ({"every_n_steps": 2.5}, "integer"),
        ({"workers": 0}, "at least 1"),
        ({"max_overhead": 3}, "between 0 and 1"),
        ({"accuracy": "estimated"}, "'exact' or a relative error from 0.0001 to 0.1"),
        ({"accuracy": 1}, "'exact' or a relative error"),
        ({"early_stopping": "yes"}, "off, cautious, eager"),
        ({"convolution": "slice"}, "'slices'"),
        ({"weights": "ema"}, "trained, average"),
        ({"policies": "stop"}, "to map a kind of alert to a policy"),
        ({"layers": 3}, "one or several names but got 3"),
        ({"quantities": 5}, "one or several names but got 5"),
        ({"overtraining": {"patience": 3}}, "Unknown argument in `overtraining`"),
        ({"overtraining": "eager"}, "to map an argument of Overtraining"),
        ({"baseline": "/nope.pt"}, "does not exist: /nope.pt"),
        ({"baseline": 3}, "'initial' or the path of a checkpoint"),
        ({"log_dir": 7}, "path of a folder"),
        ({"max_overhead": "1 %"}, "between 0 and 1"),
        ({"detectors": [object()]}, "an object with update, state_dict, load_state_dict"),
        ({"detectors": "mine"}, "to be a list"),
        ({"sinks": [print]}, "open, snapshot, alert, close"),
    ],
)
def test_refused_with_the_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        Settings.of(arguments)


def test_an_unknown_argument_names_the_nearest():
    with pytest.raises(TypeError, match="`every_n_epochs`"):
        Settings.of({"every_n_epoch": 1})


def test_help_lists_every_argument_with_its_sentence():
    from ww_callbacks import SpectralMonitor
    from ww_callbacks.settings import GROUPS

    named = [name for names in GROUPS.values() for name in names]
    assert sorted(named) == sorted(f.name for f in fields(Settings))
    text = SpectralMonitor.__doc__
    for name in named:
        assert f"    {name}=" in text
    assert "Alerts and stopping" in text and "minimum number of snapshots between repeats" in text


def test_a_callable_policy_is_shown_as_text():
    assert "print" in Settings(policies={"explosion": print}).as_dict()["policies"]["explosion"]


@pytest.mark.parametrize(
    ("cores", "threads", "background", "workers"),
    [(8, 8, False, 4), (8, 2, False, 2), (2, 8, False, 2), (8, 1, False, 1), (8, 8, True, 1), (3, None, False, 3)],
)
def test_workers_are_the_trainings_idle_threads_unless_told(monkeypatch, cores, threads, background, workers):
    """``threads`` None: a process without torch."""
    monkeypatch.setattr(measuring, "available_cores", lambda: cores)
    fake = None if threads is None else SimpleNamespace(get_num_threads=lambda: threads)
    monkeypatch.setitem(sys.modules, "torch", fake)
    assert measuring.default_workers(background) == workers


def test_a_home_folder_is_spelt_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.safetensors").touch()
    settings = Settings(log_dir="~/runs/a", baseline="~/w.safetensors")
    assert (settings.log_dir, settings.baseline) == (str(tmp_path / "runs/a"), str(tmp_path / "w.safetensors"))
