"""The command ``ww-callbacks``.

Each module of this folder without a leading underscore is the subcommand of that name. It exposes
``add_parser(subparsers)``, which declares its arguments, and ``run(args) -> int``, which does the work and returns the
exit code. The modules are also imported for ``--help``, so ``run`` imports heavy packages.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from typing import Final

from ww_callbacks import __version__

EXIT_OK: Final = 0  #: done, without findings
EXIT_FINDING: Final = 1  #: done, with findings: a bad verdict, or layers that broke
EXIT_ERROR: Final = 2  #: not done: a wrong argument, a missing file or package (argparse uses 2 as well)
EXIT_INTERRUPTED: Final = 130  #: ended with Ctrl-C (128 + SIGINT, as shells have it)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; ``argv`` defaults to ``sys.argv[1:]``.

    Errors that the user can fix (a path, an argument, a missing package) are printed in one line on standard error. Any
    other exception is a bug and keeps its traceback.
    """
    args, unknown = _parser().parse_known_args(argv)
    if unknown:  # reported by the subcommand, which prints its own usage
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return int(args.execute(args))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has closed the pipe; without this, Python prints another error when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except (OSError, ValueError, ImportError) as error:
        from ww_callbacks.spectral.layers.names import printable

        print(f"ww-callbacks {args.command}: {printable(_in_words(error))}", file=sys.stderr)
        return EXIT_ERROR


def _in_words(error: Exception) -> str:
    """``error`` in words: system errors without their number.

    >>> _in_words(PermissionError(13, "Permission denied", "runs/a"))
    'runs/a: permission denied'
    """
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ww-callbacks",
        description="Inspect the spectra of a model's weights: of a file, or of a run during training.",
        epilog=f"Exit codes: {EXIT_OK} done; {EXIT_FINDING} done, with findings; {EXIT_ERROR} not done.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for found in pkgutil.iter_modules(__path__):
        if not found.name.startswith("_"):
            module = importlib.import_module(f"{__name__}.{found.name}")
            module.add_parser(subparsers)
            subparser = subparsers.choices[found.name]
            subparser.set_defaults(execute=module.run, parser=subparser)
    return parser
