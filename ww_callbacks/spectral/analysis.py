"""``ww_callbacks.spectral.analyze``: every quantity of every layer of a model or a file, once."""

from __future__ import annotations

import html
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from os import PathLike
from typing import TYPE_CHECKING, Any

from ww_callbacks.spectral.number_text import short
from ww_callbacks.spectral.printed_tables import (
    HINT,
    counted,
    estimated_columns,
    hint,
    ordered,
    rows_of,
    some,
    with_alpha_in_words,
    with_errors_in_words,
)

if TYPE_CHECKING:
    import pandas as pd

    from ww_callbacks.spectral.layers.matching import Arrays
    from ww_callbacks.spectral.layers.spec import Array, LayerSpec
    from ww_callbacks.spectral.measuring.registry import Quantity, Value
    from ww_callbacks.spectral.measuring.rows import Progress

logger = logging.getLogger("ww_callbacks")

MOST_SHOWN = 8
"""With more quantities than these, a printed table shows the headlines only; ``layers`` always has all."""


@dataclass(frozen=True, repr=False)
class Analysis:
    """The result of :func:`analyze`.

    Attributes:
        layers: one row per layer, in depth order: ``layer``, ``kind``, ``type``, ``matrices``, ``status`` (``ok``, or
            why values are missing), then the quantities, NaN if a value could not be computed. For estimated
            quantities, ``<quantity>_error`` is the error of each value, NaN if the value is exact. For dequantised
            weights, ``stored_as`` is the stored format.
        summary: model-level statistics ``<quantity>/<statistic>``, over finite values only; for α only over layers with
            sufficient evidence (see :func:`ww_callbacks.spectral.aggregate.summary.summarise`). Over estimates also
            ``<quantity>/estimated``, their number, and ``<quantity>/<statistic>_error``.
        specs: how every parameter was handled, without its values, so that a result keeps no model alive.
        unmatched: the layers that are missing in the baseline.
        remarks: notes on how the layers were found, such as which of several files was read.
        not_reached: the layers that were not measured because of ``max_time``.
    """

    layers: pd.DataFrame
    summary: dict[str, float]
    specs: list[LayerSpec] = field(repr=False)
    unmatched: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    not_reached: tuple[str, ...] = ()

    def describe(self) -> pd.DataFrame:
        """How every parameter was handled, and why (see :func:`ww_callbacks.spectral.describe`)."""
        from ww_callbacks.spectral.layers.parameter_table import table

        return table(self.specs)

    def heading(self) -> str:
        """One line: what was measured, how many layers have an α, and what to look at."""
        from ww_callbacks.spectral.measuring.accuracy import ERROR
        from ww_callbacks.spectral.measuring.values import PARTLY, is_measured

        single = all(len(spec.matrix_shapes) == 1 for spec in self.specs if not spec.skipped)
        parts = [counted(len(self.layers), "matrix", "matrices") if single else counted(len(self.layers), "layer")]
        if "alpha_evidence" in self.layers:
            enough = int((self.layers["alpha_evidence"] == "sufficient").sum())
            parts.append(f"{enough or 'none'} with enough evidence for α")
            if enough and "alpha/median" in self.summary:
                parts.append(f"median α {self.summary['alpha/median']:.2g}")
        if failed := sum(not is_measured(status) for status in self.layers["status"]):
            parts.append(f"{failed} of them not ok")
        if partly := sum(status.startswith(PARTLY) for status in self.layers["status"]):
            parts.append(f"{partly} without some of your own quantities (see `status`)")
        if skipped := sum(bool(spec.skipped) for spec in self.specs):
            parts.append(f"{counted(skipped, 'parameter')} not measured (`describe()` or --describe says why)")
        parts += self._quantised()
        if self.unmatched:
            parts.append(f"{counted(len(self.unmatched), 'layer')} not in the baseline ({some(self.unmatched)})")
        errors = [name + ERROR for name in estimated_columns(self.layers)]
        if estimated := int(self.layers[errors].notna().any(axis=1).sum()):
            parts.append(f"{estimated} estimated (± in the table)")
        if self.not_reached:
            parts.append(f"{counted(len(self.not_reached), 'layer')} not measured within `max_time`")
        parts += self.remarks
        look = [f"{name} ({why})" for name, why in self._concerns()]
        return ", ".join(parts) + (f"; look at {some(look)}" if look else "")

    def _quantised(self) -> list[str]:
        """How many layers were dequantised, and how much of the model is measured where some cannot be."""
        parts = []
        if "stored_as" in self.layers:
            parts.append(f"{int((self.layers['stored_as'] != '').sum())} dequantised")
        if lost := [spec.unread for spec in self.specs if spec.unread]:
            read = sum(n * m for spec in self.specs for n, m in spec.matrix_shapes)
            share = f"{100 * read / (read + sum(lost)):.2g} % of the weights are measured"
            parts.append(f"{share}, {counted(len(lost), 'quantised array')} cannot be read")
        return parts

    def _concerns(self) -> list[tuple[str, str]]:
        """The critical layers with the reason, the worst first."""
        from ww_callbacks.spectral.measuring.values import is_measured

        rows = rows_of(self.layers)
        found = [(rows[i], _concern(rows[i])) for i in ordered(self.layers, "concern", [*map(_concern, rows)], {})]
        return [
            (row["layer"], f"hint: {_hint(row)}" if is_measured(row["status"]) else row["status"].partition(":")[0])
            for row, concern in found
            if concern < _NONE
        ]

    @property
    def notes(self) -> str:
        """Notes for reading the table, such as what a hint means."""
        return HINT if any(_hint(row) for row in rows_of(self.layers)) else ""

    @property
    def not_shown(self) -> int:
        """Number of quantities that :meth:`shown` leaves out."""
        present = [q.name for q in self._quantities() if q.name not in ("sigma", "warning")]
        return sum(name not in self.shown() for name in present)

    def _quantities(self) -> list[Quantity]:
        from ww_callbacks.spectral.measuring.registry import all_quantities

        return [q for q in all_quantities() if q.name in self.layers]

    def shown(self, order: str = "concern") -> pd.DataFrame:
        """The printed table: α with its ± (in brackets without evidence), hints, and the main quantities.

        Args:
            order: ``concern`` (default): layers that are not ok first, then layers with a hint, then in depth order;
                ``depth``; or the name of a quantity, its worst values first.

        Raises:
            ValueError: for any other order.
        """
        present = self._quantities()
        worst = {q.name: q.worst for q in present}
        if len(present) > MOST_SHOWN:
            present = [q for q in present if q.headline or q.text]
        rows = rows_of(self.layers)
        places = ordered(self.layers, order, [_concern(row) for row in rows], worst)
        table = self.layers
        names = [q.name for q in present if q.name != "warning"]
        if "warning" in table:
            table = table.assign(hint=[_hint(row) for row in rows])
            names.append("hint")
        if "sigma" in table and "alpha" in names:
            names = [name for name in names if name != "sigma"]
        marks = ["stored_as"] if "stored_as" in table else []
        columns = ["layer", "matrices", *marks, "status", *names]
        return with_errors_in_words(with_alpha_in_words(table)).iloc[places][columns]

    def statistics(self) -> pd.DataFrame:
        """:attr:`summary` as a table, quantities × statistics."""
        import pandas as pd

        cells: dict[str, dict[str, float]] = {}
        for name, value in self.summary.items():
            quantity, _, statistic = name.partition("/")
            cells.setdefault(quantity, {})[statistic] = value
        return pd.DataFrame.from_dict(cells, orient="index")

    def _statistics_in_words(self) -> pd.DataFrame:
        return with_errors_in_words(self.statistics())

    def __repr__(self) -> str:
        """The table and the summary as text."""
        table = self.shown().to_string(index=False, na_rep="–", float_format=short)
        summary = self._statistics_in_words().to_string(na_rep="–", float_format=short) if self.summary else ""
        return "\n\n".join(filter(None, (self.heading(), table, self.notes, self._more(), summary)))

    def _repr_html_(self) -> str:
        table = self.shown().to_html(index=False, border=0, na_rep="–", float_format=short)
        summary = self._statistics_in_words().to_html(border=0, na_rep="–", float_format=short)
        details = f"<details><summary>over all layers</summary>{summary}</details>" if self.summary else ""
        more = "".join(f"<p>{html.escape(text)}</p>" for text in (self.notes, self._more()) if text)
        return f"<p>{html.escape(self.heading())}</p>{table}{more}{details}"

    def _more(self) -> str:
        return f"{counted(self.not_shown, 'quantity', 'quantities')} more in `layers`" if self.not_shown else ""


