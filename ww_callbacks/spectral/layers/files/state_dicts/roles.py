"""Identifies arrays that are not weights by their name, companions or shape.

A matrix in a file is a weight only if the model multiplies by it. Moments of an optimiser, scales of quantised weights,
running statistics, tables of positions, masks and random states have the shapes of weights but are not weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection

_START, _END = r"(?:^|[./])", r"(?:$|[./])"
_BY_NAME = tuple(
    (re.compile(pattern), why)
    for pattern, why in (
        (
            rf"{_START}(optim(izers?|isers?)?(_states?)?|opt_states?)[./]|"
            rf"{_START}(max_)?(exp_avg(_sq|_slow)?|exp_inf|square_avg|grad_avg|acc_delta|momentum_buffer)({_END}|_)",
            "a moment of the optimiser",
        ),
        (r"rng_state|random_state|generator_state", "the state of a random generator"),
        (
            rf"(position|token_type|relative_position|rel_pos)_(ids?|index|indices)$|relative_coords_table$|"
            rf"{_START}(rel_)?pos_(ids?|index)$",
            "a table of positions: not learned",
        ),
        (
            rf"inv_freq$|freqs_cis$|(cos|sin)_cache(d)?$|rotary[^.]*[./](cos|sin|freqs|scale)$|{_START}(pe|freqs|embed_positions)$",
            "a fixed table of angles or positions: not learned",
        ),
        (
            rf"{_START}((attn|attention|causal|src|tgt|key_padding|future)_)?mask$|{_START}(tril|masked_bias)$",
            "a mask: not learned",
        ),
        (
            rf"num_batches_tracked$|running_(mean|var|std)$|moving_(mean|var|variance)$|_cov_sum$|confmat$|confusion_matrix$|"
            rf"{_START}(embed_avg|cluster_size|_?ema_w|_?ema_cluster_size|act_(max|min)|(min|max)_vals?|fisher|covariance)$",
            "a running statistic",
        ),
        (rf"{_START}a_log$", "diagonals of a state-space model: not a map from inputs to outputs"),
        (rf"{_START}queue(_ptr|_?\d+)?$", "a queue of earlier outputs"),
        (
            rf"{_START}(mel_(filters|basis|fb)|mel_scale\.fb|filterbank|dct_mat|stft_basis)$",
            "a fixed filter: not learned",
        ),
        (rf"{_START}(anchors?(_grid|_points)?|priors?|prior_boxes)$", "fixed anchors: not learned"),
        (rf"{_START}ia3_l{_END}", "IA3's factors: a vector, which has no spectrum"),
    )
)

_SCALES = re.compile(
    r"(^|[._/])(scale_inv|absmax|quant_map|quant_state|scb|g_idx|perm|qzeros|qscales?|"
    r"(weight|input|output|act|activation|k|v|kv|q|prob|smooth)_(scales?(_\d+)?|zero_points?|zeros?)|"
    r"(global|group|block|tensor)_scales?|scale_(weight|input)|amax(_history)?|smooth_(factor|quant)\w*|"
    r"weight_(shape|format|g_idx|global_scale|meta\w*))$"
)
_SCALES_BESIDE = re.compile(r"(^|[._/])(scales?|scale_?\d*|zeros?|zero_points?|biases|offset|scale_bf16)$")
"""Names that mean a scale only next to integers or 8-bit floats."""


def split(name: str) -> tuple[str, str, str]:
    """Split ``name`` into path, separator and entry.

    >>> split("encoder.0.weight"), split("weight")
    (('encoder.0', '.', 'weight'), ('', '', 'weight'))
    """
    cut = max(name.rfind("."), name.rfind("/"))
    return (name[:cut], name[cut], name[cut + 1 :]) if cut >= 0 else ("", "", name)


def why_no_weight(name: str, shape: tuple[int, ...], coded: Collection[str] = ()) -> str:
    """What the entry ``name`` is, if its name or companions show that it is not a weight; empty otherwise.

    Args:
        name: its name.
        shape: its shape.
        coded: the modules with integers or 8-bit floats, and the names of these entries.

    >>> why_no_weight("module.optimizer.state.0.exp_avg", (4, 4))
    'a moment of the optimiser'
    >>> why_no_weight("h.0.attn.weight", (4, 4))
    ''
    """
    lowered = name.lower()
    for pattern, why in _BY_NAME:
        if pattern.search(lowered):
            return why
    if _SCALES.search(lowered) or (split(name)[0] in coded and _SCALES_BESIDE.search(lowered)):
        return "the scale of a quantised array, or its zero point"
    if len(shape) > 1 and sum(n != 1 for n in shape) < 2 and not is_map(name):
        return "a vector stored with further axes: it has no spectrum"
    return ""


def is_map(name: str) -> bool:
    """Whether an entry of this name is a map even with one input or one output."""
    leaf = split(name)[2].lower()
    return (
        re.search(r"^(tensor|matrix)$|(weight|kernel|embedding)s?(_|\d|$)|(^|_)w(_|\d|$)|lora_|proj", leaf) is not None
    )
