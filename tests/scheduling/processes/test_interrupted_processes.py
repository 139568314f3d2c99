"""Two real gloo processes: previews, checkpoints between snapshots, signals and sharded averages, resumed like one."""

import json

import pytest

pl = pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from tests.adapters.nets import Validated, fit, same_batches, seeded
from tests.lifecycle.records import assert_same
from tests.scheduling.processes.interrupted_processes import MOVED
from tests.scheduling.processes.launch import torchrun
from ww_callbacks.integrations.record import read_run
from ww_callbacks.lightning import SpectralCallback


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Every scenario, run once: scenario → its folder and what the two processes told."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("both")
    said = torchrun("tests.scheduling.processes.interrupted_processes", folder)

    def result(name):
        place = folder / name
        told = [place / f"rank-{rank}.json" for rank in (0, 1)]
        errors = "".join(path.read_text() for path in place.glob("error-*.txt")) if place.exists() else ""
        assert all(path.exists() for path in told), errors or said[-3000:]
        first, second = (json.loads(path.read_text()) for path in told)
        own = {"own": None, "sinks": None}
        assert first | own == second | own, "both processes act alike"
        return place, first

    return result


@pytest.fixture
def alone(tmp_path):
    """The record of the same training by one process that is not interrupted."""

    def run(model, *others, **options):
        callback = SpectralCallback(log_dir=str(tmp_path / "alone"), verbose=0, every_n_epochs=1)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        fit(model, callback, *others, **options)
        torch.set_num_threads(threads)
        return tmp_path / "alone"

    return run


def test_a_value_read_before_the_snapshot_is_that_of_one_process(both, alone, tmp_path):
    folder, first = both("preview")
    saver = ModelCheckpoint(tmp_path / "c", monitor=MOVED, mode="max", every_n_train_steps=2, save_top_k=-1)
    one = alone(seeded(Validated), saver, epochs=3, validate=True)
    assert_same(one, folder / "record")
    assert first["scores"] == {path.rpartition("/")[2]: float(score) for path, score in saver.best_k_models.items()}
    assert read_run(folder / "record").model["metrics/val_loss"].iloc[2::2].notna().all()


def test_a_checkpoint_between_two_snapshots_holds_the_weights_of_both_processes(both, alone):
    folder, first = both("within_an_epoch")
    assert first["resumed"]
    assert_same(alone(seeded(), data=same_batches()), folder / "record")


def test_sigterm_leaves_a_verdict_and_the_run_is_resumed(both, alone):
    folder, first = both("terminated")
    assert first["stopped"] == "SIGTERMException" and first["first_verdict"] == "not judged" and first["resumed"]
    assert_same(alone(seeded()), folder / "record")


def test_the_average_of_sharded_weights_is_resumed(both):
    """Saving between two snapshots once waited for ever: only the process that measures a layer read its shards."""
    folder, first = both("sharded")
    assert first["resumed"] and first["apart"] == 0.0, "the averages, which both runs put into their models"
    assert_same(folder / "a", folder / "b")


def test_sigterm_in_the_hf_trainer_starts_a_new_record(both):
    """Its checkpoint is of the step at which each process happened to be, so it has no state of the record."""
    folder, first = both("huggingface")
    assert first["saved"] == ["checkpoint-4"] and not first["resumed"]
    record, more = read_run(folder / "record"), read_run(folder / "record" / "run-2")
    assert record.verdict.state == first["verdicts"][0] and record.model["step"].tolist() == [0, 2, 4, 5]
    assert more.verdict.state == first["verdicts"][1] and more.model["step"].tolist() == [4, 6, 8]


def test_a_finished_training_that_is_resumed_has_its_verdict_in_both_processes(both):
    folder, first = both("huggingface")
    assert first["at_the_end"] == [True, str(folder / "record" / "run-2")]
    assert first["verdicts"][2] == first["verdicts"][1]
