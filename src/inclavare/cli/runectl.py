"""The command `runectl`: measures, signs and inspects SGX enclaves on any machine, and gets tokens and quotes for them.

One module a command, `runectl_NAME`, with `add_parser` and `run`. Errors are one line on stderr, then a hint: exit code
1, or 2 when the command line cannot be understood. `verify-quote` has further exit codes for its verdicts.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import NoReturn

from inclavare import __version__
from inclavare.errors import InclavareError, UsageError

# Each is `add_parser` and `run` of a module runectl_NAME.
COMMANDS = (
    "measure",
    "sign",
    "inspect",
    "keygen",
    "gen-token",
    "gen-qe-target-info",
    "gen-quote",
    "verify-quote",
    "verify-ias-report",
    "doctor",
    "aesmd",
    "platform",
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print, so that all errors look alike."""
        raise UsageError(message, f"{self.prog} --help")


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name; None: that of the process); return the exit code."""
    try:
        words = sys.argv[1:] if argv is None else argv
        # Loading all commands takes longer than most of them: a command line that names one gets only that.
        named = next((word for word in words if word != "--verbose"), "")
        arguments = parser((named,) if named in COMMANDS else COMMANDS).parse_args(words)
        run = arguments.run
        code: int = run(arguments)
    except SystemExit as exit_:  # --help and --version have printed
        code = exit_.code if isinstance(exit_.code, int) else 0
    except InclavareError as error:
        print(f"runectl: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        code = 2 if isinstance(error, UsageError) else 1
    return code


def parser(names: tuple[str, ...] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of runectl with the commands `names`."""
    whole = _Parser(prog="runectl", description="Measure, sign, inspect and attest SGX enclaves.", allow_abbrev=False)
    whole.add_argument("--version", action="version", version=f"runectl version {__version__}")
    whole.add_argument("--verbose", action="store_true", help="of gen-*: print the fields of what is read and got")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in names:
        import_module(f"inclavare.cli.runectl_{name.replace('-', '_')}").add_parser(commands)
    return whole


if __name__ == "__main__":
    sys.exit(main())