_NONE = (3, 0.0)
"""The order of a row that is of no concern."""


def _hint(row: Mapping[str, Any]) -> str:
    if "alpha" not in row or "warning" not in row:
        return ""
    return hint(row["alpha"], row.get("sigma", float("nan")), row["warning"])


def _concern(row: Mapping[str, Any]) -> tuple[int, float]:
    """What a row is ordered by: not ok, then hinted at, the α farthest beyond its bound in standard errors first."""
    from ww_callbacks.spectral.measuring.values import is_measured

    if not is_measured(row["status"]):
        return 0, 0.0
    hint_text = _hint(row)
    if not hint_text:
        return _NONE
    away = max(2.0 - row["alpha"], row["alpha"] - 6.0) / max(row.get("sigma", 1.0), 1e-12)
    return (2 if "≈" in hint_text else 1), -away


def analyze(
    model: Any,
    quantities: str | Sequence[str] = "default",
    *,
    convolution: str = "matrix",
    baseline: Any = None,
    layers: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    types: str | Sequence[str] = (),
    min_eigenvalues: int = 1,
    accuracy: float | str = "exact",
    workers: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    max_time: float | None = None,
    resume: str | os.PathLike[str] | None = None,
) -> Analysis:
    """Measure the spectra of the weights of ``model``, with one row per layer.

    Args:
        model: a torch module, a Keras model, a state dict or other mapping of names to arrays, one 2-D array, or the
            path of a safetensors file, a torch checkpoint (nothing in it is executed), an ONNX or Keras file or a
            folder of Hugging Face, PEFT, diffusers or a Trainer; ``file.pt:teacher`` selects one of several sets of
            weights.
        quantities: ``"default"``, ``"all"``, ``"estimable"`` or names; the default adds ``warning``, WeightWatcher's
            over- and under-trained label, if the evidence is sufficient. Distances from earlier weights need
            ``baseline``; quantities that compare with the last snapshot of a run are left out.
        convolution: how a convolution becomes matrices: ``matrix`` (out, in·kernel), ``slices`` (pooled), ``separate``
            or ``weightwatcher``; see :data:`ww_callbacks.spectral.layers.matrix_layouts.Convention`.
        baseline: W_0, in any form that ``model`` can have; layers are matched by name and shape. The folder of an
            adapter is measured as the sum of this base and its updates.
        layers: shell patterns of the layers to measure (``encoder.*``); all by default.
        exclude: shell patterns of the layers to leave out.
        types: class names of modules (``Linear``) or kinds of layers (``conv``) to measure.
        min_eigenvalues: leave out layers with fewer eigenvalues.
        accuracy: ``"exact"``, or the allowed relative error, from 0.0001 to 0.1. A layer with a smaller side of at
            least 512 is then estimated if every requested quantity can be (``"estimable"`` selects those); α always
            needs the whole spectrum. The errors are in the columns ``<quantity>_error``.
        workers: number of layers measured in parallel, one thread each; None for all cores that the process may use.
        seed: seed of the random null models; the global random state does not change.
        progress: called after each layer with (layers done, layers, name), from one thread at a time.
        max_time: seconds after which no new layer is started; the cheapest layers are measured first, and
            ``not_reached`` lists the missing ones.
        resume: a file in which each measured row is saved. Rows already in it, of the same files and settings, are not
            measured again, so that you can continue an interrupted analysis.

    Returns:
        The table, its summary, and how every parameter was handled. Weights that are NaN, zero or not decomposable have
        a row with this ``status``.

    Raises:
        TypeError: if ``model`` is none of these, or names are not strings.
        ValueError: if there is no layer to measure, a filter or a quantity matches nothing, an argument is out of
            range, or a file cannot be read.
        FileNotFoundError: if there is no such file.
        ImportError: if a package for reading the file is not installed.

    >>> import numpy as np
    >>> result = analyze(np.diag([4.0, 2.0, 1.0]), "stable_rank")
    >>> result.layers[["layer", "matrices", "status", "stable_rank"]]
        layer matrices status  stable_rank
    0  matrix      3×3     ok       1.3125
    """
    from ww_callbacks.spectral.layers import inspect
    from ww_callbacks.spectral.linalg.workers import WorkerPool
    from ww_callbacks.spectral.measuring.accuracy import ERROR, can_be_estimated, check_accuracy, without_effect
    from ww_callbacks.spectral.measuring.prefetch import Prefetch
    from ww_callbacks.spectral.measuring.rows import RowFile, check_max_time, collect, files_of

    check_max_time(max_time)
    for name, number, least in (("min_eigenvalues", min_eigenvalues, 1), ("seed", seed, 0)):
        if isinstance(number, bool) or not isinstance(number, Integral) or number < least:
            raise ValueError(f"Expected `{name}` to be a whole number from {least} but got {number!r}.")
    tolerance = check_accuracy(accuracy)
    wanted = _wanted(quantities, with_baseline=baseline is not None)
    pool = WorkerPool(workers)
    specs = inspect(model, convolution, base=baseline)
    chosen = chosen_of(model, specs, layers, exclude, types, min_eigenvalues)
    if exact := without_effect(wanted, tolerance, (spec.matrix_shapes for spec in chosen)):
        logger.warning(
            "ww-callbacks: accuracy=%s has no effect with %s among the quantities, measured from the exact spectrum. "
            "Use quantities='estimable'.",
            accuracy,
            exact,
        )
    initial = None if baseline is None else _baseline(specs, chosen, baseline, convolution)

    kept = None
    if resume is not None:
        sources = {"model": files_of(model, "model")}
        sources |= {} if baseline is None else {"baseline": files_of(baseline, "baseline")}
        names = [q.name for q in wanted]
        settings = {"quantities": names, "convolution": convolution, "accuracy": accuracy, "seed": seed}
        kept = RowFile(resume, {**sources, **settings})
    # With many layers all workers are busy anyway, and a layer that is read once is measured when it is read.
    few = len(chosen) < 8 * pool.workers and max_time is None and kept is None
    ahead = Prefetch(wanted if pool.workers > 1 and few else (), seed)

    def row(spec: LayerSpec) -> dict[str, Value]:
        before = None if initial is None or spec.name not in initial else partial(initial.__getitem__, spec.name)
        values, status = measure_layer(
            spec, wanted, initial=before, seed=seed, promised=ahead.promised(spec), tolerance=tolerance
        )
        return {**_identity(spec), "status": status, **values}

    perform = partial(ahead.map, pool) if max_time is None else pool.map
    rows, not_reached = collect(perform, row, chosen, progress=progress, max_time=max_time, kept=kept)
    unmatched = () if initial is None else tuple(spec.name for spec in chosen if spec.name not in initial)
    remarks = dict.fromkeys((*specs.remarks, *(() if initial is None else initial.remarks)))
    large = any(can_be_estimated(spec.matrix_shapes) for spec in chosen)
    if tolerance is not None and large and not exact and not any(name.endswith(ERROR) for row in rows for name in row):
        most = "; the most expensive is effective_rank" if any(q.slow for q in wanted) else ""
        remarks[f"none estimated: within {accuracy} that costs more than half of the exact values{most}"] = None
    return replace(_analysis(rows, wanted, specs, unmatched), remarks=tuple(remarks), not_reached=not_reached)


