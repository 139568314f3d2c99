"""``ww-callbacks analyze MODEL``: the spectra of a file of weights, layer by layer."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ww_callbacks.commands import EXIT_FINDING, EXIT_OK, _weights
from ww_callbacks.commands._progress import progress as progress_bar

if TYPE_CHECKING:
    from ww_callbacks.spectral.layers.spec import LayerSpec

_MARKS = {
    "hint": dict.fromkeys(("α < 2", "α > 6"), "yellow"),
    "status": {"non-finite": "bold red", "zero": "bold red"},
}
_DESCRIBE = ("model", "describe", "convolution", "layers", "exclude", "types", "output", "json", "quiet", "command")
"""The arguments that ``--describe`` uses."""


def add_parser(subparsers: Any) -> None:
    """Declare the arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "analyze",
        help="the spectra of a file of weights, layer by layer",
        description=(
            "Measure the spectra of the weights in a safetensors, GGUF, ONNX or Keras file, a torch checkpoint "
            "(nothing in it is executed) or a folder of Hugging Face, PEFT, diffusers or a Trainer. FILE:KEY chooses "
            "one of several sets of weights. Exit code 1 means that a layer is not finite, all zero or could not be "
            "measured; an α below 2 or above 6 is only a hint and never sets it."
        ),
    )
    parser.add_argument("model", metavar="MODEL", help="the file or folder")
    parser.add_argument(
        "--quantities", nargs="+", default=["default"], metavar="NAME", help="names, 'default', 'all' or 'estimable'"
    )
    parser.add_argument("--baseline", metavar="FILE", help="W_0, for distances and scale collapse")
    parser.add_argument(
        "--accuracy",
        type=_accuracy,
        default="exact",
        metavar="ERROR",
        help="'exact', or the relative error allowed: 0.01 estimates large layers where the quantities allow it "
        "(--quantities estimable)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random nulls")
    parser.add_argument(
        "--describe", action="store_true", help="list what would be measured and why, without measuring"
    )
    _weights.add_arguments(parser)
    _weights.add_order(parser, "problems first, then hints, then depth")


def _accuracy(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # `analyze` says what is expected


def run(args: argparse.Namespace) -> int:
    """Measure, print and write."""
    _weights.check_outputs(args.output)
    return _describe(args) if args.describe else _analyze(args)


def _describe(args: argparse.Namespace) -> int:
    from ww_callbacks.spectral.layers import inspect
    from ww_callbacks.spectral.layers.parameter_table import table as describe

    given = [name for name, value in vars(args).items() if value != args.parser.get_default(name)]
    if useless := [f"--{name.replace('_', '-')}" for name in given if name not in _DESCRIBE]:
        raise ValueError(
            f"--describe measures nothing and has no use for {', '.join(useless)}: "
            "leave out either --describe or those."
        )
    table = describe(_filtered(inspect(args.model, args.convolution), args))
    layers = int(table["measured"].sum())
    others = len(table) - layers
    heading = (
        f"{layers} layer{'s' * (layers != 1)}, {others} parameter{'s that are' if others != 1 else ' that is'} none"
    )
    document = {"model": args.model, "parameters": table.to_dict("records")}
    _weights.write(args.output, f"Parameters of {args.model}", heading, table, document)
    _print(args, heading, table.drop(columns="parameters", errors="ignore"), document)
    return EXIT_OK


def _filtered(specs: list[LayerSpec], args: argparse.Namespace) -> list[LayerSpec]:
    """The parameters chosen by the filters, including those that are not measured."""
    from ww_callbacks.spectral.layers.selection import select

    if not (args.layers or args.exclude or args.types):
        return specs
    eligible = [replace(spec, skipped="") for spec in specs]
    chosen = {spec.name for spec in select(eligible, args.layers, args.exclude, args.types, min_eigenvalues=0)}
    return [spec for spec in specs if spec.name in chosen]


def _analyze(args: argparse.Namespace) -> int:
    from ww_callbacks import spectral
    from ww_callbacks.spectral.measuring.registry import resolve

    # α without its error and evidence would suggest false precision.
    quantities = [*args.quantities, *(("sigma", "alpha_evidence") if "alpha" in args.quantities else ())]
    columns = [q.name for q in resolve([*quantities, *(["warning"] if "default" in quantities else [])])]
    _weights.check_order(args.sort, ("layer", "matrices", "status", *columns))
    with _weights.interruptible(args), progress_bar("measuring", args.quiet, args.command) as progress:
        result = spectral.analyze(
            args.model,
            quantities,
            baseline=args.baseline,
            accuracy=args.accuracy,
            seed=args.seed,
            progress=progress,
            **_weights.selection(args),
        )
    document = {
        "model": args.model,
        "convolution": args.convolution,
        "heading": result.heading(),
        "layers": result.layers.to_dict("records"),
        "summary": result.summary,
        "skipped": {spec.name: spec.skipped for spec in result.specs if spec.skipped},
        "unmatched": result.unmatched,
        "not_reached": result.not_reached,
        "remarks": result.remarks,
    }
    _weights.write(args.output, f"Spectra of {args.model}", result.heading(), result.layers, document)
    more = f"; {result.not_shown} more columns with `-o` or `--json`" if result.not_shown else ""
    _print(args, result.heading() + more, result.shown(args.sort), document, result.notes)
    return EXIT_OK if (result.layers["status"] == "ok").all() else EXIT_FINDING


def _print(args: argparse.Namespace, heading: str, table: Any, document: dict[str, Any], notes: str = "") -> None:
    if args.json:
        print(_weights.as_json(document).decode(), end="")
    else:
        _weights.print_table(heading, table, _MARKS, notes)
