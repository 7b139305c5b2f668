"""The command `runectl`: measures, signs and inspects SGX enclaves on any machine, and gets tokens and quotes for them.

One module a command, `runectl_NAME`, with `add_parser` and `run`. Errors are one line on stderr, then a hint: exit code
1, or 2 when the command line cannot be understood.
"""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from inclavare import __version__
from inclavare.cli import (
    runectl_doctor,
    runectl_gen_qe_target_info,
    runectl_gen_quote,
    runectl_gen_token,
    runectl_inspect,
    runectl_keygen,
    runectl_measure,
    runectl_sign,
)
from inclavare.errors import InclavareError, UsageError

_COMMANDS = (
    runectl_measure,
    runectl_sign,
    runectl_inspect,
    runectl_keygen,
    runectl_gen_token,
    runectl_gen_qe_target_info,
    runectl_gen_quote,
    runectl_doctor,
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print, so that all errors look alike."""
        raise UsageError(message, f"{self.prog} --help")


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name; None: that of the process); return the exit code."""
    try:
        arguments = _parser().parse_args(argv)
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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="runectl", description="Measure, sign, inspect and attest SGX enclaves.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"runectl version {__version__}")
    parser.add_argument("--verbose", action="store_true", help="of gen-*: print the fields of what is read and got")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _COMMANDS:
        module.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
