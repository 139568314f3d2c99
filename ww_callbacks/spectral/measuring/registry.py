"""The registry of quantities.

A quantity is one function from a :class:`.LayerWeights` to a number (or a short text). A quantity declared with
:func:`quantity` appears in every framework, sink, table and view.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from ww_callbacks.spectral.estimates.estimate import Estimate
from ww_callbacks.spectral.measuring.layer_weights import LayerWeights, Value
from ww_callbacks.spectral.measuring.quantity_info import Cost, QuantityInfo, Worst

Needs = Literal["", "initial", "previous", "reference"]
Function = TypeVar("Function", bound=Callable[[LayerWeights], Value])


@dataclass(frozen=True, kw_only=True, eq=False)  # one object per name: compared and hashed as such
class Quantity(QuantityInfo):
    """A quantity of a layer's weights.

    Attributes:
        function: computes the value.
        needs: what it compares the current weights with: ``initial`` (W_0), ``previous`` (the weights of the last
            snapshot), ``reference`` (the quantities' values at W_0) or nothing.
        unchanged: for quantities that need ``previous``: the value if the weights did not change since.
        text: whether the value is a short text instead of a number.
        prefetch: an expensive, independent part of it, decorated with :func:`.shared.once`, that a second worker can
            run in parallel.
        estimate: estimates it from a Krylov space (``layer.space``), with an error; None if it needs the whole
            spectrum.
        change: bounds its change if the weights change by a distance in ‖·‖_F; None if no bound is known.
        logarithm: whether the value is a log10, so that a tolerance applies to its argument.
        slow: whether the estimate's error falls only about as the inverse of the steps, as that of a sum over the whole
            spectrum; others fall exponentially.
        of_spectra: its values on several layers at once, from their singular values: descending, one row per layer,
            finite and not all zero; None if it needs more.
    """

    function: Callable[[LayerWeights], Value]
    needs: Needs = ""
    unchanged: float = math.nan
    text: bool = False
    prefetch: Callable[[LayerWeights], object] | None = None
    estimate: Callable[[LayerWeights], Estimate] | None = None
    change: Callable[[LayerWeights, float], float] | None = None
    logarithm: bool = False
    slow: bool = False
    of_spectra: Callable[[np.ndarray], np.ndarray] | None = None


ELSEWHERE = {
    "raw": "distance_from_init",
    "euclidean": "mean_distance_from_init",
    "cka": "cka_to_init",
    "alpha_hat": "alpha_weighted",
}
"""Names of quantities in other tools and papers → our names."""

REFERRED = ("frobenius_norm", "log_spectral_norm")
"""The quantities whose values at W_0 are read by those with ``needs="reference"``."""

_QUANTITIES: dict[str, Quantity] = {}


def quantity(
    name: str,
    *,
    title: str,
    definition: str,
    family: str,
    cost: Cost = "spectrum",
    needs: Needs = "",
    unchanged: float = math.nan,
    default: bool = False,
    headline: bool = False,
    worst: Worst = "",
    text: bool = False,
    prefetch: Callable[[LayerWeights], object] | None = None,
    estimate: Callable[[LayerWeights], Estimate] | None = None,
    change: Callable[[LayerWeights, float], float] | None = None,
    logarithm: bool = False,
    slow: bool = False,
    of_spectra: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Callable[[Function], Function]:
    """Declare the decorated function as the quantity ``name``.

    Args:
        name: the key in every record, logger and table.
        title: a few words for axis labels.
        definition: the formula in one line, with its units (log10 or ln, λ or σ).
        family: the group of the quantity, such as ``norm`` or ``rank``.
        cost: ``cheap`` if it reads only the elements, ``spectrum`` if it needs the singular values, ``request`` if it
            needs more and is measured only if named.
        needs: what it compares the current weights with: ``initial``, ``previous``, ``reference`` or nothing.
        unchanged: for quantities that need ``previous``: the value if the weights did not change since.
        default: whether it is measured by default.
        headline: whether its model-level summary is streamed by default.
        worst: which values are critical: ``low``, ``high``, ``both`` or none.
        text: whether the value is a short text instead of a number.
        prefetch: see :class:`Quantity`.
        estimate: see :class:`Quantity`.
        change: see :class:`Quantity`.
        logarithm: see :class:`Quantity`.
        slow: see :class:`Quantity`.
        of_spectra: see :class:`Quantity`.

    Returns:
        A decorator, which returns the function unchanged.

    Raises:
        ValueError: if the name is that of a built-in quantity. You can declare your own again, for example by running a
            notebook cell twice: the last declaration is used.

    Examples:
        >>> import numpy as np
        >>> from ww_callbacks import spectral
        >>> @quantity("nuclear_norm", title="nuclear norm", definition="Σ σ_i", family="norm")
        ... def nuclear_norm(layer):
        ...     return float(layer.pooled_singular_values.sum())
        >>> spectral.analyze(np.diag([3.0, 1.0]), "nuclear_norm").layers["nuclear_norm"].tolist()
        [4.0]
        >>> _ = _QUANTITIES.pop("nuclear_norm")
    """

    def declare(function: Function) -> Function:
        earlier = {q.name: q for q in all_quantities()}.get(name) if is_own(function) else _QUANTITIES.get(name)
        if earlier is not None and not is_own(earlier.function):
            raise ValueError(f"`{name}` is already a built-in quantity: choose another name.")
        _QUANTITIES[name] = Quantity(
            name=name,
            title=title,
            definition=definition,
            family=family,
            cost=cost,
            function=function,
            needs=needs,
            unchanged=unchanged,
            default=default,
            headline=headline,
            worst=worst,
            text=text,
            prefetch=prefetch,
            estimate=estimate,
            change=change,
            logarithm=logarithm,
            slow=slow,
            of_spectra=of_spectra,
        )
        return function

    return declare


def is_own(function: Callable[..., object]) -> bool:
    """Whether ``function`` is defined outside this package."""
    return (getattr(function, "__module__", None) or "").partition(".")[0] != "ww_callbacks"


def all_quantities() -> tuple[Quantity, ...]:
    """Every declared quantity, in the order of declaration.

    Examples:
        >>> {q.name: q.title for q in all_quantities()}["stable_rank"]
        'stable rank'
    """
    import ww_callbacks.spectral.quantities  # noqa: F401  (importing it declares them)

    return tuple(_QUANTITIES.values())


def _unknown(name: str, known: Mapping[str, Quantity]) -> str:
    """The error message for an undeclared name."""
    if "," in name:
        return f"Unknown quantity `{name}`: give several as a list, one name each."
    other = ELSEWHERE.get(name.lower())
    near = (
        [other]
        if other
        else difflib.get_close_matches(name.lower(), [*known, "all", "default", "estimable"], n=3, cutoff=0.4)
    )
    if near:
        return f"Unknown quantity `{name}`. Did you mean {', '.join(f'`{n}`' for n in near)}? See docs/quantities.md."
    return (
        f"Unknown quantity `{name}`. Expected 'default', 'all', 'estimable' or some of: {', '.join(sorted(known))}. "
        "See docs/quantities.md."
    )


def resolve(names: str | Iterable[str] = "default") -> tuple[Quantity, ...]:
    """The quantities selected by ``names``, in the order of declaration.

    Args:
        names: ``"default"``, ``"all"`` (including the expensive ones), ``"estimable"`` (the default ones that do not
            need the whole spectrum, with Hill's α of the top instead of α), one name, or several of these.

    Raises:
        ValueError: for an undeclared name; the message suggests similar ones.
    """
    known = {q.name: q for q in all_quantities()}
    wanted: set[str] = set()
    for name in [names] if isinstance(names, str) else names:
        if name == "default":
            wanted.update(q.name for q in known.values() if q.default)
        elif name == "all":
            wanted.update(known)
        elif name == "estimable":
            default = (q for q in known.values() if q.default and (q.cost == "cheap" or q.estimate is not None))
            wanted.update(q.name for q in default)
            wanted.add("alpha_hill_top")
        elif name in known:
            wanted.add(name)
        else:
            raise ValueError(_unknown(str(name), known))
    return tuple(q for q in known.values() if q.name in wanted)
