"""Folders of weights: finds the files with weights and reads them as one tree of arrays.

Paths in files that lead out of the folder are not followed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

Reader = Callable[[Path], Mapping[str, Any]]

FOLDERS = "a folder of Hugging Face, PEFT, diffusers, a Trainer, Megatron or DeepSpeed"
_WHOLE = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
)
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_SINGLE = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".gguf")
_BESIDE = re.compile(
    r"^(optimizer|scheduler|rng_state.*|training_args|scaler|random_states_\d+|zero_pp_rank_.*|w0(-\d+)?)\.\w+$"
)
"""Files without the current weights, written by a Trainer, Accelerate, DeepSpeed or this callback."""
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<number>\d{3,})-of-(?P<total>\d{3,})\.(safetensors|bin|pt)$")


@dataclass(frozen=True)
class Held:
    """The contents of a folder.

    Attributes:
        tree: its arrays, nested by subfolder if it has several models.
        file: the file or folder that was read, for messages.
        remark: a remark on which of several was chosen; empty if there was only one.
        adapter: the configuration of an adapter; empty for any other model.
    """

    tree: Mapping[str, Any]
    file: Path
    remark: str = ""
    adapter: Path | None = None


def is_folder_of_adapter(folder: Path) -> bool:
    """Whether ``folder`` contains a PEFT adapter without a whole model."""
    return not any((folder / name).is_file() for name in _WHOLE) and any((folder / n).is_file() for n in _ADAPTERS)


def read_folder(folder: Path, read: Reader) -> Held:
    """The weights in ``folder``.

    Args:
        folder: the folder.
        read: the function that reads one file.

    Raises:
        FileNotFoundError: if a required file does not exist.
        ValueError: if it contains no weights, or several unrelated ones; the message says what to do.
    """
    if indices := sorted(folder.glob("*.safetensors.index*.json")) or sorted(folder.glob("*.bin.index.json")):
        return Held(_indexed(folder, indices[0], read), folder)
    for name in (*_WHOLE, *_ADAPTERS):
        if (path := folder / name).is_file():
            config = folder / "adapter_config.json"
            return Held(read(path), path, adapter=config if name in _ADAPTERS and config.is_file() else None)
    if (folder / "model_index.json").is_file():
        return _pipeline(folder, read)
    if shards := [path for path in sorted(folder.iterdir()) if _SHARD.match(path.name)]:
        return Held(_shards(folder, shards, read), folder)
    if (newest := _newest_checkpoint(folder)) is not None:
        inner = read_folder(newest, read)
        return Held(inner.tree, inner.file, inner.remark or f"from {newest.name}, the newest", inner.adapter)
    return _of_a_trainer(folder, read) or _only_file(folder, read)


def _indexed(folder: Path, index: Path, read: Reader) -> dict[str, Any]:
    """The arrays of all files in an index."""
    try:
        placed: dict[str, str] = orjson.loads(index.read_bytes())["weight_map"]
        files = dict.fromkeys(placed.values())
        if any(Path(file).name != file for file in files):
            raise ValueError("it names files outside of its folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not a readable index of weights: {error}.") from error
    if missing := [file for file in files if not (folder / file).is_file()]:
        raise FileNotFoundError(f"{index} names files that do not exist: {', '.join(missing)}.")
    held = {file: read(folder / file) for file in files}
    if missing := [name for name, file in placed.items() if name not in held[file]]:
        raise ValueError(f"{index} names weights that its files do not contain: {', '.join(missing[:5])}.")
    return {name: held[file][name] for name, file in sorted(placed.items(), key=lambda item: in_depth_order(item[0]))}


def _shards(folder: Path, paths: list[Path], read: Reader) -> dict[str, Any]:
    """The arrays of numbered parts of one file, ``model-00001-of-00002.safetensors``, without an index."""
    matches = [m for path in paths if (m := _SHARD.match(path.name)) is not None]
    if len(models := {(m["stem"], int(m["total"]), Path(m.string).suffix) for m in matches}) > 1:
        stems = ", ".join(sorted({f"{stem}-…{suffix}" for stem, _, suffix in models}))
        raise ValueError(
            f"{folder} has the parts of several files ({stems}): put those of each into a separate folder."
        )
    total, there = int(matches[0]["total"]), {int(m["number"]) for m in matches}
    if missing := [i for i in range(1, total + 1) if i not in there] if min(there) else []:
        some = ", ".join(map(str, missing[:5]))
        raise FileNotFoundError(f"{folder} lacks parts of {matches[0]['stem']}: number {some} of {total}.")
    merged: dict[str, Any] = {}
    for path in paths:
        merged |= read(path)
    return {name: merged[name] for name in sorted(merged, key=in_depth_order)}


def in_depth_order(name: str) -> list[tuple[int, str]]:
    """Sort key of names that compares numbers by value, the best guess of depth order."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _pipeline(folder: Path, read: Reader) -> Held:
    """The models of a diffusers pipeline, in the subfolders listed in ``model_index.json``."""
    try:
        names = [
            name
            for name, entry in orjson.loads((folder / "model_index.json").read_bytes()).items()
            if isinstance(entry, list)
        ]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / 'model_index.json'} is not readable: {error}.") from error
    held = {}
    for name in names:
        inside = folder / name
        if Path(name).name == name and inside.is_dir() and any(path.suffix in _SINGLE for path in inside.iterdir()):
            held[name] = read_folder(inside, read).tree
    if not held:
        raise ValueError(f"{folder} is a diffusers pipeline without weights in its folders ({', '.join(names[:8])}).")
    return Held(held, folder)


