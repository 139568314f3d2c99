"""``ww_callbacks.spectral.compare``: what changed between two sets of weights of one model, layer by layer."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from math import isfinite
from typing import TYPE_CHECKING, Any

from ww_callbacks.spectral.analysis import chosen_of, measure_layer
from ww_callbacks.spectral.layers.parameter_table import sizes
from ww_callbacks.spectral.number_text import short
from ww_callbacks.spectral.printed_tables import counted, ordered, rows_of, some, with_alpha_in_words

if TYPE_CHECKING:
    import pandas as pd

    from ww_callbacks.spectral.layers.spec import Array, LayerSpec
    from ww_callbacks.spectral.measuring.registry import Value
    from ww_callbacks.spectral.measuring.rows import Progress

TENFOLD = 1.0
"""A norm that became ten times larger, or a tenth (in log10), is reported."""

RANK_LOST = 0.5
"""An effective rank below this share of the earlier one is reported."""

NOTES = (
    "A finding is a fact about the weights: no longer finite, zero, effective rank below half, norm or largest "
    "singular value ten times larger or a tenth. change_to_noise: about 1 is how random steps of that size look, well "
    "above 1 is a change with a direction. None of this tells whether the later weights do better or generalise less: "
    "harmless fine-tuning and overfitting move weights, α and rank alike. That takes validation data."
)
"""What the numbers of a comparison mean, and what they do not."""

_CHANGES = ("alpha", "log_spectral_norm", "effective_rank", "stable_rank")
_DISTANCES = ("distance_from_init", "relative_distance_from_init", "cosine_to_init", "scale_collapse")
_EVIDENCE = ("sigma", "alpha_evidence")
COLUMNS = (
    *("layer", "matrices", "status", "changed", *_DISTANCES, "change_to_noise", "change_rank"),
    *(f"{name}_{when}" for name in (*_CHANGES, *_EVIDENCE) for when in ("before", "after")),
    *("unusable_before", "finding"),
)
"""The columns of a comparison."""

_SHOWN = ("relative_distance_from_init", "change_to_noise", "change_rank", "effective_rank", "alpha", "cosine_to_init")


@dataclass(frozen=True, repr=False)
class Comparison:
    """The result of :func:`compare`.

    Attributes:
        layers: one row per layer of the later weights, in depth order: ``layer``, ``matrices``, ``status``,
            ``changed``; for the change ΔW, the distances from the earlier weights (``relative_distance_from_init`` is
            ‖ΔW‖_F/‖W‖_F), ``change_to_noise`` and ``change_rank`` (see :func:`change`); ``<quantity>_before`` and
            ``<quantity>_after``; α with its standard error and evidence; ``unusable_before``: why the earlier weights
            could not be used (not finite or not readable), otherwise empty; and ``finding``: how the weights broke or
            collapsed, otherwise empty.
        only_before: layers that only the earlier weights have.
        only_after: layers that only the later weights have, or that have a different shape there.
        remarks: notes on how the layers were found and matched.
        not_reached: the layers that were not compared because of ``max_time``.
    """

    layers: pd.DataFrame
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    not_reached: tuple[str, ...] = ()

    @property
    def findings(self) -> pd.DataFrame:
        """The rows of the layers with a finding."""
        return self.layers[self.layers["finding"] != ""]

    @property
    def unusable_before(self) -> pd.DataFrame:
        """The rows of the layers whose earlier weights could not be used."""
        return self.layers[self.layers["unusable_before"] != ""]

    @property
    def notes(self) -> str:
        """Notes on what the numbers mean and what they do not show."""
        return NOTES

    def shown(self, order: str = "concern", *, changed: bool = False) -> pd.DataFrame:
        """The printed table: the change of each layer, its effective rank and α before → after, and findings.

        Args:
            order: ``concern`` (default): findings first, then layers that cannot be compared, then by ‖ΔW‖/‖W‖, the
                largest first; ``depth``; or a column of :attr:`layers`, the largest first.
            changed: whether to leave out unchanged layers.

        Raises:
            ValueError: for any other order.
        """
        columns = ["layer", "matrices", "status", *_SHOWN]
        columns += ["unusable_before"] if len(self.unusable_before) else []
        table = self.layers[self.layers["changed"]] if changed else self.layers
        concern = [
            (not row["finding"], not row["unusable_before"], -_finite(row["relative_distance_from_init"]))
            for row in rows_of(table)
        ]
        places = ordered(table, order, concern, {})
        words = rows_of(with_alpha_in_words(with_alpha_in_words(table, "_before"), "_after"))
        moved = {name: [_before_and_after(row, name) for row in words] for name in ("effective_rank", "alpha")}
        return table.assign(**moved).iloc[places][[*columns, "finding"]]

    def heading(self) -> str:
        """One line: what was compared, how much changed, where most, and the findings."""
        moved = self.layers[self.layers["changed"]]
        sizes = moved["relative_distance_from_init"].dropna()
        parts = [f"{counted(len(self.layers), 'layer')} compared, {len(moved)} changed"]
        if len(sizes):
            most = moved.loc[sizes.sort_values(ascending=False).index[:3]]
            named = [f"{row['layer']} {100 * row['relative_distance_from_init']:.3g} %" for row in rows_of(most)]
            parts[0] += f" by a median of {100 * sizes.median():.3g} % of their norm (most: {', '.join(named)})"
        parts.append(f"{len(self.findings)} with a finding" if len(self.findings) else "no finding")
        unusable = tuple(self.unusable_before["layer"])
        for names, where in (
            (unusable, "unusable before"),
            (self.only_before, "only before"),
            (self.only_after, "only after"),
        ):
            if names:
                parts.append(f"{len(names)} {where} ({some(names)})")
        if self.not_reached:
            parts.append(f"{counted(len(self.not_reached), 'layer')} not compared within `max_time`")
        parts += self.remarks
        if len(self.findings):
            look = [f"{row['layer']} ({row['finding']})" for row in rows_of(self.findings)]
            parts[-1] += f"; look at {some(look)}"
        return ", ".join(parts)

    def __repr__(self) -> str:
        """The table as text."""
        table = self.shown().to_string(index=False, na_rep="–", float_format=short)
        return f"{self.heading()}\n\n{table}\n\n{self.notes}"

    def _repr_html_(self) -> str:
        table = self.shown().to_html(index=False, border=0, na_rep="–", float_format=short)
        return f"<p>{html.escape(self.heading())}</p>{table}<p>{html.escape(self.notes)}</p>"


def _before_and_after(row: Mapping[str, Any], quantity: str) -> str:
    """``3.1 → 2.9``; one value where the layer did not change."""
    before, after = (row[f"{quantity}_{when}"] for when in ("before", "after"))
    texts = [
        short(v) if isinstance(v, float) and isfinite(v) else "–" if isinstance(v, float) else v
        for v in (before, after)
    ]
    return " → ".join(texts) if row["changed"] else texts[1]


def _finite(value: float) -> float:
    return value if isfinite(value) else 0.0


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
    max_time: float | None = None,
    resume: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Compare two sets of weights of one model: which layers changed, by how much, and whether any broke.

    A layer has a finding if its weights are no longer finite or have become zero, if its effective rank fell below
    half, or if its norm or its largest singular value changed by a factor of ten. These limits are fixed and only point
    to layers to inspect. α never gives a finding, because it also changes in harmless training. A layer whose earlier
    weights are not finite or cannot be read has no finding and no distances; ``unusable_before`` gives the reason.

    Args:
        before: the earlier weights, a model or a file as for :func:`ww_callbacks.spectral.analyze`.
        after: the later weights; layers are matched by name, without the prefixes of wrappers, and by shape. The folder
            of an adapter is compared as the sum of ``before`` and its updates.
        convolution: how a convolution becomes matrices.
        layers: shell patterns of the layers to compare; all by default.
        exclude: shell patterns of layers to leave out.
        types: class names of modules or kinds to compare.
        min_eigenvalues: leave out layers with fewer eigenvalues.
        workers: number of layers compared in parallel, one thread each; None for all cores.
        progress: called after each layer with (layers done, layers, name).
        max_time: seconds after which no new layer is started, as in :func:`ww_callbacks.spectral.analyze`.
        resume: a file in which each row is saved, to continue an interrupted comparison, likewise.

    Raises:
        TypeError, ValueError, FileNotFoundError, ImportError: as :func:`ww_callbacks.spectral.analyze`.

    >>> import numpy as np
    >>> result = compare({"a": np.diag([3.0, 2.0, 1.0])}, {"a": np.diag([3.0, 0.0, 0.0])})
    >>> result.layers[["layer", "changed", "relative_distance_from_init", "finding"]]
      layer  changed  relative_distance_from_init                   finding
    0     a     True                     0.597614  effective rank 2.749 → 1
    """
    import pandas as pd

    from ww_callbacks.spectral.layers import inspect
    from ww_callbacks.spectral.layers.matching import arrays_from
    from ww_callbacks.spectral.linalg.workers import WorkerPool
    from ww_callbacks.spectral.measuring.registry import resolve
    from ww_callbacks.spectral.measuring.rows import RowFile, check_max_time, collect, files_of

    check_max_time(max_time)
    pool = WorkerPool(workers)
    later = inspect(after, convolution, base=before)
    chosen = chosen_of(after, later, layers, exclude, types, min_eigenvalues)
    earlier = arrays_from(later, before, convolution)
    both = [spec for spec in chosen if spec.name in earlier]
    if not both:
        there = [spec for spec in inspect(before, convolution) if not spec.skipped]
        first, second = (
            some([f"{spec.name} ({sizes(spec.matrix_shapes)})" for spec in held]) for held in (there, chosen)
        )
        raise ValueError(
            "The two sets of weights have no layer of the same name and shape in common: "
            f"the earlier ones are {first or 'none'}, the later ones {second}. Compare two of one network."
        )
    wanted = resolve([*_CHANGES, *_DISTANCES, *_EVIDENCE, "frobenius_norm"])

    def row(spec: LayerSpec) -> dict[str, Value]:
        arrays = cache(partial(earlier.__getitem__, spec.name))
        old, old_status = measure_layer(spec, wanted, arrays=arrays)
        unusable = _unusable(old, old_status)
        new, status = measure_layer(spec, wanted, initial=None if unusable else arrays)
        size = (float("nan"), float("nan"))
        if not unusable and status == "ok" and new["distance_from_init"] != 0.0:
            size = change(spec.matrices(), spec.arrange(arrays()) if spec.arrange else ())
        return _row(spec, (old, old_status), (new, status), size, unusable)

    kept = None
    if resume is not None:
        sources = {"before": files_of(before, "before"), "after": files_of(after, "after")}
        kept = RowFile(resume, {**sources, "convolution": convolution})
    perform = partial(pool.map, cost=lambda spec: spec.cost) if max_time is None else pool.map
    rows, not_reached = collect(perform, row, both, progress=progress, max_time=max_time, kept=kept)
    here = {spec.name for spec in later}  # layers excluded by a filter are not reported as missing
    only_before = tuple(name for name in earlier.unused if name not in here)
    only_after = tuple(spec.name for spec in chosen if spec.name not in earlier)
    remarks = tuple(dict.fromkeys((*later.remarks, *earlier.remarks)))
    return Comparison(pd.DataFrame(rows, columns=list(COLUMNS)), only_before, only_after, remarks, not_reached)


