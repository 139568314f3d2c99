"""A parameter's layout → the matrices in it, for NumPy arrays and torch tensors alike.

Every function takes the parameter's shape as its framework stores it and returns the :class:`Part` s that become one
row of a table each. One orientation holds everywhere: rows = outputs, columns = inputs. The matrices come out in C
order whatever the framework's layout, so that equal weights give equal bits downstream; a tensor that already lies that
way is not copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_args

import numpy as np

from ww_callbacks.spectral.layers.spec import Array, Index, LayerSpec

Convention = Literal["matrix", "slices", "separate", "weightwatcher"]
"""How a convolution's kernel becomes matrices.

- ``matrix`` (the default): one (out, in·kernel) matrix, columns in the order in, kernel height, kernel width. It is the
  linear map from a patch to the outputs, so its spectrum is that of what the layer does at each position; and it has
  min(out, in·kernel) eigenvalues that come from one matrix, which is what power-law fits and random-matrix laws assume.
- ``slices``: one (out, in) matrix a kernel position, the eigenvalues of all of them pooled into one row.
- ``separate``: the same matrices, each in a separate row.
- ``weightwatcher``: ``slices`` times √½, so that each pooled λ is half; for numbers comparable with WeightWatcher's.

With ``groups`` the matrices of the groups are pooled: together they are the diagonal blocks of the whole map. A
depthwise kernel has one input channel a group, where blocks are mere vectors; it is measured as the (filters, kernel)
matrix in every convention.
"""

CONVENTIONS: tuple[str, ...] = get_args(Convention)

LSTM_GATES = ("input", "forget", "cell", "output")
"""Both torch (i, f, g, o) and Keras (i, f, c, o) store them in this order."""
GRU_GATES_TORCH = ("reset", "update", "new")
GRU_GATES_KERAS = ("update", "reset", "new")
QKV = ("q", "k", "v")
UNKNOWN_PACKING = "q, k and v are packed in a way that differs between models: measured whole"

KernelLayout = Literal["torch", "torch transposed", "keras", "keras transposed", "keras depthwise"]


@dataclass(frozen=True)
class Part:
    """What one row of a table takes from a parameter.

    Attributes:
        label: the part's name inside the parameter; empty where the parameter is one row.
        index: which slice of the parameter as stored it is.
        shapes: the shapes of its matrices.
        arrange: turns that slice into the matrices.
        note: what was done, in words.
    """

    label: str
    index: Index
    shapes: tuple[tuple[int, int], ...]
    arrange: Callable[[Array], list[Array]]
    note: str = ""


def check_convention(convolution: str) -> Convention:
    """``convolution`` if it is one of :data:`Convention`.

    Raises:
        ValueError: if it is not.
    """
    if convolution not in CONVENTIONS:
        raise ValueError(
            f"Expected `convolution` to be one of {', '.join(map(repr, CONVENTIONS))} but got {convolution!r}."
        )
    return convolution  # type: ignore[return-value]


def contiguous(array: Any) -> Array:
    """``array`` in C order; itself where it already is."""
    return np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array.contiguous()


def copied(array: Any) -> Array:
    """A copy of ``array`` in C order."""
    return np.array(array, order="C") if isinstance(array, np.ndarray) else array.clone().contiguous()


def permuted(array: Any, axes: Sequence[int]) -> Array:
    """A view of ``array`` with its axes in the order ``axes``."""
    return array.transpose(axes) if isinstance(array, np.ndarray) else array.permute(*axes)


def matrix(shape: Sequence[int], *, transposed: bool = False, note: str = "") -> list[Part]:
    """A parameter that is one matrix: (out, in), or (in, out) where ``transposed``."""
    rows, columns = shape
    if transposed:
        return [Part("", (), ((columns, rows),), lambda a: [contiguous(a.T)], note or "stored (in, out): transposed")]
    return [Part("", (), ((rows, columns),), lambda a: [contiguous(a)], note)]


def embedding(shape: Sequence[int]) -> list[Part]:
    """An embedding, stored (tokens, features): as a map from a one-hot token it is (features, tokens)."""
    tokens, features = shape
    return [Part("", (), ((features, tokens),), lambda a: [a.T], "stored (tokens, features): rows = features (a view)")]


def packed(shape: Sequence[int], labels: Sequence[str], what: str, *, transposed: bool = False) -> list[Part]:
    """Several matrices stacked along the outputs: stored (k·out, in), or (in, k·out) where ``transposed``.

    Raises:
        ValueError: if the outputs do not divide by the number of labels.
    """
    outputs, inputs = (shape[1], shape[0]) if transposed else (shape[0], shape[1])
    size, rest = divmod(outputs, len(labels))
    if rest:
        raise ValueError(f"{outputs} outputs cannot be split into {len(labels)} equal parts ({', '.join(labels)}).")
    whole = matrix((inputs, size) if transposed else (size, inputs), transposed=transposed)[0]
    parts = []
    for i, label in enumerate(labels):
        rows = slice(i * size, (i + 1) * size)
        index: Index = (slice(None), rows) if transposed else (rows,)
        note = f"{what}: outputs {rows.start} to {rows.stop - 1}"
        parts.append(replace(whole, label=label, index=index, note=f"{note}, {whole.note}" if whole.note else note))
    return parts


def convolution(
    shape: Sequence[int],
    convolution: Convention,
    *,
    groups: int = 1,
    layout: KernelLayout = "torch",
) -> list[Part]:
    r"""A convolution's kernel, in the convention ``convolution`` (see :data:`Convention`).

    Args:
        shape: as stored: ``torch`` (out, in/groups, \*kernel); ``torch transposed`` (in, out/groups, \*kernel);
            ``keras`` (\*kernel, in/groups, out); ``keras transposed`` (\*kernel, out, in); ``keras depthwise``
            (\*kernel, in, multiplier).
        convolution: the convention.
        groups: number of groups; a Keras depthwise kernel has as many as input channels.
        layout: how it is stored.
    """
    shape = tuple(shape)
    kernel = shape[2:] if layout.startswith("torch") else shape[:-2]
    channels = shape[:2] if layout.startswith("torch") else shape[-2:]
    if layout == "keras depthwise":
        groups = channels[0]
    if layout == "torch":
        outputs, inputs = channels[0], channels[1]
    elif layout == "torch transposed":
        outputs, inputs = channels[1] * groups, channels[0] // groups
    elif layout == "keras":
        outputs, inputs = channels[1], channels[0]
    elif layout == "keras transposed":
        outputs, inputs = channels
    else:
        outputs, inputs = math.prod(channels), 1
    depth = len(kernel)

    def canonical(a: Array) -> Array:
        """``a`` as (out, in/groups, *kernel), as torch stores a plain convolution; a view wherever one can be."""
        if layout == "torch":
            return a
        if layout == "torch transposed":
            grouped = a.reshape(groups, inputs, outputs // groups, *a.shape[2:])
            axes = (0, 2, 1, *range(3, grouped.ndim))
            return permuted(grouped, axes).reshape(outputs, inputs, *a.shape[2:])
        spatial = tuple(range(a.ndim - 2))
        if layout == "keras":
            return permuted(a, (a.ndim - 1, a.ndim - 2, *spatial))
        channels_first = permuted(a, (a.ndim - 2, a.ndim - 1, *spatial))
        return channels_first if layout == "keras transposed" else channels_first.reshape(outputs, 1, *a.shape[:-2])

    size = outputs // groups
    blocks = [slice(g * size, (g + 1) * size) for g in range(groups)]
    taps = math.prod(kernel)
    stored = "" if layout == "torch" else f", stored as {layout}"
    if groups > 1 and inputs == 1:
        note = f"depthwise convolution: one (filters, kernel) matrix{stored}"
        return [Part("", (), ((outputs, taps),), lambda a: [contiguous(canonical(a).reshape(outputs, taps))], note)]
    in_groups = f", {groups} groups pooled" if groups > 1 else ""
    if convolution == "matrix":

        def arrange(a: Array) -> list[Array]:
            whole = canonical(a)
            return [contiguous(whole[block].reshape(size, inputs * taps)) for block in blocks]

        shapes = ((size, inputs * taps),) * groups
        return [Part("", (), shapes, arrange, f"convolution: (out, in·kernel) matrix{in_groups}{stored}")]
    tap_shapes = ((size, inputs),) * groups
    if convolution == "separate":
        parts = []
        for tap in product(*map(range, kernel)):
            where: Index = (slice(None), slice(None), *tap) if layout.startswith("torch") else tap
            label = ",".join(map(str, tap))

            def arrange_tap(a: Array) -> list[Array]:
                # The kernel axes are gone from the slice; lengths of one put them back where `canonical` wants them.
                ones = (1,) * depth
                a = a.reshape(*a.shape, *ones) if layout.startswith("torch") else a.reshape(*ones, *a.shape)
                whole = canonical(a).reshape(outputs, inputs)
                return [contiguous(whole[block]) for block in blocks]

            note = f"convolution: kernel position ({label}) as (out, in) matrix{in_groups}{stored}"
            parts.append(Part(label, where, tap_shapes, arrange_tap, note))
        return parts

    def arrange_slices(a: Array) -> list[Array]:
        whole = canonical(a).reshape(outputs, inputs, taps)
        slices: list[Any] = [contiguous(whole[block, :, tap]) for tap in range(taps) for block in blocks]
        if convolution == "slices":
            return slices
        half = math.sqrt(0.5)  # in float64: float32 would lose the ninth digit of λ
        return [s.astype(np.float64) * half if isinstance(s, np.ndarray) else s.double() * half for s in slices]

    factor = " times √½, as WeightWatcher" if convolution == "weightwatcher" else ""
    note = f"convolution: {taps} kernel slices (out, in) pooled{factor}{in_groups}{stored}"
    return [Part("", (), tap_shapes * taps, arrange_slices, note)]


def bilinear(shape: Sequence[int]) -> list[Part]:
    """A bilinear form, stored (out, in1, in2): the (out, in1·in2) matrix that acts on the outer product of both."""
    outputs, first, second = shape
    return [
        Part(
            "",
            (),
            ((outputs, first * second),),
            lambda a: [contiguous(a.reshape(outputs, first * second))],
            "bilinear: (out, in1·in2) matrix",
        )
    ]


def stack(
    shape: Sequence[int],
    what: str,
    *,
    transposed: bool = False,
    halves: Sequence[str] = (),
    interleaved: bool = False,
) -> list[Part]:
    """Matrices of equal shape stacked along the first axis: stored (k, out, in), or (k, in, out) where ``transposed``.

    Args:
        shape: as stored.
        what: what one of them is (``expert``), for the note.
        transposed: whether inputs come before outputs.
        halves: names of the two matrices that the outputs of each one hold, if they are packed (``gate``, ``up``).
        interleaved: whether those two alternate output by output instead of lying one after the other.

    Raises:
        ValueError: if ``halves`` are named and the number of outputs is odd.
    """
    count = shape[0]
    outputs, inputs = (shape[2], shape[1]) if transposed else (shape[1], shape[2])
    steps: list[tuple[str, slice]] = [("", slice(None))]
    if halves:
        if outputs % 2:
            raise ValueError(f"{outputs} outputs cannot be split into {' and '.join(halves)}.")
        outputs //= 2
        cuts = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(0, outputs), slice(outputs, None))
        steps = list(zip(halves, cuts, strict=True))
    whole = matrix((inputs, outputs) if transposed else (outputs, inputs), transposed=transposed)[0]
    parts = []
    for i in range(count):
        for half, cut in steps:
            index: Index = (i, slice(None), cut) if transposed else (i, cut)
            note = f"{what} {i}{f', {half}' if half else ''}{f', {whole.note}' if whole.note else ''}"
            parts.append(replace(whole, label=f"{i},{half}" if half else str(i), index=index, note=note))
    return parts


def experts_transposed(gate_up: Sequence[int], down: Sequence[int]) -> bool:
    """Whether fused experts are stored (experts, in, out), inferred from the shapes of their two parameters.

    An expert's gate and up have together twice as many outputs as its down has inputs.

    >>> experts_transposed((8, 64, 16), (8, 16, 32)), experts_transposed((8, 16, 64), (8, 32, 16))
    (False, True)
    """
    if len(gate_up) != 3 or len(down) != 3:
        return False
    return gate_up[1] != 2 * down[2] and gate_up[2] == 2 * down[1]


def einsum(equation: str, shape: Sequence[int]) -> list[Part]:
    """The kernel of an einsum ``inputs,kernel->outputs``: its output axes as rows, its contracted axes as columns.

    Axes that are in all three are separate maps; their matrices are pooled, being the diagonal blocks of the whole.

    Raises:
        ValueError: if the equation is not of that form.
    """
    left, _, outputs = equation.replace(" ", "").partition("->")
    inputs, _, kernel = left.partition(",")
    if not outputs or len(kernel) != len(shape) or len(set(kernel)) != len(kernel):
        raise ValueError(f"the equation `{equation}` is not that of one kernel of {len(shape)} axes")
    batch = [a for a in kernel if a in inputs and a in outputs]
    rows = sorted((a for a in kernel if a in outputs and a not in inputs), key=outputs.index)
    columns = sorted((a for a in kernel if a in inputs and a not in outputs), key=inputs.index)
    if len(batch) + len(rows) + len(columns) != len(kernel):
        raise ValueError(f"the equation `{equation}` sums over an axis of the kernel alone")
    sizes = dict(zip(kernel, shape, strict=True))
    count, n, m = (math.prod(sizes[a] for a in axes) for axes in (batch, rows, columns))
    order = [kernel.index(a) for a in (*batch, *rows, *columns)]

    def arrange(a: Array) -> list[Array]:
        blocks = permuted(a, order).reshape(count, n, m)
        return [contiguous(blocks[i]) for i in range(count)]

    blocks = f", {count} blocks pooled" if batch else ""
    return [Part("", (), ((n, m),) * count, arrange, f"einsum {equation}: rows = {''.join(rows) or '1'}{blocks}")]


def specs(
    name: str,
    parts: Sequence[Part],
    read: Callable[[], Array],
    *,
    read_part: Callable[[Index], Array] | None = None,
    kind: str,
    type: str,
    shape: Sequence[int],
    parameters: Sequence[str] | None = None,
    note: str = "",
) -> list[LayerSpec]:
    """One :class:`LayerSpec` for each of the ``parts`` of the parameter ``name``.

    Args:
        name: the parameter's path.
        parts: its parts.
        read: returns the parameter as stored.
        read_part: returns one slice of it and holds no more than that, so that a fused parameter is widened or copied
            slice by slice; without it, slices of what ``read`` returns are copied.
        kind: as in :class:`LayerSpec`.
        type: as in :class:`LayerSpec`.
        shape: as in :class:`LayerSpec`.
        parameters: the parameters that ``read`` reads, where that is not ``name`` itself.
        note: said before the notes of the parts.
    """

    def reader(index: Index) -> Callable[[], list[Array]]:
        if not index:
            return lambda: [read()]
        if read_part is not None:
            return lambda: [read_part(index)]
        return lambda: [copied(read()[index])]  # a view would keep the whole parameter alive

    def arranger(arrange: Callable[[Array], list[Array]]) -> Callable[[Sequence[Array]], list[Array]]:
        return lambda arrays: arrange(arrays[0])

    return [
        LayerSpec(
            name=f"{name}[{part.label}]" if part.label else name,
            parameters=(name,) if parameters is None else tuple(parameters),
            kind=kind,
            type=type,
            shape=tuple(shape),
            matrix_shapes=part.shapes,
            note="; ".join(filter(None, (note, part.note))),
            read=reader(part.index),
            arrange=arranger(part.arrange),
            part=part.index,
        )
        for part in parts
    ]


def skipped(
    name: str, why: str, *, kind: str = "other", type: str = "", shape: Sequence[int] = (), note: str = ""
) -> LayerSpec:
    """The :class:`LayerSpec` of a parameter that is not measured."""
    return LayerSpec(name=name, parameters=(name,), kind=kind, type=type, shape=tuple(shape), note=note, skipped=why)
