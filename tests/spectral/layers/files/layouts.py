"""Small models in every layout of the table in docs/files.md, each written by the library whose format it is.

A layout is a function that writes a network into a folder and returns the path that a user would name. ``network`` is
two linear layers; what is next to the weights in a layout (optimisers, random states, scales, biases as rows) is here
too.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

Write = Callable[[Path, nn.Module], Path]
WriteAll = Callable[[Sequence[tuple[Path, nn.Module]]], list[Path]]
LAYOUTS: dict[str, tuple[WriteAll, tuple[str, ...], float]] = {}
"""The first cell of a row of the table → what writes several, the packages that this needs, the rounding of values."""


def layout(name: str, *packages: str, rounding: float = 1e-6) -> Callable[[Write], Write]:
    """Enter the decorated function into :data:`LAYOUTS`."""

    def enter(write: Write) -> Write:
        LAYOUTS[name] = (lambda pairs: [write(*pair) for pair in pairs], packages, rounding)
        return write

    return enter


def network(factor: float = 1.0) -> nn.Sequential:
    """Two linear layers whose weights are ``factor`` times those of the seed."""
    torch.manual_seed(0)
    net = nn.Sequential(OrderedDict(first=nn.Linear(64, 48), act=nn.ReLU(), second=nn.Linear(48, 32)))
    with torch.no_grad():
        for layer in (net.first, net.second):
            layer.weight.mul_(factor)
    return net.eval()


def weights(net: nn.Module) -> dict[str, np.ndarray]:
    """The two weights, (out, in)."""
    return {name: getattr(net, name).weight.detach().numpy() for name in ("first", "second")}


def _saved(net: nn.Module, path: Path, content: object = None, **options: object) -> Path:
    torch.save(net.state_dict() if content is None else content, path, **options)
    return path


@layout("safetensors")
def _safetensors(folder: Path, net: nn.Module) -> Path:
    import safetensors.torch

    safetensors.torch.save_file(net.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"


@layout("torch state dict (`.pt`, `.pth`, `.bin`)")
def _torch(folder: Path, net: nn.Module) -> Path:
    return _saved(net, folder / "model.pt")


@layout("torch state dict before 1.6 (plain pickle)")
def _pickle(folder: Path, net: nn.Module) -> Path:
    return _saved(net, folder / "model.pth", _use_new_zipfile_serialization=False)


@layout("training checkpoint: weights, optimiser, scheduler, random state, best metric as a tensor")
def _checkpoint(folder: Path, net: nn.Module) -> Path:
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 64)).sum().backward()
    optimiser.step = torch.no_grad()(lambda: None)  # type: ignore[method-assign]
    state = optimiser.state_dict()
    state["state"] = {i: {"exp_avg": torch.ones_like(p)} for i, p in enumerate(net.parameters())}
    parallel = nn.DataParallel(net).state_dict()
    content = {
        "epoch": 3,
        "arch": "net",
        "state_dict": parallel,
        "best_acc1": torch.tensor(71.0),
        "optimizer": state,
        "scheduler": {"last_epoch": 3},
        "rng": torch.get_rng_state(),
    }
    return _saved(net, folder / "checkpoint.pth.tar", content)


@layout("`torch.compile`d and averaged modules (prefixes `_orig_mod.`, `module.`)")
def _compiled(folder: Path, net: nn.Module) -> Path:
    return _saved(net, folder / "model.pt", torch.compile(net).state_dict())


@layout("Lightning `.ckpt`", "lightning")
def _lightning(folder: Path, net: nn.Module) -> Path:
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.0)

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            return self.net(batch).sum()

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(accelerator="cpu", max_steps=1, **quiet)
    trainer.fit(Module(), torch.utils.data.DataLoader(torch.ones(1, 64)))
    trainer.save_checkpoint(folder / "last.ckpt")
    return folder / "last.ckpt"


def _llama(net: nn.Module) -> nn.Module:
    """A network of the transformers library whose matrices scale as those of ``net``."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2
    )
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(float(net.first.weight.norm() / network().first.weight.norm()))
    return model


