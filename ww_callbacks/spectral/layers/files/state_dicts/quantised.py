r"""Dequantises weights stored as codes with separate scales.

A quantised weight is W = s·(q − z): codes q of a few bits, a scale s and optionally a zero point z, each shared by a
row, a block or the whole matrix. Libraries differ in the names of the three and in how they pack q:

- one array of codes with ``_scale``, ``_scale_inv``, ``SCB``, ``scales``: FP8 of DeepSeek, Qwen and ComfyUI,
  ``float-quantized`` and ``int-quantized`` of compressed-tensors, INT8 of bitsandbytes and others;
- ``qweight``, ``qzeros``, ``scales`` (``g_idx``): GPTQ packs along the inputs, AWQ along the outputs in its own order;
- ``weight_packed``, ``weight_scale``, ``weight_shape``: ``pack-quantized`` of compressed-tensors; in bytes: NVFP4;
- ``_blocks``, ``_scales``: MXFP4;
- ``weight``, ``absmax``, ``quant_map``, ``quant_state``: NF4 and FP4 of bitsandbytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from ww_callbacks.spectral.layers.files.state_dicts.roles import split
from ww_callbacks.spectral.layers.files.stored_arrays import Stored
from ww_callbacks.spectral.layers.spec import Index

Entries = Mapping[str, Stored]
Settings = Mapping[str, Any]
Arrays = dict[str, np.ndarray]

_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""The values of E2M1."""
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""AWQ's order of the eight outputs in one integer."""
PACKED = ("qweight", "weight_packed", "W_q", "q_weight", "codes", "Qidxs")
"""Names of arrays of packed codes."""


@dataclass(frozen=True)
class Dequantised:
    """A weight computed from codes and scales.

    Attributes:
        name: the name of the weight.
        parameters: the entries from which it is computed, the codes first.
        shape: its shape.
        read: computes it.
        stored_as: its stored format, for the table.
        read_part: computes a slice of it from the slices of codes and scales; None if they cannot be sliced.
    """

    name: str
    parameters: tuple[str, ...]
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    stored_as: str
    read_part: Callable[[Index], np.ndarray] | None = None


def dequantised(entries: Entries, settings: Settings) -> Iterator[Dequantised]:
    """Every weight computed from codes and scales among the ``entries``.

    Args:
        entries: name → entry.
        settings: ``quantization_config`` of the model, if known.
    """
    for name, entry in entries.items():
        for scheme in (_bitsandbytes_4, _packed_in_integers, _compressed, _microscaled, _scaled):
            if (found := scheme(entries, name, entry, settings)) is not None:
                yield found
                break


def unread_weights(name: str, entry: Stored) -> int:
    """Approximate number of weights in the codes ``name``; 0 if they are not codes."""
    packed = split(name)[2] in PACKED
    if len(entry.shape) < 2 or not (packed or entry.is_coded):
        return 0
    return entry.count * {"int32": 8, "uint8": 2 if packed else 1, "int64": 16}.get(entry.dtype, 1)


def _made(
    entries: Entries,
    target: str,
    shape: tuple[int, ...],
    used: Mapping[str, str],
    compute: Callable[[Arrays], np.ndarray],
    stored_as: str,
    facts: str = "",
) -> Dequantised:
    def read() -> np.ndarray:
        return compute({role: as_numpy(entries[name]) for role, name in used.items()})

    return Dequantised(target, (*used.values(), *filter(None, [facts])), shape, read, stored_as)


def as_numpy(entry: Stored) -> np.ndarray:
    """The values of ``entry`` as NumPy array."""
    return _on_host(entry.read())


def _part(entry: Stored, index: Index) -> np.ndarray:
    return as_numpy(entry)[index] if entry.read_part is None else _on_host(entry.read_part(index))


def _on_host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def _there(entries: Entries, names: Mapping[str, str]) -> dict[str, str]:
    return {role: name for role, name in names.items() if name in entries}


