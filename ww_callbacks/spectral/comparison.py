"""``ww_callbacks.spectral.compare``: what changed between two sets of weights of one model, layer by layer."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from ww_callbacks.spectral.analysis import Progress, counted, measure_layer, names_of, short
from ww_callbacks.spectral.layers.parameter_table import sizes

if TYPE_CHECKING:
    import pandas as pd

    from ww_callbacks.spectral.layers.spec import LayerSpec
    from ww_callbacks.spectral.measuring.registry import Value

TENFOLD = 1.0
"""A norm that became ten times larger, or a tenth (in log10), is said."""

RANK_LOST = 0.5
"""An effective rank below this share of the earlier one is said."""

_CHANGES = ("alpha", "log_spectral_norm", "effective_rank", "stable_rank")
_DISTANCES = ("distance_from_init", "relative_distance_from_init", "cosine_to_init", "scale_collapse")


@dataclass(frozen=True, repr=False)
class Comparison:
    """What :func:`compare` returns.

    Attributes:
        layers: one row a layer of the later weights, in depth order: ``layer``, ``matrices``, ``status``, ``changed``,
            the distances from the earlier weights, ``<quantity>_before`` and ``<quantity>_after``, ``unusable_before``:
            why there was nothing to compare with (the earlier weights are not finite or cannot be read), empty if
            there was; and ``worse``: in what respect the layer got worse, empty if in none.
        only_before: layers that only the earlier weights have.
        only_after: layers that only the later weights have, or have in another shape.
    """

    layers: pd.DataFrame
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def worse(self) -> pd.DataFrame:
        """The rows of the layers that got worse."""
        return self.layers[self.layers["worse"] != ""]

    @property
    def unusable_before(self) -> pd.DataFrame:
        """The rows of the layers whose earlier weights could not be used."""
        return self.layers[self.layers["unusable_before"] != ""]

    def shown(self) -> pd.DataFrame:
        """The table for people: how far each layer moved, α and effective rank before and after, and what got worse."""
        columns = ["layer", "matrices", "status", "relative_distance_from_init", "cosine_to_init"]
        columns += [f"{name}_{when}" for name in ("alpha", "effective_rank") for when in ("before", "after")]
        if len(self.unusable_before):
            columns.append("unusable_before")
        return self.layers[[*columns, "worse"]]

    def heading(self) -> str:
        """What was compared and how it came out, in a line."""
        parts = [f"{len(self.layers)} layers compared, {int(self.layers['changed'].sum())} changed"]
        parts.append(f"{len(self.worse)} got worse" if len(self.worse) else "none got worse")
        unusable = tuple(self.unusable_before["layer"])
        for names, where in (
            (unusable, "unusable before"),
            (self.only_before, "only before"),
            (self.only_after, "only after"),
        ):
            if names:
                parts.append(f"{len(names)} {where} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})")
        return ", ".join(parts)

    def __repr__(self) -> str:
        """The table as text."""
        return f"{self.heading()}\n\n{self.shown().to_string(index=False, na_rep='–', float_format=short)}"

    def _repr_html_(self) -> str:
        table = self.shown().to_html(index=False, border=0, na_rep="–", float_format=short)
        return f"<p>{html.escape(self.heading())}</p>{table}"


def compare(
    before: Any,
    after: Any,
    *,
    convolution: str = "matrix",
    layers: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    types: str | Sequence[str] = (),
    min_eigenvalues: int = 1,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two sets of weights of one model: distances, spectra before and after, and which layers got worse.

    A layer got worse if its weights are no longer finite or have become zero; if it is labelled over- or under-trained
    (α < 2, α > 6, with sufficient evidence) and was not before; if its effective rank fell below half; or if its
    norm or its largest singular value became a tenth, or ten times as large. These are fixed marks, to direct the eye.
    Of a layer whose earlier weights are not finite or cannot be read nothing of this is said: it has no distances, and
    ``unusable_before`` says why.

    Args:
        before: the earlier weights, a model or a file as :func:`ww_callbacks.spectral.analyze` takes it.
        after: the later weights; layers are matched by name and shape.
        convolution: how a convolution becomes matrices.
        layers: shell patterns of the layers to compare; all by default.
        exclude: shell patterns of layers to leave out.
        types: class names of modules or kinds to compare.
        min_eigenvalues: layers with fewer eigenvalues are left out.
        workers: layers at a time, one thread each; None for all cores.
        progress: called after each layer with (layers done, layers, name).

    Raises:
        TypeError, ValueError, FileNotFoundError, ImportError: as :func:`ww_callbacks.spectral.analyze`.

    >>> import numpy as np
    >>> result = compare({"a": np.diag([3.0, 2.0, 1.0])}, {"a": np.diag([3.0, 0.0, 0.0])})
    >>> result.layers[["layer", "changed", "relative_distance_from_init", "worse"]]
      layer  changed  relative_distance_from_init                     worse
    0     a     True                     0.597614  effective rank 2.749 → 1
    """
    import pandas as pd

    from ww_callbacks.spectral.layers import inspect
    from ww_callbacks.spectral.layers.matching import arrays_from
    from ww_callbacks.spectral.layers.selection import select
    from ww_callbacks.spectral.linalg.workers import WorkerPool
    from ww_callbacks.spectral.measuring.registry import resolve

    pool = WorkerPool(workers)
    later = inspect(after, convolution)
    chosen = select(
        later, names_of(layers, "layers"), names_of(exclude, "exclude"), names_of(types, "types"), min_eigenvalues
    )
    earlier = arrays_from(chosen, before, convolution)
    both = [spec for spec in chosen if spec.name in earlier]
    if not both:
        raise ValueError("The two sets of weights have no layer of the same name and shape in common.")
    wanted = resolve([*_CHANGES, *_DISTANCES, "frobenius_norm", "alpha_evidence", "warning"])

    def row(spec: LayerSpec) -> dict[str, Value]:
        old, old_status = measure_layer(spec, wanted, arrays=earlier[spec.name])
        unusable = _unusable(old, old_status)
        new, status = measure_layer(spec, wanted, initial=None if unusable else earlier[spec.name])
        return _row(spec, (old, old_status), (new, status), unusable)

    rows = pool.map(counted(row, len(both), progress), both, cost=lambda spec: spec.cost)
    here = {spec.name for spec in later}
    there = [spec.name for spec in inspect(before, convolution) if not spec.skipped]
    only_before = tuple(name for name in there if name not in here)
    return Comparison(pd.DataFrame(rows), only_before, tuple(s.name for s in chosen if s.name not in earlier))


