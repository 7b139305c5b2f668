"""`runectl verify-quote --quote FILE --collateral FILE`: whether a quote is genuine and acceptable."""

from __future__ import annotations

import argparse
import re
import time
from typing import TYPE_CHECKING

from inclavare.cli.runectl_files import print_json, print_labelled, read_file
from inclavare.cli.runectl_get_collateral import add_cache_options, collateral
from inclavare.cli.runectl_times import unix_time
from inclavare.errors import AttestationError, UsageError

if TYPE_CHECKING:
    from inclavare.sgx.policy import Policy
    from inclavare.sgx.verdict import Step, Verdict

# By the verdict's cause. 1 and 2 are those of every command: it could not begin, the command line is wrong.
EXIT_CODES = {"": 0, "not genuine": 3, "genuine but unacceptable": 4, "cannot tell": 5}
_COLUMN = 22
_DAY = 86400
_HEX = re.compile(r"(?:0[xX])?((?:[0-9A-Fa-f]{2})*)\Z")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "verify-quote",
        help="verify a quote, and compare it with what you accept",
        description="Verify an ECDSA quote of an SGX enclave with its collateral, step by step, without network unless"
        " a PCCS is named. Unless options say otherwise, it accepts enclaves that are not DEBUG on hardware whose"
        " status is UpToDate.",
        epilog="Exit codes: 0 accepted, 3 not genuine, 4 genuine but unacceptable, 5 cannot tell (the collateral is of"
        " another time or platform, or malformed), 1 a file cannot be read, 2 the command line is wrong.",
        allow_abbrev=False,
    )
    parser.add_argument("--quote", metavar="FILE", required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pccs", metavar="URL", help="get the collateral from this PCCS, or from the cache")
    source.add_argument(
        "--collateral",
        metavar="FILE",
        help="JSON object with the fields of dcap-qvl's QuoteCollateralV3, or with such an object as `collateral`",
    )
    parser.add_argument(
        "--at", metavar="TIME", help="the time for which to ask, unix seconds or RFC 3339; default: now"
    )
    parser.add_argument("--root", metavar="PEM", help="certificate of the root to trust instead of Intel's")
    parser.add_argument(
        "--allow-emulated", action="store_true", help="accept a simulated platform; its root must be given, too"
    )
    policy = parser.add_argument_group("policy")
    policy.add_argument(
        "--accept-status",
        metavar="STATUS",
        action="append",
        default=[],
        help="accept this besides UpToDate; repeatable",
    )
    policy.add_argument(
        "--accept-advisory",
        metavar="ID",
        action="append",
        help="refuse advisories other than this one (INTEL-SA-00615); repeatable; default: accept all",
    )
    policy.add_argument(
        "--refuse-advisory", metavar="ID", action="append", default=[], help="refuse this advisory; repeatable"
    )
    policy.add_argument("--mrenclave", metavar="HEX", action="append", help="accept only this enclave; repeatable")
    policy.add_argument("--mrsigner", metavar="HEX", action="append", help="accept only this signer; repeatable")
    policy.add_argument("--isvprodid", "--product-id", metavar="NUMBER", type=int, help="accept only this product")
    policy.add_argument("--min-isvsvn", "--min-svn", metavar="NUMBER", type=int, default=0, help="refuse lower SVNs")
    policy.add_argument("--report-data", metavar="HEX", help="accept only these data, up to 64 bytes, then zeros")
    policy.add_argument("--allow-debug", action="store_true", help="accept DEBUG enclaves, whose secrets are open")
    policy.add_argument(
        "--max-collateral-age", metavar="DAYS", type=int, help="do not rely on collateral issued before that"
    )
    add_cache_options(parser.add_argument_group("with --pccs"))
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the verdict; return the exit code that stands for it."""
    # The library loads cryptography; --help and other commands do without.
    from inclavare.sgx.verification import verify  # noqa: PLC0415

    now = int(time.time()) if arguments.at is None else unix_time("--at", arguments.at)
    policy = _policy(arguments)
    quote = read_file(arguments.quote)
    found = read_file(arguments.collateral) if arguments.collateral else collateral(arguments, quote)
    verdict = verify(quote, found, now, policy)
    if arguments.json:
        print_json(verdict.values())
    else:
        _print(verdict)
    return EXIT_CODES[verdict.cause]


def _policy(arguments: argparse.Namespace) -> Policy:
    from inclavare.sgx.policy import Policy  # noqa: PLC0415  # loads cryptography
    from inclavare.sgx.tcb import UP_TO_DATE  # noqa: PLC0415

    trusted_root = None if arguments.root is None else read_file(arguments.root)
    days = arguments.max_collateral_age
    try:
        return Policy(
            accepted_statuses=frozenset({UP_TO_DATE, *_split(arguments.accept_status)}),
            accepted_advisories=None
            if arguments.accept_advisory is None
            else frozenset(_split(arguments.accept_advisory)),
            refused_advisories=frozenset(_split(arguments.refuse_advisory)),
            mrenclaves=_hashes("--mrenclave", arguments.mrenclave),
            mrsigners=_hashes("--mrsigner", arguments.mrsigner),
            isvprodid=arguments.isvprodid,
            min_isvsvn=arguments.min_isvsvn,
            report_data=None if arguments.report_data is None else _hex("--report-data", arguments.report_data),
            allow_debug=arguments.allow_debug,
            allow_emulated=arguments.allow_emulated,
            trusted_root=trusted_root,
            max_collateral_age=None if days is None else days * _DAY,
        )
    except AttestationError as error:
        raise UsageError(f"cannot use the policy: {error.message}", "runectl verify-quote --help") from error


def _split(values: list[str]) -> list[str]:
    return [item for value in values for item in value.split(",") if item]


def _hashes(option: str, values: list[str] | None) -> frozenset[bytes] | None:
    return None if values is None else frozenset(_hex(option, value) for value in _split(values))


def _hex(option: str, text: str) -> bytes:
    match = _HEX.match(text)
    if match is None:
        raise UsageError(f"{option}: expected hexadecimal digits, found {text}")
    return bytes.fromhex(match[1])


def _print(verdict: Verdict) -> None:
    words = verdict.verdict.upper() + (f": {verdict.cause}" if verdict.cause else "")
    print(f"SIMULATED, {words}" if verdict.emulated else words)
    print(verdict.reason)
    print()
    values = verdict.values()
    rows = [
        ("Status", verdict.status or "unknown"),
        ("Advisories", ", ".join(verdict.advisory_ids) or ("none" if verdict.status else "unknown")),
        *((label, str(values[name])) for label, name in _ROWS if values[name] is not None),
    ]
    print_labelled(rows, _COLUMN)
    print("\nSteps:")
    for step in verdict.steps:
        print(f"  {step.number:>2} {step.name:<24} {_outcome(step)}")


_ROWS = (
    ("MRENCLAVE", "mrenclave"),
    ("MRSIGNER", "mrsigner"),
    ("ISVPRODID", "isvprodid"),
    ("ISVSVN", "isvsvn"),
    ("DEBUG", "debug"),
    ("REPORTDATA", "report_data"),
    ("FMSPC", "fmspc"),
    ("Root", "root"),
    ("TCB date", "tcb_date"),
    ("Valid until", "expires"),
)


def _outcome(step: Step) -> str:
    if step.passed is None:
        return "not checked"
    return f"passed: {step.found}" if step.passed else f"FAILED: expected {step.expected}, found {step.found}"