def _bitsandbytes_4(entries: Entries, name: str, entry: Stored, _: Settings) -> Dequantised | None:
    used = {"codes": name, "absmax": f"{name}.absmax", "map": f"{name}.quant_map"}
    state = next((f"{name}.quant_state.{kind}" for kind in _BNB if f"{name}.quant_state.{kind}" in entries), None)
    if state is None or not all(n in entries for n in used.values()) or entry.dtype not in _BYTES:
        return None
    try:
        facts = orjson.loads(as_numpy(entries[state]).astype(np.uint8).tobytes())
        shape, block = tuple(map(int, facts["shape"])), int(facts["blocksize"])
        nested = int(facts.get("nested_blocksize") or 0)
    except (ValueError, KeyError, TypeError):
        return None
    if block < 1 or math.prod(shape) > 2 * entry.count * _BYTES[entry.dtype] + block:
        return None
    used |= _there(entries, {"nested": f"{name}.nested_absmax", "nested_map": f"{name}.nested_quant_map"})

    def compute(a: Arrays) -> np.ndarray:
        codes = _as_bytes(a["codes"], entry.dtype)
        both = np.stack([codes >> 4, codes & 15], axis=-1).reshape(-1)[: math.prod(shape)]
        absmax = a["absmax"].astype(np.float32)
        if "nested" in a:
            outer = np.repeat(a["nested"].astype(np.float32), nested)[: absmax.size]
            absmax = a["nested_map"][a["absmax"]] * outer + np.float32(facts.get("nested_offset", 0.0))
        values = a["map"].astype(np.float32)[both]
        values *= np.repeat(absmax, block)[: values.size]
        return values.reshape(shape)

    kind = str(facts.get("quant_type", "4 bits")).upper()
    return _made(entries, name, shape, used, compute, f"{kind}, bitsandbytes", state)


_BNB = ("bitsandbytes__nf4", "bitsandbytes__fp4")
_BYTES = {"uint8": 1, "bfloat16": 2, "float32": 4}
"""Types in which bitsandbytes stores packed codes (``quant_storage``), and their size in bytes."""


