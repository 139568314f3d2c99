"""Description of a layer: name, kind, shapes, notes, and how its weights are read."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

EXISTS_LATER = "its weights exist after the first batch"
"""Why a layer is skipped that is still to be built."""


class Array(Protocol):
    """A NumPy array, or a torch tensor that is on an accelerator: what the two have in common."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of elements along each axis."""

    @property
    def ndim(self) -> int:
        """The number of axes."""

    @property
    def dtype(self) -> Any:
        """The type of an element, NumPy's or torch's."""

    @property
    def T(self) -> Any:
        """The transposed matrix."""

    @property
    def reshape(self) -> Callable[..., Any]:
        """The same elements in another shape."""

    def __array__(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...

    def __add__(self, other: Any, /) -> Any: ...

    def __sub__(self, other: Any, /) -> Any: ...

    def __mul__(self, other: Any, /) -> Any: ...

    def __truediv__(self, other: Any, /) -> Any: ...

    def __matmul__(self, other: Any, /) -> Any: ...


Index = tuple[int | slice, ...]
"""A slice of a parameter as stored."""


@dataclass(frozen=True)
class LayerSpec:
    """One layer to measure, or one parameter that is not measured and why.

    A layer is what one row of a table describes. Mostly it is one parameter; a packed parameter (attention's in_proj,
    an LSTM's gates, fused experts) gives several layers, and a LoRA pair gives one from several parameters.

    Attributes:
        name: the unique name: the framework's own path of the parameter, with ``[part]`` for a part of a packed one.
        parameters: the framework's paths of the parameters it is made of.
        kind: ``dense``, ``conv``, ``attention``, ``embedding``, ``recurrent``, ``bilinear``, ``experts``, ``lora``,
            ``norm``, ``bias``, ``other``.
        type: the class name of the module, for filters (``Linear``, ``Conv2d``, ``EinsumDense``); empty if unknown.
        shape: the shape of the parameter as the framework stores it.
        matrix_shapes: shapes (rows = outputs, columns = inputs) of the matrices, empty if skipped.
        note: what was done with the parameter, in words, for ``describe()``.
        skipped: why it is not measured; empty if it is.
        read: returns the arrays that ``parameters`` hold now, in the framework's layout, without copying where that is
            possible: of a packed parameter only this layer's ``part``, of several parameters what they make together;
            called only inside a snapshot. None for a skipped one.
        arrange: turns those arrays into the list of matrices, as views where that is possible.
        part: which slice of the parameter as stored the layer is; empty for the whole.
        stored_as: how the weight is stored where it was dequantised to be measured; empty for any other.
        unread: about how many weights it has that cannot be read, being quantised in a way that is not known.
        is_frozen: tells whether no parameter of the layer is trained now (``requires_grad``, ``trainable``); None where
            that is not known.
    """

    name: str
    parameters: tuple[str, ...]
    kind: str
    type: str
    shape: tuple[int, ...]
    matrix_shapes: tuple[tuple[int, int], ...] = ()
    note: str = ""
    skipped: str = ""
    read: Callable[[], Sequence[Array]] | None = field(default=None, compare=False)
    arrange: Callable[[Sequence[Array]], list[Array]] | None = field(default=None, compare=False)
    part: Index = field(default=(), compare=False)
    is_frozen: Callable[[], bool] | None = field(default=None, compare=False)
    stored_as: str = ""
    unread: int = 0

    @property
    def eigenvalues(self) -> int:
        """Number of eigenvalues λ that the layer gives, all of its matrices pooled."""
        return sum(min(shape) for shape in self.matrix_shapes)

    @property
    def cost(self) -> float:
        """Cost of its spectrum in arbitrary units: Σ n·m·min(n, m) over its matrices."""
        return float(sum(n * m * min(n, m) for n, m in self.matrix_shapes))

    @property
    def frozen(self) -> bool:
        """Whether the layer is not trained now, as far as the framework tells."""
        return self.is_frozen is not None and self.is_frozen()

    def null_seed(self, seed: int = 0) -> int:
        """The seed of the layer's random nulls, by ``seed`` and by its matrices' shapes.

        Not by its name, which differs between frameworks: the same weights are to give the same numbers.
        """
        return zlib.crc32(repr(self.matrix_shapes).encode()) ^ seed

    def matrices(self) -> list[Array]:
        """The layer's matrices as they are now.

        Raises:
            ValueError: if the layer is skipped.
        """
        if self.read is None or self.arrange is None:
            raise ValueError(f"`{self.name}` is not measured: {self.skipped}")
        return self.arrange(self.read())


class Layers(list[LayerSpec]):
    """The layers of one model or file, in depth order.

    Attributes:
        remarks: what a reader of the results has to know of how they were found: which of several files was taken, that
            names were matched without a prefix.
    """

    def __init__(self, specs: Iterable[LayerSpec] = (), remarks: Iterable[str] = ()) -> None:
        super().__init__(specs)
        self.remarks = tuple(filter(None, remarks))
