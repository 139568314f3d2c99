"""Numbers in words: how every view writes a value and its error."""

from __future__ import annotations

import math

MOST_DIGITS = 4
"""Significant digits of a printed value."""


def short(value: float) -> str:
    """``value`` with four significant digits, ``–`` if there is none.

    >>> short(131.23456), short(float("nan"))
    ('131.2', '–')
    """
    return "–" if math.isnan(value) else f"{value:.{MOST_DIGITS}g}"


def with_error(value: float, error: float, digits: int = 1) -> str:
    """``value ± error``, with the value rounded to the last digit of the error; :func:`short` if it is exact.

    Args:
        value: the value.
        error: its error; 0 or NaN for an exact value.
        digits: significant digits of the error. An error below the last of :data:`MOST_DIGITS` digits of the value is
            written as one unit of that digit, which is the error of the printed value.

    >>> with_error(12.3456, 0.1234), with_error(3.14159, 0.2149, digits=2), with_error(131.23456, 4e-9)
    ('12.3 ± 0.1', '3.14 ± 0.21', '131.2 ± 0.1')
    >>> with_error(12.3456, float("nan")), with_error(41234.5, 300.0)
    ('12.35', '41200 ± 300')
    """
    if not (math.isfinite(value) and math.isfinite(error) and error > 0.0):
        return short(value)
    error = float(f"{error:.{digits}g}")  # 0.96 becomes 1, which has another last digit
    exponent = max(_exponent(value), _exponent(error))
    last = max(_exponent(error) - digits + 1, exponent - MOST_DIGITS + 1)
    error = max(error, 10.0**last)
    if -5 <= exponent < 6:
        return f"{round(value, -last):.{max(-last, 0)}f} ± {error:.{max(-last, 0)}f}"
    return f"{value:.{exponent - last}e} ± {error:.{digits - 1}e}"


def _exponent(value: float) -> int:
    """The power of ten of the first digit."""
    return math.floor(math.log10(abs(value))) if value else -400
