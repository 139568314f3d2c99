from __future__ import annotations

import re

import pytest

from ww_callbacks.integrations.figures.names import blocks, short_names

BERT = [
    "bert.embeddings.word_embeddings.weight",
    *(
        f"bert.encoder.layer.{i}.{part}.weight"
        for i in range(12)
        for part in ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense")
    ),
    "bert.pooler.dense.weight",
    "classifier.weight",
]  # fmt: skip
GPT = [
    "transformer.wte.weight",
    *(f"transformer.h.{i}.attn.c_attn.weight[{part}]" for i in range(25) for part in "qkv"),
    *(f"transformer.h.{i}.mlp.c_fc.weight" for i in range(25)),
    "lm_head.weight",
]
MIXTURE = [f"model.layers.{i}.mlp.experts.{e}.{w}.weight" for i in range(11) for e in range(12) for w in ("w1", "w2")]
KERAS = [
    f"a_model_with_a_long_name/transformer_block_{i}/attention/{w}/kernel" for i in range(12) for w in ("query", "key")
]
T5 = [
    f"{side}.block.{i}.layer.{j}.SelfAttention.q.weight"
    for side in ("encoder", "decoder")
    for i in range(12)
    for j in (0, 1)
]


@pytest.mark.parametrize("layers", [BERT, GPT, MIXTURE, KERAS, T5], ids=["bert", "gpt", "mixture", "keras", "t5"])
def test_short_names_are_unique_and_never_lose_a_digit_of_their_own_layer(layers):
    short = short_names(layers)
    assert len(set(short)) == len(layers)
    for name, whole in zip(short, layers, strict=True):
        numbered = re.search(r"\d+(?=[./])", whole)  # the block's number, which tells the layers apart
        if numbered is not None:
            assert re.findall(r"\d+", name)[:1] == [numbered[0]], (name, whole)
        assert set(re.findall(r"\d+", name)) <= set(re.findall(r"\d+", whole))
        assert len(name) <= 34


def test_the_eleventh_layer_is_never_called_the_first():
    short = dict(zip(BERT, short_names(BERT), strict=True))
    assert short["bert.encoder.layer.11.attention.self.query.weight"] == "layer.11 · query"
    assert short["bert.encoder.layer.1.attention.self.query.weight"] == "layer.1 · query"
    assert dict(zip(GPT, short_names(GPT), strict=True))["transformer.h.11.attn.c_attn.weight[q]"] == "h.11 · c_attn[q]"


def test_what_is_too_long_loses_the_ends_of_words():
    names = short_names(
        ["an_exceedingly_long_word_for_a_layer_12/kernel", "an_exceedingly_long_word_for_a_layer_123/kernel"]
    )
    assert [re.findall(r"\d+", name) for name in names] == [["12"], ["123"]] and all("…" in name for name in names)


def test_names_are_escaped():
    assert short_names(["<b>.weight", "c.weight"])[0] == "&lt;b&gt;"


def test_blocks_begin_where_the_number_changes():
    assert blocks(BERT)[:3] == [0, 1, 5] and len(blocks(BERT)) == 15