def change(after: Sequence[Array], before: Sequence[Array]) -> tuple[float, float]:
    """How much of the change ΔW between two weights has a direction.

    Returns:
        σ_1(ΔW)/(s(√n + √m)), where s² is the mean square element of ΔW (n×m): the denominator is the largest singular
        value of an independent random matrix of that size, so that noise gives about 1; and the stable rank
        ‖ΔW‖_F²/σ_1(ΔW)², the number of directions that the change uses. Over several matrices the largest ratio and its
        stable rank; NaN without a change.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> noise, step = rng.standard_normal((200, 100)), np.outer(np.ones(200), np.ones(100))
    >>> [round(value, 2) for value in change([noise], [0 * noise])], [round(v, 2) for v in change([step], [0 * step])]
    ([0.97, 36.55], [5.86, 1.0])
    """
    import numpy as np

    from ww_callbacks.spectral.linalg.arrays import difference
    from ww_callbacks.spectral.linalg.spectrum import gram_singular_values

    found = [(float("nan"), float("nan"))]
    for now, then in zip(after, before, strict=True):
        values = gram_singular_values(difference(now, then))
        total = float(np.sum(values**2))
        if total > 0.0:
            rows, columns = now.shape
            edge = np.sqrt(total / (rows * columns)) * (np.sqrt(rows) + np.sqrt(columns))
            found.append((float(values[0] / edge), total / float(values[0]) ** 2))
    return max(found, key=lambda pair: -1.0 if pair[0] != pair[0] else pair[0])


