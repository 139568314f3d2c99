"""A language model, a tokenizer and texts from nothing but code, for TRL's trainers."""

from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer


def tokenizer():
    words = {w: i for i, w in enumerate(["<pad>", "<eos>", *[f"w{i}" for i in range(38)]])}
    made = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")


def language_model():
    set_seed(0)
    config = GPT2Config(
        vocab_size=40, n_positions=32, n_embd=32, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=1, pad_token_id=0
    )
    return GPT2LMHeadModel(config)


def text(seed, length=8):
    return " ".join(f"w{(seed * 7 + i) % 38}" for i in range(length))


def trl_trainer(method, folder, *callbacks, **options):
    """A trainer of TRL's that has not begun: 2 epochs of 4 steps."""
    arguments = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 8,
        "logging_steps": 2,
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        "max_length": 16,
        "eval_strategy": "epoch",
        "learning_rate": 1e-3,
    } | options
    more = {"peft_config": arguments.pop("peft_config", None), "processing_class": tokenizer()}
    if method == "SFT":
        rows = {"text": [text(i) for i in range(32)]}
        trainer, config = SFTTrainer, SFTConfig
    else:
        rows = {"prompt": [text(i, 4) for i in range(32)], "chosen": [" w1 w2"] * 32, "rejected": [" w3 w4"] * 32}
        trainer, config = DPOTrainer, DPOConfig
    data = Dataset.from_dict(rows)
    set_seed(0)
    return trainer(
        model=language_model(),
        args=config(output_dir=str(folder), **arguments),
        train_dataset=data,
        eval_dataset=data.select(range(8)),
        callbacks=list(callbacks),
        **more,
    )
