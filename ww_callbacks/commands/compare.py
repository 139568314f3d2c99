"""``ww-callbacks compare A B``: what changed between two checkpoints, and which layers got worse."""

from __future__ import annotations

import argparse
from typing import Any

from ww_callbacks.commands import EXIT_FINDING, EXIT_OK, _weights


def add_parser(subparsers: Any) -> None:
    """Declare the arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compare",
        help="what changed between two checkpoints, and which layers got worse",
        description=(
            "Compare two files of weights of one model, layer by layer: distance, spectra before and after, and in "
            "what respect a layer got worse. Exit code 1 says that one did."
        ),
    )
    parser.add_argument("before", metavar="A", help="the earlier weights")
    parser.add_argument("after", metavar="B", help="the later weights")
    parser.add_argument("--changed", action="store_true", help="print and write changed layers only")
    _weights.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, print and write."""
    _weights.check_outputs(args.output)
    from ww_callbacks import spectral

    with _weights.progress("comparing", args.quiet) as progress:
        result = spectral.compare(args.before, args.after, progress=progress, **_weights.selection(args))
    changed = result.layers["changed"] | (not args.changed)
    layers, heading = result.layers[changed], result.heading()
    document = {
        "before": args.before,
        "after": args.after,
        "heading": heading,
        "layers": layers.to_dict("records"),
        "worse": list(result.worse["layer"]),
        "unusable_before": list(result.unusable_before["layer"]),
        "only_before": result.only_before,
        "only_after": result.only_after,
    }
    title = f"{args.before} and {args.after}"
    _weights.write(args.output, title, heading, layers, document)
    if args.json:
        print(_weights.as_json(document).decode(), end="")
    elif layers.empty:
        print(heading, "No layer changed.", sep="\n\n")
    else:
        marks = {"worse": dict.fromkeys(result.worse["worse"], "yellow")}
        _weights.print_table(heading, result.shown()[changed], marks)
    return EXIT_FINDING if len(result.worse) else EXIT_OK
