"""Selection of layers by name patterns, types and size."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from ww_callbacks.spectral.layers.spec import LayerSpec


def select(
    specs: Sequence[LayerSpec],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    types: Sequence[str] = (),
    min_eigenvalues: int = 1,
) -> list[LayerSpec]:
    """The layers to watch, in the order given.

    Args:
        specs: the layers of a model, the skipped ones among them.
        include: shell patterns of names (``encoder.*``, ``*.mlp.*``); none means all.
        exclude: shell patterns of names to leave out.
        types: class names of modules (``Linear``) or kinds of layers (``conv``); none means all.
        min_eigenvalues: least number of eigenvalues of a layer.

    Raises:
        ValueError: if nothing is left, saying which of the filters left nothing, with near matches.
    """
    eligible = [s for s in specs if not s.skipped]
    if not eligible:
        reasons = sorted({s.skipped for s in specs})
        because = f" Its parameters are left out ({'; '.join(reasons)})." if reasons else " It has no parameters."
        raise ValueError(f"The model has no layer whose weights form a matrix.{because}")
    for label, patterns in (("layers", include), ("exclude", exclude)):
        for pattern in patterns:
            if any(_matches(s, pattern) for s in eligible):
                continue
            what, known = f"The pattern {pattern!r} in `{label}`", [s.name for s in eligible]
            left_out = sorted({s.skipped for s in specs if s.skipped and _matches(s, pattern)})
            if left_out:
                raise ValueError(f"{what} matches only parameters that are left out ({'; '.join(left_out)}).")
            raise ValueError(_nothing(what, pattern, known))
    for wanted in types:
        if not any(_is_type(s, wanted) for s in eligible):
            known = sorted({s.type for s in eligible if s.type} | {s.kind for s in eligible})
            raise ValueError(_nothing(f"The type {wanted!r} in `types`", wanted, known))
    chosen = [
        s
        for s in eligible
        if (not include or any(_matches(s, p) for p in include))
        and not any(_matches(s, p) for p in exclude)
        and (not types or any(_is_type(s, t) for t in types))
    ]
    if not chosen:
        raise ValueError("The filters `layers`, `exclude` and `types` together leave no layer: loosen one of them.")
    large = [s for s in chosen if s.eigenvalues >= min_eigenvalues]
    if not large:
        most = max(chosen, key=lambda s: s.eigenvalues)
        raise ValueError(
            f"No layer has {min_eigenvalues} eigenvalues or more (`min_eigenvalues`): the largest, "
            f"`{most.name}`, has {most.eigenvalues}."
        )
    return large


def _matches(spec: LayerSpec, pattern: str) -> bool:
    # A name may hold brackets (`in_proj_weight[q]`), which a pattern takes for a set of characters.
    names = (spec.name, *spec.parameters)
    return pattern in names or any(fnmatchcase(name, pattern) for name in names)


def _is_type(spec: LayerSpec, wanted: str) -> bool:
    return wanted in (spec.type, spec.kind)


def _nothing(what: str, wanted: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(wanted.strip("*"), known, n=3, cutoff=0.3)
    hint = f" Near matches: {', '.join(repr(n) for n in near)}." if near else ""
    some = ", ".join(repr(k) for k in list(known)[:8])
    return f"{what} matches nothing.{hint} The model has {some}{', …' if len(known) > 8 else ''}."
