"""``ww-callbacks compress MODEL``: factorise a file's layers at the ranks that their spectra suggest."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ww_callbacks.commands import EXIT_FINDING, EXIT_OK, _weights
from ww_callbacks.commands._progress import progress as progress_bar

if TYPE_CHECKING:
    from ww_callbacks.spectral.compression import Factors
    from ww_callbacks.spectral.layers.spec import LayerSpec

RULES = ("effective", "energy", "tail", "break-even")


def add_parser(subparsers: Any) -> None:
    """Declare the arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compress",
        help="write a low-rank copy of a file of weights, with a table of size and error",
        description=(
            "Factorise each matrix W of a safetensors file, a torch checkpoint or a Hugging Face folder into U·V where "
            "that takes fewer values, and write the factors as NAME.u (rows × rank) and NAME.v (rank × columns) with "
            "the other parameters, unchanged. A rank is a guess from the spectrum alone: measure the accuracy before "
            "you use it. Exit code 1 means that no layer got smaller; then nothing is written."
        ),
    )
    parser.add_argument("model", metavar="MODEL", help="the file or folder; for an ONNX file, only the table")
    parser.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        help="the low-rank copy (default: NAME-lowrank.safetensors in the current folder, for FOLDER/NAME.pt)",
    )
    parser.add_argument("--table-only", action="store_true", help="write no low-rank copy")
    parser.add_argument("--rank", type=int, metavar="R", help="the same rank for every layer, instead of a rule")
    parser.add_argument("--rule", choices=RULES, help="where each layer's rank comes from (default: energy)")
    parser.add_argument(
        "--energy", type=float, metavar="SHARE", help="share of Σλ that the rule 'energy' keeps (default: 0.9)"
    )
    parser.add_argument("--randomised", action="store_true", help="by the range finder of Halko, Martinsson and Tropp")
    parser.add_argument("--seed", type=int, default=0, help="seed of the range finder")
    _weights.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Factorise, print and write."""
    import pandas as pd

    from ww_callbacks.spectral.layers import inspect
    from ww_callbacks.spectral.layers.selection import select

    _weights.check_outputs(args.output)
    target = _target(args)
    specs = inspect(args.model, args.convolution)
    _check_source(Path(args.model))
    chosen = select(specs, args.layers, args.exclude, args.types, args.min_eigenvalues)
    found = []
    with progress_bar("factorising", args.quiet, args.command) as progress:
        for done, spec in enumerate(chosen, 1):
            found.append(_factorise(spec, args))
            progress(done, len(chosen), spec.name)
    pairs = {spec.parameters[0]: f.factors for spec, f in zip(chosen, found, strict=True) if f.factors is not None}
    table = pd.DataFrame([f.row for f in found])
    saved = sum(int(np.prod(s.shape)) - pairs[s.parameters[0]].size for s in chosen if s.parameters[0] in pairs)
    heading = f"{len(pairs)} of {len(chosen)} layers factorised, {saved:,} values fewer"
    if target is not None and pairs:
        _write(args.model, pairs, target)
        heading += f"; written to {target}"
    document = {"model": args.model, "layers": table.to_dict("records"), "values_saved": saved}
    _weights.write(args.output, f"Low-rank factors of {args.model}", heading, table, document)
    if args.json:
        print(_weights.as_json(document).decode(), end="")
    else:
        _weights.print_table(heading, table, {})
    return EXIT_OK if pairs else EXIT_FINDING


def _target(args: argparse.Namespace) -> Path | None:
    if args.rank is not None and args.rank < 1:
        raise ValueError(f"expected --rank to be 1 or more but got {args.rank}.")
    if args.rank is not None and args.rule is not None:
        raise ValueError(f"--rank {args.rank} and --rule {args.rule} both set the rank: use only one of them.")
    if args.energy is not None and (args.rank is not None or args.rule not in (None, "energy")):
        other = f"--rule {args.rule}" if args.rank is None else f"--rank {args.rank}"
        raise ValueError(f"--energy belongs to the rule 'energy' and has no effect with {other}: use only one of them.")
    if args.energy is not None and not 0 < args.energy <= 1:
        raise ValueError(f"expected --energy in (0, 1] but got {args.energy}.")
    if args.table_only:
        return None
    if Path(args.model).suffix == ".onnx":
        raise ValueError("an ONNX file only supports the table: add --table-only.")
    target = args.to or Path(f"{Path(args.model).resolve().stem}-lowrank.safetensors")
    if target.suffix != ".safetensors":
        raise ValueError(f"cannot write {target}: expected a name ending in .safetensors.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: the folder {target.parent} does not exist.")
    if target.exists() and any(part.exists() and part.samefile(target) for part in _parts(Path(args.model))):
        raise ValueError(f"cannot write {target}: it contains the weights to compress. Choose another name with --to.")
    return target


def _parts(model: Path) -> list[Path]:
    """The files that contain the weights."""
    return sorted(model.glob("*.safetensors")) if model.is_dir() else [model]


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _check_source(model: Path) -> None:
    """Raise for a file that this command wrote, because it would factorise the factors."""
    from safetensors import safe_open

    for part in filter(_is_safetensors, _parts(model)):
        with safe_open(part, "np") as file:
            if (file.metadata() or {}).get("ww-callbacks") == "low rank":
                raise ValueError(f"{part} is already a low-rank copy: compress the original weights.")


@dataclass(frozen=True)
class _Factorised:
    """A row of the table, and the factors if they make the layer smaller."""

    row: dict[str, Any]
    factors: Factors | None = None


def _factorise(spec: LayerSpec, args: argparse.Namespace) -> _Factorised:
    from ww_callbacks.spectral.compression import suggest_ranks
    from ww_callbacks.spectral.fits.clauset import clauset_fit
    from ww_callbacks.spectral.linalg.spectrum import singular_values

    row: dict[str, Any] = {"layer": spec.name, "shape": "×".join(map(str, spec.shape))}
    matrices = spec.matrices()
    whole = len(matrices) == len(spec.parameters) == 1 and np.size(matrices[0]) == np.prod(spec.shape)
    if not whole:
        return _Factorised({**row, "what": "unchanged: not one matrix"})
    matrix = np.asarray(matrices[0], dtype=np.float64)
    if not np.isfinite(matrix).all() or not matrix.any():
        return _Factorised({**row, "what": "unchanged: zero or not finite"})
    sigma = singular_values(matrix)
    share = 0.9 if args.energy is None else args.energy
    ranks = suggest_ranks(sigma, (matrix.shape[0], matrix.shape[1]), clauset_fit(sigma**2).xmin, share)
    by_rule = dict(zip(RULES, (ranks.effective, ranks.energy, ranks.tail, ranks.break_even), strict=True))
    row |= {f"{rule}_rank": value for rule, value in by_rule.items()}
    rank = args.rank if args.rank is not None else by_rule[args.rule or "energy"]
    if not 1 <= rank <= ranks.break_even:
        return _Factorised({**row, "rank": rank, "what": "unchanged: no gain at this rank"})
    return _at_rank(row, matrix, sigma, rank, args)


def _at_rank(
    row: dict[str, Any], matrix: np.ndarray, sigma: np.ndarray, rank: int, args: argparse.Namespace
) -> _Factorised:
    from ww_callbacks.spectral.compression import expected_truncation_error, randomised_svd, truncated_svd
    from ww_callbacks.spectral.linalg.spectrum import gram_singular_values

    generator = np.random.default_rng(args.seed)
    factors = randomised_svd(matrix, rank, generator) if args.randomised else truncated_svd(matrix, rank)
    left = matrix - factors.matrix()
    row |= {
        "rank": rank,
        "size": factors.size / matrix.size,
        "relative_error": float(np.linalg.norm(left) / np.linalg.norm(matrix)),
        "spectral_error": float(gram_singular_values(left)[0] / sigma[0]),
    }
    if args.randomised:
        row["bound_of_its_mean"] = expected_truncation_error(sigma, rank) / float(sigma[0])
    return _Factorised({**row, "what": "factorised"}, factors)


def _write(model: str, pairs: dict[str, Factors], target: Path) -> None:
    """The other parameters as stored, and the factors in the type and layout of their matrix."""
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError as error:
        raise ImportError('writing a low-rank copy needs torch: pip install "ww-callbacks[lightning]".') from error
    tensors: dict[str, torch.Tensor] = {}
    shapes = {}
    for name, value in _stored(Path(model)).items():
        factors = pairs.get(name)
        if factors is None:
            tensors[name] = value.detach().clone().contiguous()
            continue
        shapes[f"{name}.shape"] = ",".join(map(str, value.shape))
        for suffix, factor in (("u", factors.u), ("v", factors.v)):
            tensors[f"{name}.{suffix}"] = torch.from_numpy(np.ascontiguousarray(factor)).to(value.dtype)
    # The shape restores a kernel with more than two axes from U·V.
    save_file(tensors, target, metadata={"format": "pt", "ww-callbacks": "low rank", **shapes})


def _stored(path: Path) -> dict[str, Any]:
    """Name → torch tensor, in its stored type."""
    import torch
    from safetensors.torch import load_file

    from ww_callbacks.spectral.layers.files.formats import entries
    from ww_callbacks.spectral.layers.files.state_dicts.checkpoint_tree import contents

    if path.is_dir():
        parts = _parts(path)
        if not parts:
            raise ValueError(f"expected safetensors files in {path}, but found none.")
        return {name: tensor for part in parts for name, tensor in load_file(part).items()}
    found = load_file(path) if _is_safetensors(path) else contents(entries(path)).weights
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
