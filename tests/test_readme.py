"""The README's code blocks run, in its order, with the small models that a reader would have of their own."""

import os
import re
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

pytest.importorskip("keras", reason="needs the extra keras")
pytest.importorskip("pytorch_lightning", reason="needs the extra lightning")
pytest.importorskip("transformers", reason="needs the extra huggingface")

README = Path(__file__).parents[1] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def block(containing: str) -> str:
    found = [b for b in blocks() if containing in b]
    assert len(found) == 1, f"{containing} is in {len(found)} blocks"
    return found[0]


def net():
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(12, 30), torch.nn.ReLU(), torch.nn.Linear(30, 3))


def test_no_block_is_left_out():
    known = ["lightning import", "keras import", "huggingface import", "SpectralMonitor(", "monitor.verdict"]
    assert len(blocks()) == len(known) + 2  # ww_callbacks.spectral.analyze, and the record read with pandas
    for text in known:
        block(text)


def test_lightning(tmp_path, monkeypatch):
    import pytorch_lightning as pl

    from tests.lightning.test_callback import DataLoader, Net, data

    monkeypatch.chdir(tmp_path)
    names = {"Trainer": pl.Trainer, "module": Net(), "loader": DataLoader(data(), batch_size=8)}
    exec(block("lightning import"), names)
    assert len(names["callback"].summary) == 6


def test_keras(tmp_path, monkeypatch):
    from tests.keras.test_callback import model_of

    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(32, 12)).astype("float32")
    names = {"model": model_of(), "x": x, "y": x[:, :3].argmax(1)}
    exec(block("keras import"), names)
    assert (tmp_path / "runs" / "a" / "spectral.jsonl").exists()


def test_huggingface(tmp_path, monkeypatch):
    from tests.huggingface import test_callback as hf

    monkeypatch.chdir(tmp_path)
    config = hf.GPT2Config(
        vocab_size=40, n_positions=8, n_embd=32, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None
    )
    names = {
        "Trainer": hf.Trainer,
        "hf_model": hf.GPT2LMHeadModel(config),
        "arguments": hf.TrainingArguments(
            output_dir="out", max_steps=4, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True
        ),
        "dataset": hf.Tokens(),
    }
    exec(block("huggingface import"), names)
    assert len(names["callback"].history) > 0


def test_a_plain_loop_and_what_is_there_afterwards(tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)

    def train_step(net, batch):
        with torch.no_grad():
            net[0].weight += 0.01
        return 1.0

    names = {"net": net(), "train_step": train_step, "batches": range(4)}
    exec(block("SpectralMonitor("), names)
    assert names["monitor"].summary["metrics/train_loss"].dropna().tolist() == [1.0] * 5
    lines = [line.split("#")[0].strip() for line in block("monitor.verdict").splitlines()]
    shown = {line: eval(line, names) for line in lines if line}
    assert len(shown["monitor.history"]) == 12 and len(shown["monitor.summary"]) == 6
    assert shown["monitor.verdict"].state
    exec(block("spectral.analyze"), names)
    assert len(names["result"].layers) == 2
    exec(block("read_json"), names)
    assert len(names["rows"]) == 12
