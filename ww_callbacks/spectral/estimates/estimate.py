"""A number with a bound on its error."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite, log10, nan
from typing import NamedTuple


class Estimate(NamedTuple):
    """A value and a bound on its distance from the exact value.

    Attributes:
        value: the estimate.
        error: bound on |value − exact|, in units of the value; 0 for an exact value, infinite if no bound is known.
    """

    value: float
    error: float = 0.0

    def within(self, tolerance: float, logarithm: bool = False) -> bool:
        """Whether the error is at most ``tolerance`` times the value.

        Args:
            tolerance: the allowed relative error.
            logarithm: whether the value is a log10: the tolerance then applies to its argument.

        Examples:
            >>> Estimate(50.0, 0.4).within(0.01), Estimate(50.0, 0.6).within(0.01)
            (True, False)
            >>> Estimate(0.0, 0.004).within(0.01, logarithm=True)
            True

        An exact value, NaN included, is within every tolerance.
        """
        return self.error == 0.0 or self.error <= (log10(1.0 + tolerance) if logarithm else tolerance * abs(self.value))

    def through(self, function: Callable[[float], float]) -> Estimate:
        """The estimate of a monotonic function of the value.

        Args:
            function: a monotonic function that is finite over value ± error.

        Examples:
            >>> Estimate(2.0, 0.5).through(lambda x: x**2)
            Estimate(value=4.0, error=2.25)
        """
        if not (isfinite(self.value) and isfinite(self.error)):
            return UNKNOWN
        value = function(self.value)
        ends = [function(self.value + sign * self.error) for sign in (1.0, -1.0)]
        return Estimate(value, max(abs(end - value) for end in ends))


UNKNOWN = Estimate(nan, inf)
"""The estimate with unknown value and error."""


def midpoint(low: float, high: float) -> Estimate:
    """The middle of an interval, with half its width as the error; :data:`UNKNOWN` unless both ends are finite.

    >>> midpoint(1.0, 3.0)
    Estimate(value=2.0, error=1.0)
    """
    if not (isfinite(low) and isfinite(high)):
        return UNKNOWN
    return Estimate(0.5 * (low + high), 0.5 * abs(high - low))