def chosen_of(
    model: Any,
    specs: Sequence[LayerSpec],
    layers: str | Sequence[str],
    exclude: str | Sequence[str],
    types: str | Sequence[str],
    min_eigenvalues: int,
) -> list[LayerSpec]:
    """The layers to measure; see :func:`ww_callbacks.spectral.layers.selection.select`.

    Raises:
        TypeError: if the patterns are no texts.
        ValueError: if none is left, naming the file if ``model`` is one.
    """
    from ww_callbacks.spectral.layers.selection import select

    wanted = (names_of(layers, "layers"), names_of(exclude, "exclude"), names_of(types, "types"))
    try:
        return select(specs, *wanted, min_eigenvalues)
    except ValueError as error:
        raise (ValueError(f"{model}: {error}") if isinstance(model, str | PathLike) else error) from None


@contextmanager
def naming(source: Any) -> Iterator[None]:
    """Name the file ``source`` in what the block refuses."""
    try:
        yield
    except ValueError as error:
        if not isinstance(source, str | os.PathLike):
            raise
        raise ValueError(f"{source}: {error}") from None


def names_of(names: str | Iterable[str], argument: str) -> Sequence[str]:
    """One name or pattern or several as several.

    Raises:
        TypeError: if they are none, naming the ``argument`` they were given as.
    """
    several = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    if not all(isinstance(name, str) for name in several):
        raise TypeError(f"Expected `{argument}` as a text or several but got {names!r}.")
    return several