def _newest_checkpoint(folder: Path) -> Path | None:
    """The ``checkpoint-<step>`` of a Trainer with the latest step."""
    steps = {
        int(p.name.partition("-")[2]): p for p in folder.glob("checkpoint-*") if re.match(r"^checkpoint-\d+$", p.name)
    }
    return steps[max(steps)] if steps else None


def _of_a_trainer(folder: Path, read: Reader) -> Held | None:
    """The contents of a Megatron, DeepSpeed or torch distributed checkpoint; None for any other folder."""
    for mark, inside in (("latest_checkpointed_iteration.txt", "iter_{:0>7}"), ("latest", "{}")):
        if (folder / mark).is_file():
            named = inside.format((folder / mark).read_text(errors="replace").strip()[:100])
            if Path(named).name == named and (folder / named).is_dir():
                inner = read_folder(folder / named, read)
                return Held(inner.tree, inner.file, inner.remark or f"from {named}, the newest")
    if (folder / ".metadata").is_file() and any(folder.glob("*.distcp")):
        raise ValueError(
            f"{folder} is a distributed checkpoint of torch, whose tensors are stored in parts. Convert it first: "
            "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt`."
        )
    ranks = sorted(folder.glob("mp_rank_*/model_optim_rng.pt")) or sorted(folder.glob("mp_rank_*_model_states.pt"))
    if len(ranks) > 1:
        raise ValueError(
            f"{folder} is split over {len(ranks)} processes, each with a part of every matrix. Join it first with the "
            "converter of Megatron or DeepSpeed, or pass the file of one process to see its part."
        )
    if ranks:
        return Held(read(ranks[0]), ranks[0])
    if any(folder.glob("zero_pp_rank_*_model_states.pt")):
        raise ValueError(f"{folder} is split by DeepSpeed ZeRO-3. Join it first with its `zero_to_fp32.py`.")
    return None


def _only_file(folder: Path, read: Reader) -> Held:
    files = sorted(
        p.name for p in folder.iterdir() if p.suffix in _SINGLE and p.is_file() and not _BESIDE.match(p.name)
    )
    safe = [name for name in files if name.endswith(".safetensors")]
    if len(names := safe or files) == 1:
        return Held(read(folder / names[0]), folder / names[0])
    if names:
        raise ValueError(f"{folder} has several files of weights ({', '.join(names[:8])}): choose one.")
    inside = [p.name for p in sorted(folder.iterdir()) if p.is_dir() and any(q.suffix in _SINGLE for q in p.iterdir())]
    hint = f" Its subfolders {', '.join(inside[:8])} have some: choose one." if inside else ""
    expected = ", ".join((*_WHOLE, *_ADAPTERS))
    raise ValueError(f"{folder} has no file of weights.{hint} Expected one of {expected}, an index, or {FOLDERS}.")
