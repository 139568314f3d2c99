"""``ww-callbacks analyze MODEL``: the spectra of a file of weights, layer by layer."""

from __future__ import annotations

import argparse
from typing import Any

from ww_callbacks.commands import EXIT_FINDING, EXIT_OK, _weights

_MARKS = {
    "warning": {"over-trained": "yellow", "under-trained": "yellow"},
    "status": {"non-finite": "bold red", "zero": "bold red"},
}


def add_parser(subparsers: Any) -> None:
    """Declare the arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "analyze",
        help="the spectra of a file of weights, layer by layer",
        description=(
            "Measure the spectra of the weights in a safetensors file, a torch checkpoint (loaded weights-only), an "
            "ONNX file or a Hugging Face folder. Exit code 1 says that a layer is not finite, all zero or could not "
            "be measured; the labels over-trained and under-trained only inform."
        ),
    )
    parser.add_argument("model", metavar="MODEL", help="the file or folder")
    parser.add_argument(
        "--quantities", nargs="+", default=["default"], metavar="NAME", help="names, 'default' or 'all'"
    )
    parser.add_argument("--baseline", metavar="FILE", help="W_0, for distances and scale collapse")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random nulls")
    parser.add_argument("--describe", action="store_true", help="only say what is done with every parameter, and why")
    _weights.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print and write."""
    _weights.check_outputs(args.output)
    return _describe(args) if args.describe else _analyze(args)


def _describe(args: argparse.Namespace) -> int:
    import spectral

    table = spectral.describe(args.model, args.conv)
    heading = f"{int(table['measured'].sum())} layers, {int((~table['measured']).sum())} parameters that are none"
    document = {"model": args.model, "parameters": table.to_dict("records")}
    _weights.write(args.output, f"Parameters of {args.model}", heading, table, document)
    _print(args, heading, table.drop(columns="parameters"), document)
    return EXIT_OK


def _analyze(args: argparse.Namespace) -> int:
    import spectral

    with _weights.progress("measuring", args.quiet) as progress:
        result = spectral.analyze(
            args.model,
            args.quantities,
            baseline=args.baseline,
            seed=args.seed,
            progress=progress,
            **_weights.selection(args),
        )
    document = {
        "model": args.model,
        "conv": args.conv,
        "layers": result.layers.to_dict("records"),
        "summary": result.summary,
        "skipped": {spec.name: spec.skipped for spec in result.specs if spec.skipped},
        "unmatched": result.unmatched,
    }
    _weights.write(args.output, f"Spectra of {args.model}", result.heading(), result.layers, document)
    more = f"; {result.not_shown} more columns with `-o` or `--json`" if result.not_shown else ""
    _print(args, result.heading() + more, result.shown(), document)
    return EXIT_OK if (result.layers["status"] == "ok").all() else EXIT_FINDING


def _print(args: argparse.Namespace, heading: str, table: Any, document: dict[str, Any]) -> None:
    if args.json:
        print(_weights.as_json(document).decode(), end="")
    else:
        _weights.print_table(heading, table, _MARKS)
