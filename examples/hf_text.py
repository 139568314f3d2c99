"""Hugging Face: a small GPT-2-style model on English text, character by character, watched by one callback.

python -m examples.hf_text                    the topics of CPython's own help
python -m examples.hf_text --text FILE        a text file, plain or gzipped
"""

from __future__ import annotations

import argparse

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

from examples.data import english
from ww_callbacks.huggingface import SpectralCallback


class Windows(torch.utils.data.Dataset):
    """Windows of ``length`` characters, one after the other."""

    def __init__(self, codes: torch.Tensor, length: int) -> None:
        self.codes = codes[: len(codes) // length * length].view(-1, length)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.codes[index], "labels": self.codes[index]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="a text file; without it the topics of CPython's own help")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--output-dir", default="runs/huggingface")
    args = parser.parse_args()

    set_seed(0)
    text = english(args.text)
    alphabet = {c: i for i, c in enumerate(sorted(set(text)))}
    codes = torch.tensor([alphabet[c] for c in text])
    config = GPT2Config(
        vocab_size=len(alphabet),
        n_positions=64,
        n_embd=args.width,
        n_layer=args.layers,
        n_head=4,
        bos_token_id=None,
        eos_token_id=None,
    )
    callback = SpectralCallback()
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(
            output_dir=args.output_dir,
            max_steps=args.steps,
            per_device_train_batch_size=32,
            learning_rate=1e-3,
            logging_steps=max(1, args.steps // 10),
            save_strategy="no",
            report_to=["tensorboard"],
            use_cpu=True,
        ),
        train_dataset=Windows(codes, 64),
        callbacks=[callback],
    )
    trainer.train()
    print(callback.history.query("step == step.max()")[["layer", "alpha", "alpha_evidence", "effective_rank"]])
    print("Verdict:", callback.verdict)


if __name__ == "__main__":
    main()