def _as_bytes(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":  # was converted to float32: its bits are the upper half
        array = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype("<u2")
    return np.ascontiguousarray(array).view(np.uint8).reshape(-1)


def _unpacked(packed: np.ndarray, bits: int, axis: int, order: tuple[int, ...] | None = None) -> np.ndarray:
    """Unpack codes from 32-bit integers, consecutive along ``axis``, lowest bits first."""
    places = np.array(order if order is not None else range(32 // bits), np.uint32) * np.uint32(bits)
    words = np.moveaxis(np.ascontiguousarray(packed).view(np.uint32), axis, -1)
    codes = ((words[..., None] >> places) & np.uint32((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)
    return np.moveaxis(codes.reshape(*words.shape[:-1], -1), -1, axis)


def _packed_in_integers(entries: Entries, name: str, entry: Stored, settings: Settings) -> Dequantised | None:
    """GPTQ (codes packed along the inputs) and AWQ (along the outputs)."""
    stem, dot, leaf = split(name)
    if leaf != "qweight" or entry.dtype != "int32" or len(entry.shape) != 2:
        return None
    at = f"{stem}{dot}"
    used = {"codes": name} | _there(entries, {"scales": f"{at}scales", "zeros": f"{at}qzeros", "groups": f"{at}g_idx"})
    if "scales" not in used or len(shape := entries[used["scales"]].shape) != 2:
        return None
    groups, outputs = shape
    rows, columns = entry.shape
    if columns * 8 == outputs and rows % max(groups, 1) == 0 and "zeros" in used:

        def compute_awq(a: Arrays) -> np.ndarray:
            zeros = _unpacked(a["zeros"], 4, 1, _AWQ_ORDER).astype(np.float32)
            codes = _unpacked(a["codes"], 4, 1, _AWQ_ORDER).astype(np.float32)
            return _by_group(codes, a, zeros, a["scales"]).T

        return _made(entries, f"{at}weight", (outputs, rows), used, compute_awq, "4 bits, AWQ")
    if columns != outputs:
        return None
    bits = 32 * entries[used["zeros"]].shape[-1] // outputs if "zeros" in used else int(settings.get("bits") or 0)
    inputs = 32 * rows // bits if bits else 0
    if bits not in (2, 4, 8) or ("groups" in used and entries[used["groups"]].count != inputs):
        return None  # codes of three bits cross the boundaries of the integers
    plus = 0 if "v2" in str(settings.get("checkpoint_format", "")) else 1  # the first version stores z − 1

    def compute(a: Arrays) -> np.ndarray:
        codes = _unpacked(a["codes"], bits, 0).astype(np.float32)
        middle = float(1 << (bits - 1))
        zeros = _unpacked(a["zeros"], bits, 1).astype(np.float32) + plus if "zeros" in a else middle
        return _by_group(codes, a, zeros, a["scales"]).T

    return _made(entries, f"{at}weight", (outputs, inputs), used, compute, f"{bits} bits, GPTQ")


def _compressed(entries: Entries, name: str, entry: Stored, settings: Settings) -> Dequantised | None:
    """``pack-quantized`` of compressed-tensors, and NVFP4."""
    stem, dot, leaf = split(name)
    at = f"{stem}{dot}"
    if entry.dtype == "uint8" and len(entry.shape) == 2:
        return _nvfp4(entries, name, entry, at, leaf)
    if leaf != "weight_packed" or entry.dtype != "int32" or len(entry.shape) != 2:
        return None
    used = {"codes": name} | _there(
        entries,
        {"scales": f"{at}weight_scale", "zeros": f"{at}weight_zero_point", "groups": f"{at}weight_g_idx"},
    )
    if "scales" not in used or f"{at}weight_shape" not in entries:
        return None
    outputs, inputs = (int(n) for n in as_numpy(entries[f"{at}weight_shape"]).reshape(-1)[:2])
    bits = next((b for b in (4, 8, 2) if -(-inputs * b // 32) == entry.shape[1]), 0)
    if not bits or outputs != entry.shape[0] or inputs < 1:
        return None

    def compute(a: Arrays) -> np.ndarray:
        middle = float(1 << (bits - 1))
        codes = _unpacked(a["codes"], bits, 1)[:, :inputs].astype(np.float32)
        zeros: np.ndarray | float = middle
        if "zeros" in a:
            plain = a["zeros"].dtype != np.int32
            packed = a["zeros"] if plain else _unpacked(a["zeros"], bits, 0)[:outputs]
            zeros = packed.astype(np.float32).reshape(outputs, -1).T + (middle if plain else 0)
        _by_group(codes.T, a, zeros, a["scales"].reshape(outputs, -1).T)
        return codes

    stored_as = f"{bits} bits, compressed-tensors"
    return _made(entries, f"{at}weight", (outputs, inputs), used, compute, stored_as, f"{at}weight_shape")


def _nvfp4(entries: Entries, name: str, entry: Stored, at: str, leaf: str) -> Dequantised | None:
    """NVFP4, with 8-bit scales and a common factor, and MXFP4, with powers of two as scales."""
    divided = leaf == "weight_packed"
    outer = f"{at}weight_global_scale" if divided else f"{at}weight_scale_2"
    used = {"codes": name, "scales": f"{at}weight_scale"} | _there(entries, {"outer": outer})
    if leaf not in ("weight", "weight_packed") or used["scales"] not in entries:
        return None
    outputs, inputs = entry.shape[0], 2 * entry.shape[1]
    scales = entries[used["scales"]]
    powers = scales.dtype in ("uint8", "float8_e8m0fnu")
    if len(scales.shape) != 2 or scales.shape[0] != outputs or not scales.shape[1] or inputs % scales.shape[1]:
        return None
    if not powers and ("outer" not in used or not scales.dtype.startswith("float8")):
        return None

    def compute(a: Arrays) -> np.ndarray:
        factors = _powers(a["scales"])
        if "outer" in a:
            common = a["outer"].astype(np.float32).reshape(-1)[0]
            factors = factors / common if divided else factors * common
        values = _fp4(a["codes"])
        _each(values, np.multiply, factors, (1, inputs // factors.shape[1]))
        return values

    return _made(entries, f"{at}weight", (outputs, inputs), used, compute, "MXFP4" if powers else "NVFP4")


def _fp4(packed: np.ndarray) -> np.ndarray:
    """The values of two 4-bit floats per byte, the lower one first, along the last axis."""
    values = np.empty((*packed.shape, 2), np.float32)
    values[..., 0] = _FP4[packed & 15]  # one after the other: indices take eight bytes
    values[..., 1] = _FP4[packed >> 4]
    return values.reshape(*packed.shape[:-1], -1)


def _powers(scales: np.ndarray) -> np.ndarray:
    """The scales, or the powers of two whose exponents are stored as bytes."""
    return np.ldexp(np.float32(1), scales.astype(np.int32) - 127) if scales.dtype == np.uint8 else scales


def _microscaled(entries: Entries, name: str, entry: Stored, _: Settings) -> Dequantised | None:
    """MXFP4: 32 four-bit values share a power of two."""
    target = name.removesuffix("_blocks")
    if target == name or f"{target}_scales" not in entries or entry.dtype != "uint8" or len(entry.shape) < 3:
        return None
    *outer, rows, groups, held = entry.shape
    if entries[f"{target}_scales"].shape != (*outer, rows, groups):
        return None
    shape = (*outer, groups * held * 2, rows)  # experts are applied as (inputs, outputs)

    used = {"codes": name, "scales": f"{target}_scales"}

    def compute(a: Arrays) -> np.ndarray:
        values = _fp4(a["codes"])
        np.ldexp(values, a["scales"].astype(np.int32)[..., None] - 127, out=values)
        return np.swapaxes(values.reshape(*a["scales"].shape[:-1], -1), -1, -2)

    def read_part(index: Index) -> np.ndarray:
        where, inputs, outputs = (*index, *(slice(None),) * len(shape))[: len(outer)], *_last_two(index, len(outer))
        values = compute({role: _part(entries[at], (*where, outputs)) for role, at in used.items()})
        return values[..., inputs, :]

    return replace(_made(entries, target, shape, used, compute, "MXFP4"), read_part=read_part)


def _last_two(index: Index, before: int) -> tuple[slice, slice]:
    """The slices of the two axes of a matrix in an index that has ``before`` others first."""
    first, second = (*index[before:], slice(None), slice(None))[:2]
    assert isinstance(first, slice) and isinstance(second, slice), "the parts of a stack are matrices"
    return first, second


def _scaled(entries: Entries, name: str, entry: Stored, settings: Settings) -> Dequantised | None:
    """Eight-bit codes, one per element."""
    if not entry.is_coded or len(entry.shape) < 2:
        return None
    stem, dot, leaf = split(name)
    target = stem if leaf == "_data" else name
    at = f"{stem}{dot}"
    candidates = [f"{name}_scale_inv", f"{name}_scale", f"{stem}._scale" if leaf == "_data" else ""]
    if leaf == "weight":
        candidates += [f"{at}SCB", f"{at}scale_weight", f"{at}scales", f"{at}scale"]
    scale = next((n for n in candidates if n in entries), None)
    if scale is None or (blocks := _blocks(entries[scale].shape, entry.shape, settings)) is None:
        return None
    used = {"codes": name, "scales": scale} | _there(entries, {"zeros": f"{name}_zero_point"})
    shifts = None if "zeros" not in used else _blocks(entries[used["zeros"]].shape, entry.shape, settings)
    if (shifts is None and "zeros" in used) or ("zeros" not in used and entry.dtype == "uint8"):
        return None
    factor = np.float32(1 / 127) if scale.endswith("SCB") else np.float32(1)

    def compute(a: Arrays) -> np.ndarray:
        values = a["codes"].astype(np.float32)
        if shifts is not None:
            _each(values, np.subtract, a["zeros"], shifts)
        _each(values, np.multiply, _powers(a["scales"]) * factor, blocks)
        return values

    def read_part(index: Index) -> np.ndarray:
        """A part of one of a stack, which has its own scales; of anything else, the whole is computed."""
        place, *inside = index
        if not isinstance(place, int):
            return np.array(compute({role: as_numpy(entries[at]) for role, at in used.items()})[index])
        own = {role: as_numpy(entries[at]) for role, at in used.items() if role != "codes"}
        own = {role: array[place] if array.size > 1 else array for role, array in own.items()}
        values = _part(entry, (place,)).astype(np.float32)
        if shifts is not None:
            _each(values, np.subtract, own["zeros"], shifts[1:])
        _each(values, np.multiply, _powers(own["scales"]) * factor, blocks[1:])
        return np.array(values[tuple(inside)]) if inside else values

    stacked = len(entry.shape) > 2 and all(b is None or b == entry.shape or b[0] == 1 for b in (blocks, shifts))
    kind = {"int8": "INT8", "uint8": "UINT8"}.get(entry.dtype, f"FP8 ({entry.dtype.removeprefix('float8_')})")
    found = _made(entries, target, entry.shape, used, compute, f"{kind}, {_in_words(blocks, entry.shape)}")
    return replace(found, read_part=read_part) if stacked else found


def _blocks(scale: tuple[int, ...], shape: tuple[int, ...], settings: Settings) -> tuple[int, ...] | None:
    """Number of elements along each axis that share a scale; None if the shapes do not match."""
    if math.prod(scale) == 1:
        return shape
    if len(scale) == 1:
        scale = (*scale, *(1,) * (len(shape) - 1))
    given = settings.get("weight_block_size")
    named = list(given) if isinstance(given, list) and len(given) == len(shape) else [0] * len(shape)
    if len(scale) != len(shape):
        return None
    found = []
    for size, scales, known in zip(shape, scale, named, strict=True):
        # The last block may be shorter, so a division does not give the size of the others, which is mostly 128.
        likely = (known, size if scales == 1 else 0, 128, size // scales if scales and size % scales == 0 else 0)
        block = next((b for b in likely if isinstance(b, int) and b > 0 and -(-size // b) == scales), 0)
        if not block:
            return None
        found.append(block)
    return tuple(found)


def _in_words(blocks: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if blocks == shape:
        return "one scale"
    return "a scale per row" if blocks == (1, *shape[1:]) else "blocks of " + "×".join(map(str, blocks))


def _each(values: np.ndarray, operation: np.ufunc, shared: np.ndarray, blocks: tuple[int, ...]) -> None:
    """Apply ``operation`` to ``values`` in place with one parameter per block, with little extra memory."""
    shared = shared.astype(np.float32)
    if shared.size == 1:
        operation(values, shared.reshape(-1)[0], out=values)
        return
    shared = shared.reshape(*shared.shape, *(1,) * (values.ndim - shared.ndim))
    if all(n == 1 for n in shared.shape[1:]) and blocks[0] == 1:
        operation(values, shared, out=values)
        return
    for i in range(shared.shape[0]):
        rows, wide = slice(i * blocks[0], (i + 1) * blocks[0]), shared[i : i + 1]
        for axis in range(1, values.ndim):
            if wide.shape[axis] > 1 and blocks[axis] > 1:
                wide = np.repeat(wide, blocks[axis], axis=axis)[(slice(None),) * axis + (slice(values.shape[axis]),)]
        operation(values[rows], wide, out=values[rows])


def _by_group(codes: np.ndarray, a: Arrays, zeros: np.ndarray | float, scales: np.ndarray) -> np.ndarray:
    """s·(q − z) of ``codes`` (inputs, outputs) in place, with the ``zeros`` and ``scales`` (groups, outputs)."""
    inputs, groups = len(codes), len(scales)
    scales = scales.astype(np.float32)
    if "groups" in a and a["groups"].size == inputs:
        group = a["groups"].astype(np.intp)
        codes -= zeros if isinstance(zeros, float) else zeros[group]
        codes *= scales[group]
        return codes
    size = -(-inputs // groups)
    for i in range(groups):
        rows = slice(i * size, (i + 1) * size)
        codes[rows] -= zeros if isinstance(zeros, float) else zeros[i]
        codes[rows] *= scales[i]
    return codes
