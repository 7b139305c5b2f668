"""What runectl's commands that ask AESM have in common: options, types of quotes, errors for programs."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING

from inclavare.cli.runectl_times import seconds
from inclavare.errors import HostError, UsageError
from inclavare.sgx.arch import Record

if TYPE_CHECKING:
    from inclavare.aesm.client import AesmClient
    from inclavare.aesm.quoting import QuoteType


def add_aesm_options(parser: argparse.ArgumentParser) -> None:
    """Add what every such command takes."""
    parser.add_argument(
        "--socket", metavar="PATH", help="the daemon's socket (default /var/run/aesmd/aesm.socket, then the legacy one)"
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, default=30.0, help="of each request as a whole (default 30)"
    )
    parser.add_argument(
        "--verbose", action="store_true", default=argparse.SUPPRESS, help="print the fields of what is read and got"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object, also for an error of the daemon")


def aesm_client(arguments: argparse.Namespace) -> AesmClient:
    """Return a client for the daemon that the options name."""
    # The messages of the protocol cost a third of the start of a command that does not need them.
    from inclavare.aesm.client import AesmClient  # noqa: PLC0415

    return AesmClient(arguments.socket, arguments.timeout)


def quote_type(text: str) -> QuoteType:
    """Return the type of quote that `text` names, in upper or lower case. Raises UsageError."""
    from inclavare.aesm.quoting import QUOTE_TYPES  # noqa: PLC0415  # as above

    for name in QUOTE_TYPES:
        if name.lower() == text.lower():
            return name
    raise UsageError(f"Unsupport quote type: {text}", f"one of {', '.join(QUOTE_TYPES)}")


def read_structure(path: str | None, what: str, name: str, size: int) -> bytes:
    """Return the `size` bytes of the file `path`, with the original's words for what is wrong with it.

    `what` is the option, `name` the structure. Raises UsageError, HostError.
    """
    if not path:
        raise UsageError(f"{what} argument cannot be empty")
    try:
        with open(path, "rb") as file:
            data = file.read(size + 1)
    except FileNotFoundError as error:
        raise HostError(f"{what} file {path} not found") from error
    except OSError as error:
        raise HostError(f"cannot read the {what} file {path}: {error.strerror}") from error
    if len(data) != size:
        found = f"more than {size}" if len(data) > size else str(len(data))
        raise HostError(f"{what} file {path} not match {name}", f"It has {size} bytes, found {found}.")
    return data


def plain(record: Record) -> dict[str, object]:
    """Return the fields of a structure for JSON, bytes in hex, without those that are reserved."""
    values = {item.name: getattr(record, item.name) for item in fields(record)}  # type: ignore[arg-type]
    return {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in values.items()
        if not name.startswith("reserved")
    }
