"""The command `runectl`: measures, signs and inspects SGX enclaves on any machine, and gets tokens and quotes for them.

One module a command, `runectl_NAME`, with `add_parser` and `run`. Errors are one line on stderr, then a hint: exit code
1, or 2 when the command line cannot be understood; with --json there is an object with `error` on stdout, too.
`verify-quote` has further exit codes for its verdicts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from importlib import import_module
from typing import NoReturn

from inclavare import __version__
from inclavare.errors import InclavareError, UsageError

# Each is `add_parser` and `run` of a module runectl_NAME; what it does, which that module says, too.
COMMANDS = {
    "measure": "print the MRENCLAVE of an image",
    "sign": "sign an image",
    "inspect": "show an image or a SIGSTRUCT, and verify it",
    "keygen": "make a signing key for development",
    "gen-token": "get a launch token from AESM",
    "gen-qe-target-info": "get the quoting enclave's target info from AESM",
    "gen-quote": "get the quote of a report from AESM",
    "verify-quote": "verify a quote, and compare it with what you accept",
    "verify-ias-report": "verify a report of Intel's attestation service for EPID, which is no more",
    "get-collateral": "get from a PCCS what is needed to verify a quote",
    "doctor": "say what this host can do, and what it lacks",
    "register": "make rune known to containerd or Docker, or unknown again",
    "aesmd": "serve tokens and quotes of the software platform",
    "pccs": "serve certificates and collateral of the software platform",
    "signature-server": "sign enclaves for others, with a key that stays here",
    "platform": "make, show and renew the software platform of this host",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print, so that all errors look alike."""
        raise UsageError(message, f"{self.prog} --help")


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name; None: that of the process); return the exit code."""
    json = False
    try:
        words = sys.argv[1:] if argv is None else argv
        # Loading all commands takes longer than most of them: a command line that names one gets only that.
        named = next((word for word in words if word != "--verbose"), "")
        arguments = parser([named] if named in COMMANDS else []).parse_args(words)
        json = getattr(arguments, "json", False)
        run = arguments.run
        code: int = run(arguments)
    except SystemExit as exit_:  # --help and --version have printed
        code = exit_.code if isinstance(exit_.code, int) else 0
    except InclavareError as error:
        _tell(error, json=json)
        code = 2 if isinstance(error, UsageError) else 1
    return code


def _tell(error: InclavareError, *, json: bool) -> None:
    """Print an error for people, and for programs that want JSON."""
    if json:
        from inclavare.cli.runectl_files import print_json  # noqa: PLC0415

        meaning = getattr(error, "meaning", None)  # of AesmError, which few commands load
        code = {} if meaning is None else meaning._asdict()
        print_json({"error": {"message": error.message, "hint": error.hint, **code}})
    print(f"runectl: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def parser(names: Collection[str] = COMMANDS) -> argparse.ArgumentParser:
    """Return the parser of runectl. It knows the commands `names`; of the others it can only list what they do."""
    whole = _Parser(prog="runectl", description="Measure, sign, inspect and attest SGX enclaves.", allow_abbrev=False)
    whole.add_argument("--version", action="version", version=f"runectl version {__version__}")
    whole.add_argument("--verbose", action="store_true", help="of gen-*: print the fields of what is read and got")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        if name in names:
            import_module(f"inclavare.cli.runectl_{name.replace('-', '_')}").add_parser(commands)
        elif not names:
            commands.add_parser(name, help=text)
    return whole


if __name__ == "__main__":
    sys.exit(main())