def _unusable(old: Mapping[str, Value], status: str) -> str:
    """Why nothing can be compared with the earlier weights; empty if it can."""
    norm = float(old["frobenius_norm"])
    if isfinite(norm * norm):  # distances are measured by squares
        return ""
    return "norm overflows" if status == "ok" else status


def _row(
    spec: LayerSpec,
    before: tuple[Mapping[str, Value], str],
    after: tuple[Mapping[str, Value], str],
    size: tuple[float, float],
    unusable: str,
) -> dict[str, Value]:
    (old, old_status), (new, status) = before, after
    row: dict[str, Value] = {"layer": spec.name, "matrices": sizes(spec.matrix_shapes), "status": status}
    row["changed"] = new["distance_from_init"] != 0.0  # NaN is a change
    row.update({name: new[name] for name in _DISTANCES})
    row["change_to_noise"], row["change_rank"] = size
    for name in (*_CHANGES, *_EVIDENCE):
        row |= {f"{name}_before": old[name], f"{name}_after": new[name]}
    row["unusable_before"] = unusable
    row["finding"] = "" if unusable else "; ".join(_findings(old, old_status, new, status))
    return row


def _findings(old: Mapping[str, Value], old_status: str, new: Mapping[str, Value], status: str) -> Iterator[str]:
    if status != "ok":
        if status != old_status:
            yield status
        return
    rank, earlier_rank = float(new["effective_rank"]), float(old["effective_rank"])
    if rank < RANK_LOST * earlier_rank:
        yield f"effective rank {short(earlier_rank)} → {short(rank)}"
    if float(new["scale_collapse"]) <= -TENFOLD:
        yield f"norm ×{short(10.0 ** float(new['scale_collapse']))}"
    growth = (float(new["log_spectral_norm"]) - float(old["log_spectral_norm"])) / 2.0
    if growth >= TENFOLD:
        yield f"largest singular value ×{short(10.0**growth)}"
