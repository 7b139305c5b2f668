"""`runectl gen-qe-target-info`: the quoting enclave's TARGETINFO, which a report must name to become a quote."""

from __future__ import annotations

import argparse

from inclavare.cli.runectl_aesm import add_aesm_options, aesm_client, plain, quote_type
from inclavare.cli.runectl_dump import target_info_lines
from inclavare.cli.runectl_files import print_json, write_file
from inclavare.sgx.arch import TargetInfo


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "gen-qe-target-info",
        help="get the quoting enclave's target info from AESM",
        description="Write the TARGETINFO (512 bytes) of the quoting enclave, for the reports that shall be quoted.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--targetinfo", metavar="FILE", default="qe_targetinfo.bin", help="what to write (default qe_targetinfo.bin)"
    )
    parser.add_argument(
        "--quote-type", metavar="TYPE", default="ecdsa", help="ecdsa (default), epidUnlinkable or epidLinkable"
    )
    add_aesm_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Get the target info and write it."""
    from inclavare.aesm.quoting import qe_target_info  # noqa: PLC0415  # see runectl_aesm

    kind = quote_type(arguments.quote_type)
    raw = qe_target_info(aesm_client(arguments), kind)
    target = TargetInfo.from_bytes(raw)
    if arguments.verbose and not arguments.json:
        print(*target_info_lines(target), sep="\n")
    write_file(arguments.targetinfo, raw, 0o664)
    if arguments.json:
        print_json({"targetinfo": arguments.targetinfo, "quote_type": kind, **plain(target)})
    else:
        print(f"quoting enclave's target info file {arguments.targetinfo} saved")
    return 0
