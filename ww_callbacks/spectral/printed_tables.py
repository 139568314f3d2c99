"""Printed tables of layers: α with its standard error, hints, and the order of rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ww_callbacks.spectral.number_text import with_error

if TYPE_CHECKING:
    import pandas as pd

SIGMA_DIGITS = 2
"""Significant digits of α's standard error."""

ORDERS = ("concern", "depth")
"""Orders of a table besides the names of columns."""

HINT = (
    "hint: α < 2 or α > 6 with sufficient evidence (WeightWatcher's over- and under-trained). α alone does not show "
    "whether a layer is over- or under-trained; healthy models have such layers too."
)
"""Explanation below a table with hints."""


def alpha_in_words(alpha: float, sigma: float, evidence: str) -> str:
    """α with its standard error, in brackets without sufficient evidence.

    >>> alpha_in_words(3.14159, 0.21, "sufficient"), alpha_in_words(7.0, 2.5, "small tail")
    ('3.14 ± 0.21', '(7.0 ± 2.5)')
    """
    if not math.isfinite(alpha):
        return "–"
    text = with_error(alpha, sigma, SIGMA_DIGITS)
    return text if evidence in ("", "sufficient") else f"({text})"


def hint(alpha: float, sigma: float, label: str) -> str:
    """The condition behind WeightWatcher's label; ``≈`` if α is within one standard error of the bound.

    >>> hint(1.6, 0.1, "over-trained"), hint(1.95, 0.1, "over-trained"), hint(3.0, 0.1, "")
    ('α < 2', 'α ≈ 2', '')
    """
    if not label:
        return ""
    bound, sign = (2, "<") if label == "over-trained" else (6, ">")
    return f"α {'≈' if abs(alpha - bound) < sigma else sign} {bound}"


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of ``table``, by column."""
    return [{str(column): value for column, value in row.items()} for row in table.to_dict("records")]


def with_alpha_in_words(table: pd.DataFrame, suffix: str = "") -> pd.DataFrame:
    """``table`` with ``alpha`` as text with its error, and without ``sigma``; unchanged if it has no α."""
    alpha, sigma, evidence = (f"{name}{suffix}" for name in ("alpha", "sigma", "alpha_evidence"))
    if alpha not in table:
        return table
    nothing = [""] * len(table)
    cells = zip(table[alpha], table.get(sigma, [math.nan] * len(table)), table.get(evidence, nothing), strict=True)
    return table.assign(**{alpha: [alpha_in_words(*cell) for cell in cells]}).drop(columns=sigma, errors="ignore")


def with_errors_in_words(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with the columns of errors merged into those of the values, as ``1.234 ± 0.005``."""
    from ww_callbacks.spectral.measuring.accuracy import ERROR

    names = estimated_columns(table)
    words = {name: [*map(with_error, table[name], table[f"{name}{ERROR}"])] for name in names}
    return table.assign(**words).drop(columns=[f"{name}{ERROR}" for name in names])


def estimated_columns(table: pd.DataFrame) -> list[str]:
    """The columns of ``table`` with a column of errors."""
    from ww_callbacks.spectral.measuring.accuracy import ERROR

    return [str(name) for name in table if f"{name}{ERROR}" in table]


def ordered(table: pd.DataFrame, by: str, concern: Sequence[tuple[Any, ...]], worst: Mapping[str, str]) -> list[int]:
    """The positions of the rows of ``table`` in the order ``by``; ties stay in depth order.

    Args:
        table: one row per layer, in depth order.
        by: ``concern``, ``depth`` or a column: worst values first, or largest first if it has no worst end.
        concern: the sort key of each row for ``concern``, smallest first.
        worst: column → ``low`` if small numbers are worst.

    Raises:
        ValueError: for any other order; the message lists the valid ones.
    """
    rows = range(len(table))
    if by == "depth":
        return list(rows)
    if by == "concern":
        return sorted(rows, key=lambda i: concern[i])
    if by not in table:
        raise ValueError(f"Expected the order to be one of {', '.join((*ORDERS, *table.columns))} but got {by!r}.")
    values = list(table[by])
    if not all(isinstance(value, float | int) for value in values):
        return sorted(rows, key=lambda i: str(values[i]))
    sign = 1.0 if worst.get(by) == "low" else -1.0
    return sorted(rows, key=lambda i: (math.isnan(values[i]), sign * values[i]))


def counted(count: int, noun: str, plural: str = "") -> str:
    """``3 layers``, ``1 layer``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first of ``names``.

    >>> some(["a", "b", "c", "d"])
    'a, b, c, …'
    """
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
