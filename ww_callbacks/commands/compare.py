"""``ww-callbacks compare A B``: what changed between two checkpoints, by how much, in which layers, what broke."""

from __future__ import annotations

import argparse
from typing import Any

from ww_callbacks.commands import EXIT_FINDING, EXIT_OK, _weights
from ww_callbacks.commands._progress import progress as progress_bar


def add_parser(subparsers: Any) -> None:
    """Declare the arguments."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "compare",
        help="what changed between two checkpoints, by how much, and in which layers",
        description=(
            "Compare two files of weights of one model, layer by layer: how far each changed, relative to its norm and "
            "to noise, and its spectrum before and after. Exit code 1 means that a layer broke: not finite, zero, "
            "effective rank below half, norm ten times larger or smaller. α never sets it."
        ),
    )
    parser.add_argument("before", metavar="A", help="the earlier weights")
    parser.add_argument("after", metavar="B", help="the later weights")
    parser.add_argument("--changed", action="store_true", help="print and write changed layers only")
    _weights.add_arguments(parser)
    _weights.add_order(parser, "findings first, then by the share of the norm that changed")


def run(args: argparse.Namespace) -> int:
    """Compare, print and write."""
    _weights.check_outputs(args.output)
    from ww_callbacks import spectral
    from ww_callbacks.spectral.comparison import COLUMNS

    _weights.check_order(args.sort, COLUMNS)
    with _weights.interruptible(args), progress_bar("comparing", args.quiet, args.command) as progress:
        result = spectral.compare(args.before, args.after, progress=progress, **_weights.selection(args))
    heading, shown = result.heading(), result.shown(args.sort, changed=args.changed)
    layers = result.layers[result.layers["changed"] | (not args.changed)]
    document = {
        "before": args.before,
        "after": args.after,
        "heading": heading,
        "notes": result.notes,
        "layers": layers.to_dict("records"),
        "findings": list(result.findings["layer"]),
        "unusable_before": list(result.unusable_before["layer"]),
        "only_before": result.only_before,
        "only_after": result.only_after,
        "not_reached": result.not_reached,
        "remarks": result.remarks,
    }
    title = f"{args.before} and {args.after}"
    _weights.write(args.output, title, heading, layers, document)
    if args.json:
        print(_weights.as_json(document).decode(), end="")
    elif shown.empty:
        print(heading, "No layer changed.", sep="\n\n")
    else:
        marks = {"finding": dict.fromkeys(result.findings["finding"], "yellow")}
        _weights.print_table(heading, shown, marks, result.notes)
    return EXIT_FINDING if len(result.findings) else EXIT_OK