@layout("Hugging Face folder", "transformers")
def _hugging_face(folder: Path, net: nn.Module) -> Path:
    _llama(net).save_pretrained(folder)
    return folder


@layout("Hugging Face folder in shards", "transformers")
def _shards(folder: Path, net: nn.Module) -> Path:
    _llama(net).save_pretrained(folder, max_shard_size="20KB")
    return folder


@layout("PEFT adapter folder", "peft")
def _adapter(folder: Path, net: nn.Module) -> Path:
    import peft

    torch.manual_seed(2)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["first", "second"], init_lora_weights=False)
    model = peft.get_peft_model(net, config)
    with torch.no_grad():
        factor = float(net.first.base_layer.weight.norm() / network().first.weight.norm())
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.mul_(factor)
    model.save_pretrained(folder)
    return folder


@layout("FP8 with block scales (safetensors)", rounding=0.05)
def _fp8(folder: Path, net: nn.Module) -> Path:
    import safetensors.torch

    tensors = {}
    for name, weight in weights(net).items():
        scale = torch.from_numpy(weight).abs().max().reshape(1, 1) / 448
        tensors[f"{name}.weight"] = (torch.from_numpy(weight) / scale).to(torch.float8_e4m3fn)
        tensors[f"{name}.weight_scale_inv"] = scale
        tensors[f"{name}.bias"] = getattr(net, name).bias.detach()
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


