"""edgequant: quantize models to 1 to 8 bits per weight for every edge runtime."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

VERBS = ("quantize", "inspect", "diff", "formats", "evaluate")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, 1 (diff found differences), 2 (an error), 130 (Ctrl-C)."""
    code = _main(sys.argv[1:] if argv is None else argv)
    if argv is None:  # as a program: taking down the interpreter would cost as much as a small model
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _main(argv: Sequence[str]) -> int:
    arguments = list(argv)
    try:
        args = parser(arguments).parse_args(arguments)
        code = args.run(args)
        sys.stdout.flush()
        return int(code or 0)
    except KeyboardInterrupt:
        print("edgequant: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone: nobody to tell
        _silence(sys.stdout)
        return 0
    except (ValueError, OSError) as e:  # edgequant.Error is a ValueError
        if not is_expected(e):
            raise
        print(f"edgequant: error: {e}", file=sys.stderr)
        return 2


def parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for these arguments. Only the module of the verb in them is imported; all of them for --help."""
    top = argparse.ArgumentParser(prog="edgequant", description=__doc__, formatter_class=formatter)
    top.add_argument("--version", action=_Version)
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    for verb in VERBS:
        if chosen in VERBS and verb != chosen:
            verbs.add_parser(verb, formatter_class=formatter)  # for the list of choices only
            continue
        module = import_module(f"edgequant.cli.{verb}")
        first, _, rest = (module.__doc__ or "").partition("\n")
        sub = verbs.add_parser(
            verb,
            help=first.rstrip("."),
            description=f"{first}\n{rest}",
            formatter_class=formatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return top


def formatter(prog: str) -> argparse.HelpFormatter:
    """Of help texts. argparse would import shutil for the terminal's width, for every parser, help or not."""
    try:
        width = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (ValueError, OSError):
        width = 80
    return argparse.RawDescriptionHelpFormatter(prog, width=max(width or 80, 40) - 2)


def is_expected(error: Exception) -> bool:
    """Whether the message is meant for the user; anything else is a bug and keeps its traceback."""
    from edgequant._core import Error

    return isinstance(error, Error | OSError)


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from edgequant._core import __version__, simd_target

        print(f"edgequant {__version__} ({simd_target()})")
        parser.exit()


def _silence(stream: object) -> None:
    """Keeps Python from complaining about the closed pipe when it flushes at exit."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
