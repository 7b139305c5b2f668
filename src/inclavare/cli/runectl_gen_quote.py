"""`runectl gen-quote`: the quote of a report that an enclave made for the quoting enclave."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from inclavare.cli.runectl_aesm import add_aesm_options, aesm_client, quote_type, read_structure
from inclavare.cli.runectl_dump import quote_lines, report_lines
from inclavare.cli.runectl_files import print_json, write_file
from inclavare.errors import UsageError
from inclavare.sgx.arch import Report

if TYPE_CHECKING:
    from inclavare.aesm.quoting import QuoteType

_SPID_DIGITS = 32
_MRENCLAVE, _MRSIGNER = slice(112, 144), slice(176, 208)  # of a quote


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "gen-quote",
        help="get the quote of a report from AESM",
        description="Have the quoting enclave turn a REPORT (432 bytes), made for its target info, into a quote.",
        allow_abbrev=False,
    )
    parser.add_argument("--report", metavar="FILE", help="the REPORT, 432 bytes")
    parser.add_argument("--quote", metavar="FILE", default="quote.bin", help="what to write (default quote.bin)")
    parser.add_argument(
        "--quote-type", metavar="TYPE", help="ecdsa (default), epidUnlinkable (default with --spid) or epidLinkable"
    )
    parser.add_argument("--spid", metavar="HEX32", help="the service provider's id, for EPID")
    parser.add_argument("--linkable", action="store_true", help="the same as --quote-type epidLinkable")
    add_aesm_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Get the quote and write it."""
    report = read_structure(arguments.report, "report", Report.NAME, Report.SIZE)
    kind = _kind(arguments)
    spid = b"" if kind == "ecdsa" else _spid(arguments.spid)
    dump = arguments.verbose and not arguments.json
    if dump:
        print(*report_lines(Report.from_bytes(report)), sep="\n")
    from inclavare.aesm.quoting import quote  # noqa: PLC0415  # see runectl_aesm

    raw = quote(aesm_client(arguments), kind, report, spid)
    if dump:
        print(*quote_lines(raw), sep="\n")
    write_file(arguments.quote, raw, 0o664)
    if arguments.json:
        print_json(
            {
                "quote": arguments.quote,
                "quote_type": kind,
                "size": len(raw),
                "version": int.from_bytes(raw[:2], "little"),
                "mrenclave": raw[_MRENCLAVE].hex(),
                "mrsigner": raw[_MRSIGNER].hex(),
            }
        )
    else:
        print(f"target enclave's quote file {arguments.quote} saved")
    return 0


def _kind(arguments: argparse.Namespace) -> QuoteType:
    if not arguments.linkable:
        return quote_type(arguments.quote_type or ("epidUnlinkable" if arguments.spid else "ecdsa"))
    if arguments.quote_type and quote_type(arguments.quote_type) != "epidLinkable":
        raise UsageError(f"--linkable and --quote-type {arguments.quote_type} contradict each other")
    return "epidLinkable"


def _spid(text: str | None) -> bytes:
    if not text:
        raise UsageError("spid argument cannot be empty", "EPID quotes want --spid, 32 hexadecimal digits.")
    try:
        spid = bytes.fromhex(text)
    except ValueError:
        spid = b""
    if len(spid) * 2 != _SPID_DIGITS or len(text) != _SPID_DIGITS:
        raise UsageError("Spid must be 32-character long", "32 hexadecimal digits are 16 bytes.")
    return spid