@layout("bitsandbytes, 4 bits", "bitsandbytes", rounding=0.15)
def _four_bits(folder: Path, net: nn.Module) -> Path:
    import bitsandbytes as bnb
    import safetensors.torch

    tensors = {}
    for name, weight in weights(net).items():
        layer = bnb.nn.Linear4bit(*weight.shape[::-1], bias=False)
        layer.weight = bnb.nn.Params4bit(torch.from_numpy(weight), requires_grad=False, quant_type="nf4")
        tensors |= {f"{name}.{key}": value.contiguous() for key, value in layer.to("cpu").state_dict().items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


@layout("compressed-tensors, packed 4 bits", "compressed_tensors", rounding=0.15)
def _compressed(folder: Path, net: nn.Module) -> Path:
    import safetensors.torch
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import quantize

    args, tensors = QuantizationArgs(num_bits=4, symmetric=True, strategy="group", group_size=16), {}
    for name, array in weights(net).items():
        weight = torch.from_numpy(array)
        scale = weight.reshape(len(weight), -1, 16).abs().amax(-1) / 8
        tensors[f"{name}.weight_packed"] = pack_to_int32(
            quantize(weight, scale, torch.zeros_like(scale), args, dtype=torch.int8), 4
        )
        tensors |= {f"{name}.weight_scale": scale, f"{name}.weight_shape": torch.tensor(weight.shape)}
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    settings = {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


@layout("GGUF (Q8_0)", "gguf", rounding=0.02)
def _gguf(folder: Path, net: nn.Module) -> Path:
    import gguf

    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    number = gguf.GGMLQuantizationType.Q8_0
    first, second = weights(net).values()
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(64, np.float32))
    writer.add_tensor("blk.0.ffn_up.weight", gguf.quantize(first, number), raw_dtype=number)
    padded = np.concatenate([second, np.zeros((32, 16), np.float32)], axis=1)  # Q8_0 takes 32 numbers at a time
    writer.add_tensor("blk.0.ffn_down.weight", gguf.quantize(padded, number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "model.gguf"


@layout("ONNX of `torch.onnx.export`", "onnx")
def _onnx(folder: Path, net: nn.Module, **options: object) -> Path:
    path = folder / "model.onnx"
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(net, (torch.zeros(2, 64),), str(path), **{"dynamo": False, **options})
    return path


@layout("ONNX of `torch.onnx.export(dynamo=True)`", "onnxscript")
def _dynamo(folder: Path, net: nn.Module) -> Path:
    return _onnx(folder, net, dynamo=True, verbose=False)


@layout("ONNX, quantised with QDQ", "onnxruntime", rounding=0.02)
def _qdq(folder: Path, net: nn.Module) -> Path:
    from onnxruntime import quantization

    path = _onnx(folder, net, input_names=["x"])

    class Reader(quantization.CalibrationDataReader):
        batches = iter([{"x": np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    out = folder / "quantised.onnx"
    quantization.quantize_static(path, out, Reader(), weight_type=quantization.QuantType.QInt8)
    return out


@layout("ONNX, quantised with integer operators", "onnxruntime", rounding=0.02)
def _integers(folder: Path, net: nn.Module) -> Path:
    from onnxruntime import quantization

    out = folder / "quantised.onnx"
    quantization.quantize_dynamic(_onnx(folder, net), out, weight_type=quantization.QuantType.QInt8)
    return out


@layout("ONNX of skl2onnx", "skl2onnx")
def _scikit(folder: Path, net: nn.Module) -> Path:
    import skl2onnx
    from sklearn.neural_network import MLPClassifier

    x = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    model = MLPClassifier((48,), max_iter=1).fit(x, np.arange(64) % 32)
    model.coefs_ = [weight.T for weight in weights(net).values()]
    (folder / "model.onnx").write_bytes(skl2onnx.to_onnx(model, x[:1]).SerializeToString())
    return folder / "model.onnx"


def _tensorflow(pairs: Sequence[tuple[Path, nn.Module]]) -> list[Path]:
    """Several in one process of their own: TensorFlow is kept out of this one, and takes long to import."""
    for folder, net in pairs:
        np.savez(folder / "weights.npz", **weights(net))
    code = """
import sys, numpy as np, tensorflow as tf, tf2onnx
for folder in sys.argv[1:]:
    given = np.load(folder + "/weights.npz")
    first, second = (tf.Variable(given[name].T, name=name) for name in ("first", "second"))
    row = tf.constant(np.ones((1, 48), np.float32))
    apply = tf.function(lambda x: tf.nn.relu(x @ first + row) @ second)
    signature = [tf.TensorSpec((2, 64), tf.float32)]
    tf2onnx.convert.from_function(apply, input_signature=signature, output_path=folder + "/model.onnx")
"""
    command = [sys.executable, "-c", code, *(str(folder) for folder, _ in pairs)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    assert done.returncode == 0, done.stderr[-2000:]
    return [folder / "model.onnx" for folder, _ in pairs]


LAYOUTS["ONNX of tf2onnx"] = (_tensorflow, ("tf2onnx", "tensorflow"), 1e-6)


def _keras(net: nn.Module) -> object:
    """The same network in Keras, with the state of an optimiser next to it."""
    import keras

    layers = [keras.Input((64,)), keras.layers.Dense(48, "relu", name="first"), keras.layers.Dense(32, name="second")]
    model = keras.Sequential(layers, name="net")
    for name, weight in weights(net).items():
        model.get_layer(name).kernel.assign(weight.T)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@layout("Keras `.keras`", "keras", "h5py")
def _keras_whole(folder: Path, net: nn.Module) -> Path:
    _keras(net).save(folder / "model.keras")  # type: ignore[attr-defined]
    return folder / "model.keras"


@layout("Keras `.weights.h5`", "keras", "h5py")
def _keras_weights(folder: Path, net: nn.Module) -> Path:
    _keras(net).save_weights(folder / "model.weights.h5")  # type: ignore[attr-defined]
    return folder / "model.weights.h5"


@layout("Keras weights in shards (`.weights.json`)", "keras", "h5py")
def _keras_shards(folder: Path, net: nn.Module) -> Path:
    _keras(net).save_weights(folder / "model.weights.json", max_shard_size=13e-6)  # type: ignore[attr-defined]
    return folder / "model.weights.json"


@layout("Keras `.h5`, the older format", "keras", "h5py")
def _keras_older(folder: Path, net: nn.Module) -> Path:
    _keras(net).save(folder / "model.h5")  # type: ignore[attr-defined]
    return folder / "model.h5"
