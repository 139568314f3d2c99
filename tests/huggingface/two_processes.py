"""A LoRA training with evaluations, its best model by one of our values, by two processes.

accelerate launch … -m tests.huggingface.two_processes FOLDER
"""

import json
import sys
from pathlib import Path

from tests.huggingface.small import train
from tests.huggingface.test_peft import adapted
from ww_callbacks.huggingface import SpectralCallback

VALUE = "spectral/lora/log_spectral_norm/max"


def watch(folder, batch, **options):
    """4 epochs of 4 steps, evaluated every third step."""
    callback = SpectralCallback(log_dir=str(folder / "record"), verbose=0, every_n_epochs=1)
    trained = train(
        folder / "out",
        callback,
        model=adapted(),
        per_device_train_batch_size=batch,
        eval_strategy="steps",
        eval_steps=3,
        save_strategy="steps",
        save_steps=3,
        load_best_model_at_end=True,
        metric_for_best_model=VALUE,
        label_names=["labels"],
        ddp_find_unused_parameters=False,
        **options,
    )
    return callback, trained


if __name__ == "__main__":
    out = Path(sys.argv[1])
    watched, done = watch(out, batch=4)
    told = {
        "processes": done.args.world_size,
        "best": [done.state.best_global_step, done.state.best_metric],
        "verdict": watched.verdict.state,
        "log": [sorted(row) for row in done.state.log_history],
        "evaluation": [k for k in done.evaluate() if "spectral" in k],
    }
    (out / f"rank-{done.args.process_index}.json").write_text(json.dumps(told))
