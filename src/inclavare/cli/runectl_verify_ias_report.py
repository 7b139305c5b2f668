"""`runectl verify-ias-report FILE`: what a report of Intel's attestation service for EPID says, if it is genuine."""

from __future__ import annotations

import argparse
import time

from inclavare.cli.runectl_files import print_json, print_labelled, read_file
from inclavare.cli.runectl_times import unix_time

_COLUMN = 22


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "verify-ias-report",
        help="verify a report of Intel's attestation service for EPID, which is no more",
        description="Verify what Intel's attestation service once answered: the signature over the exact body, the"
        " signer's certificates, their times. Whether its status is good enough is yours to say. The exit code is 1"
        " for a report that is not genuine.",
        allow_abbrev=False,
    )
    parser.add_argument("response", metavar="FILE", help="the response with its HTTP headers, as curl -i writes it")
    parser.add_argument(
        "--at", metavar="TIME", help="the time for which to ask, unix seconds or RFC 3339; default: now"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what the report says."""
    # The library loads cryptography; --help and other commands do without.
    from inclavare.sgx.ias import check_ias_report, split_response  # noqa: PLC0415
    from inclavare.sgx.verdict import date_text  # noqa: PLC0415

    now = int(time.time()) if arguments.at is None else unix_time("--at", arguments.at)
    report = check_ias_report(*split_response(read_file(arguments.response)), now)
    body = report.quote.body
    values = {
        "id": report.id,
        "timestamp": date_text(report.timestamp),
        "status": report.status,
        "advisory_ids": list(report.advisory_ids),
        "nonce": report.nonce,
        "mrenclave": body.mrenclave.hex(),
        "mrsigner": body.mrsigner.hex(),
        "isvprodid": body.isvprodid,
        "isvsvn": body.isvsvn,
        "debug": body.debug,
        "report_data": body.reportdata.hex(),
        "epid_group_id": report.quote.epid_group_id.hex(),
    }
    if arguments.json:
        print_json(values)
    else:
        print("GENUINE, signed by Intel's attestation service")
        print_labelled([(name, str(value)) for name, value in values.items()], _COLUMN)
    return 0