def _unusable(old: Mapping[str, Value], status: str) -> str:
    """Why nothing can be compared with the earlier weights; empty if it can."""
    norm = float(old["frobenius_norm"])
    if isfinite(norm * norm):  # distances are measured by squares
        return ""
    return "norm overflows" if status == "ok" else status


def _row(
    spec: LayerSpec, before: tuple[Mapping[str, Value], str], after: tuple[Mapping[str, Value], str], unusable: str
) -> dict[str, Value]:
    (old, old_status), (new, status) = before, after
    row: dict[str, Value] = {"layer": spec.name, "matrices": sizes(spec.matrix_shapes), "status": status}
    row["changed"] = new["distance_from_init"] != 0.0  # NaN is a change
    row.update({name: new[name] for name in _DISTANCES})
    for name in _CHANGES:
        row |= {f"{name}_before": old[name], f"{name}_after": new[name]}
    row["unusable_before"] = unusable
    row["worse"] = "" if unusable else "; ".join(_worse(old, old_status, new, status))
    return row


def _worse(old: Mapping[str, Value], old_status: str, new: Mapping[str, Value], status: str) -> Iterator[str]:
    if status != "ok":
        if status != old_status:
            yield status
        return
    if new["warning"] and new["warning"] != old["warning"]:
        yield f"{new['warning']}: α {short(float(old['alpha']))} → {short(float(new['alpha']))}"
    rank, earlier_rank = float(new["effective_rank"]), float(old["effective_rank"])
    if rank < RANK_LOST * earlier_rank:
        yield f"effective rank {short(earlier_rank)} → {short(rank)}"
    if float(new["scale_collapse"]) <= -TENFOLD:
        yield f"norm ×{short(10.0 ** float(new['scale_collapse']))}"
    growth = (float(new["log_spectral_norm"]) - float(old["log_spectral_norm"])) / 2.0
    if growth >= TENFOLD:
        yield f"largest singular value ×{short(10.0**growth)}"