def _wanted(quantities: str | Sequence[str], with_baseline: bool) -> list[Quantity]:
    from ww_callbacks.spectral.measuring.registry import resolve

    names = names_of(quantities, "quantities")
    if "default" in names:
        names = (*names, "warning")
    usable = [q for q in resolve(names) if q.needs == "" or (with_baseline and q.needs != "previous")]
    if not names:
        raise ValueError("Expected at least one quantity but got none: leave `quantities` out for the default ones.")
    if not usable:
        given = ", ".join(map(repr, names))
        if all(q.needs == "previous" for q in resolve(names)):
            raise ValueError(
                f"{given}: measured from one snapshot of a training to the next, which an analysis has not."
            )
        raise ValueError(f"{given}: measured against earlier weights; name a `baseline`.")
    return usable


def _baseline(specs: Sequence[LayerSpec], chosen: Sequence[LayerSpec], baseline: Any, convolution: str) -> Arrays:
    from ww_callbacks.spectral.layers.matching import arrays_from

    found = arrays_from(specs, baseline, convolution)
    if not any(spec.name in found for spec in chosen):
        raise ValueError(
            "The baseline holds none of the layers to measure: names and shapes must be those of the model "
            f"({', '.join(spec.name for spec in chosen[:3])}{', …' if len(chosen) > 3 else ''})."
        )
    return found


