"""`metric_for_best_model` and what an evaluation gets: one value, of the weights evaluated, and only while training."""

import json

import pytest

transformers = pytest.importorskip("transformers", reason="needs the extra huggingface")
import torch
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback

from tests.huggingface.small import Classifier, train, trainer
from ww_callbacks.huggingface import SpectralCallback

DISTANCE = "spectral/relative_distance_from_init/median"


class Spy(transformers.TrainerCallback):
    """Keeps what an evaluation gives, as a user's own callback sees it."""

    def __init__(self):
        self.seen = []

    def on_evaluate(self, args, state, control, metrics=None, **others):
        self.seen.append((state.global_step, {k: v for k, v in metrics.items() if "spectral" in k}))


def chosen(name, **options):
    return {
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": name,
    } | options


def test_an_evaluation_gets_nothing_unless_it_is_asked_for(tmp_path):
    spy, callback = Spy(), SpectralCallback(verbose=0)
    trained = train(tmp_path, spy, callback, eval_strategy="epoch")
    assert len(spy.seen) == 4 and not any(values for _, values in spy.seen)
    assert not [name for name in trained.evaluate() if "spectral" in name]


def test_only_the_value_asked_for_and_only_while_training(tmp_path):
    spy, callback = Spy(), SpectralCallback(verbose=0)
    trained = train(tmp_path, spy, callback, **chosen(DISTANCE, greater_is_better=False))
    table = callback.summary.set_index("step")["relative_distance_from_init/median"]
    assert spy.seen == [(step, {f"eval_{DISTANCE}": table[step]}) for step in (4, 8, 12, 16)]
    for prefix in ("test", "eval"):
        assert not [name for name in trained.evaluate(metric_key_prefix=prefix) if "spectral" in name]


@pytest.mark.parametrize("early", [False, True], ids=["no stopper", "stopper before ours"])
def test_values_are_those_of_the_weights_evaluated(tmp_path, early):
    """Evaluated every third step, measured every epoch of four: each evaluation has its own snapshot."""
    spy, callback = Spy(), SpectralCallback(verbose=0, every_n_epochs=1)
    stopper = [EarlyStoppingCallback(early_stopping_patience=9)] if early else []
    steps = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
    trained = train(tmp_path, *stopper, spy, callback, **chosen(DISTANCE, greater_is_better=True, **steps))
    values = {step: row[f"eval_{DISTANCE}"] for step, row in spy.seen}
    assert list(values)[:5] == [3, 6, 9, 12, 15]  # later versions of the Trainer evaluate at the end, too
    for step, value in values.items():
        weights = load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors")
        distances = []
        for name, now in weights.items():
            if name.endswith("weight"):
                before = Classifier().state_dict()[name]
                distances.append(float((now - before).norm() / before.norm()))
        assert value == pytest.approx(sorted(distances)[1], rel=1e-5)
    assert trained.state.best_model_checkpoint.endswith(f"checkpoint-{max(values, key=values.get)}")


@pytest.mark.parametrize("greater", [None, False, True])
def test_the_one_to_keep_is_kept_whichever_way_the_trainer_looks(tmp_path, greater):
    callback = SpectralCallback(verbose=0)
    name = "spectral/overtraining/keep"
    trained = train(tmp_path, callback, **chosen(name, greater_is_better=greater))
    keep = callback.summary.set_index("step")["overtraining/keep"].loc[1:]
    assert trained.state.best_global_step == keep.idxmin() == 16


def test_a_value_that_is_not_known_yet_ends_no_run(tmp_path):
    spy = Spy()
    trained = train(tmp_path, spy, SpectralCallback(verbose=0), **chosen("spectral/alpha/median"))
    assert trained.state.global_step == 16 and trained.state.best_global_step is None
    assert [str(v) for _, row in spy.seen for v in row.values()] == ["nan"] * 4


@pytest.mark.parametrize("name", ["spectral/effective_rnak/median", "spectal/effective_rank/median"])
def test_a_mistyped_name_is_refused_before_training(tmp_path, name):
    made = trainer(tmp_path, SpectralCallback(verbose=0), **chosen(name))
    with pytest.raises(ValueError, match=r"Near it: .*spectral/effective_rank/median"):
        made.train()
    assert made.state.global_step == 0


def test_names_of_the_users_own_are_left_alone(tmp_path):
    own = {"compute_metrics": lambda prediction: {"spectral_gap": 1.0}}
    trained = train(tmp_path, SpectralCallback(verbose=0), more=own, **chosen("spectral_gap"))
    assert trained.state.best_metric == 1.0


def test_two_validation_sets(tmp_path):
    from tests.huggingface.small import Rows

    spy = Spy()
    sets = {"near": Rows(8, seed=1), "far": Rows(8, seed=2)}
    name = f"eval_far_{DISTANCE}"
    trained = train(tmp_path, spy, SpectralCallback(verbose=0), validation=sets, **chosen(name))
    assert trained.state.best_global_step == 16
    assert all(list(row) == [name] for _, row in spy.seen)


def test_the_last_row_is_of_the_last_weights_and_not_of_the_reloaded_best(tmp_path):
    callback = SpectralCallback(verbose=0, every_n_epochs=3)
    settings = chosen("eval_loss", learning_rate=3.0, max_grad_norm=0.0)  # diverges: the first epoch stays the best
    trained = train(tmp_path, callback, **settings)
    assert trained.state.best_global_step < 16
    rows = [json.loads(line) for line in (callback.directory / "spectral.jsonl").open()]
    assert [r["step"] for r in rows if r["record"] == "model"] == [0, 12, 16]
    last = load_file(tmp_path / "checkpoint-16" / "model.safetensors")["net.0.weight"]
    row = callback.history.query("step == 16 and layer == 'net.0.weight'").iloc[0]
    assert row["log_spectral_norm"] == pytest.approx(
        float(torch.log10(torch.linalg.matrix_norm(last.double(), 2) ** 2)), rel=1e-4
    )


def test_hyperparameter_search_finds_what_it_finds_without_us(tmp_path):
    optuna = pytest.importorskip("optuna", reason="needs optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = []
    for callbacks in ((), (SpectralCallback(verbose=0),)):
        made = trainer(
            tmp_path / str(len(found)),
            *callbacks,
            more={"model_init": lambda: Classifier()},
            num_train_epochs=2,
            eval_strategy="epoch",
            save_strategy="epoch",
        )
        best = made.hyperparameter_search(
            lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)},
            n_trials=3,
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        found.append((best.run_id, best.objective, best.hyperparameters))
        folders = sorted(p.name for p in (tmp_path / str(len(found) - 1)).iterdir())
        assert folders == ["run-0", "run-1", "run-2"]
    assert found[0] == found[1]
    sidecars = list(tmp_path.glob("1/run-*/checkpoint-*/spectral_state.json"))
    assert len(sidecars) == 6


def test_a_search_that_would_optimise_our_value_is_refused(tmp_path):
    optuna = pytest.importorskip("optuna", reason="needs optuna")
    made = trainer(tmp_path, SpectralCallback(verbose=0), more={"model_init": lambda: Classifier()}, **chosen(DISTANCE))
    with pytest.raises(ValueError, match="compute_objective"):
        made.hyperparameter_search(lambda trial: {}, n_trials=1, sampler=optuna.samplers.RandomSampler(seed=0))