def _identity(spec: LayerSpec) -> dict[str, Value]:
    from ww_callbacks.spectral.layers.parameter_table import sizes

    identity: dict[str, Value] = {"layer": spec.name, "kind": spec.kind, "type": spec.type}
    return {**identity, "matrices": sizes(spec.matrix_shapes), "stored_as": spec.stored_as}


def measure_layer(
    spec: LayerSpec,
    wanted: Sequence[Quantity],
    *,
    arrays: Callable[[], Sequence[Array]] | None = None,
    initial: Callable[[], Sequence[Array]] | None = None,
    seed: int = 0,
    promised: Mapping[Any, object] | None = None,
    tolerance: float | None = None,
) -> tuple[dict[str, Value], str]:
    """The values of ``wanted`` on one layer, with errors where they are estimates, and its status.

    If a layer cannot be read, its status says why.

    Args:
        spec: the layer.
        wanted: the quantities.
        arrays: reads the arrays to measure in place of those that the layer holds now.
        initial: reads those of W_0.
        seed: seed of the random nulls.
        promised: results that another worker computes in parallel (see ``measuring.prefetch``).
        tolerance: the relative error that is allowed; None for none.
    """
    from ww_callbacks.spectral.measuring.accuracy import ERROR, measure_within
    from ww_callbacks.spectral.measuring.layer_weights import LayerWeights

    try:
        assert spec.arrange is not None, f"`{spec.name}` is not measured: {spec.skipped}"
        matrices = spec.matrices() if arrays is None else spec.arrange(arrays())
        before = None if initial is None else spec.arrange(initial())
    except Exception as error:  # one layer that cannot be read must not lose the others
        missing: dict[str, Value] = {q.name: "" if q.text else float("nan") for q in wanted}
        return missing, f"failed: {type(error).__name__}: {error}"
    sample = LayerWeights(matrices, initial=before, seed=spec.null_seed(seed), scratch=dict(promised or {}))
    values, status, errors = measure_within(sample, wanted, tolerance)
    return values | {name + ERROR: error for name, error in errors.items()}, status


def _analysis(
    rows: Sequence[dict[str, Value]], wanted: Sequence[Quantity], specs: list[LayerSpec], unmatched: tuple[str, ...]
) -> Analysis:
    import pandas as pd

    from ww_callbacks.spectral.aggregate.summary import summarise
    from ww_callbacks.spectral.measuring.accuracy import ERROR

    marks = ["stored_as"] if any(row["stored_as"] for row in rows) else []
    estimated = [q.name + ERROR for q in wanted if any(q.name + ERROR in row for row in rows)]
    columns = ["layer", "kind", "type", "matrices", *marks, "status", *(q.name for q in wanted), *estimated]
    names = {q.name for q in wanted}
    errors = [{q.name: float(row[q.name + ERROR]) for q in wanted if q.name + ERROR in row} for row in rows]
    summary = summarise([{k: v for k, v in row.items() if k in names} for row in rows], errors if estimated else None)
    described = [replace(spec, read=None, arrange=None, is_frozen=None) for spec in specs]
    table = pd.DataFrame({column: [row.get(column, float("nan")) for row in rows] for column in columns})
    return Analysis(table, summary, described, unmatched)
