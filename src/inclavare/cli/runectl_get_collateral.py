"""`runectl get-collateral`: fetch from a PCCS what is needed to verify a quote."""

from __future__ import annotations

import argparse
import os
import sys
import time

from inclavare.cli.runectl_files import print_json, read_file, write_file


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "get-collateral",
        help="get from a PCCS what is needed to verify a quote",
        description="Get the collateral for a quote, as verify-quote reads it, from a PCCS or from the cache.",
        allow_abbrev=False,
    )
    parser.add_argument("--quote", metavar="FILE", required=True)
    parser.add_argument("--pccs", metavar="URL", required=True, help="such as https://localhost:8081")
    parser.add_argument("-o", "--output", metavar="FILE", help="write it to FILE instead of standard output")
    add_cache_options(parser)
    parser.add_argument("--json", action="store_true", help="as it is anyway; with --output, print the file's name")
    parser.set_defaults(run=run)


def add_cache_options(parser: argparse._ActionsContainer) -> None:
    """Add what every command that asks a PCCS takes."""
    parser.add_argument(
        "--cache", metavar="DIR", help="where collateral is kept (default ~/.cache/inclavare/collateral)"
    )
    parser.add_argument("--refresh", action="store_true", help="ask the PCCS even if the cache has valid collateral")
    parser.add_argument(
        "--ca-file", metavar="PEM", help="certificates that vouch for the PCCS, instead of the system's"
    )


def collateral(arguments: argparse.Namespace, quote: bytes) -> bytes:
    """Return the collateral (JSON) for `quote`. Raises InclavareError."""
    from inclavare.pcs.client import Pccs, collateral_for  # noqa: PLC0415  # much to load for others

    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    cache = arguments.cache or f"{home}/inclavare/collateral"
    pccs = Pccs(arguments.pccs, arguments.ca_file)
    return collateral_for(quote, pccs, cache, int(time.time()), refresh=arguments.refresh)


def run(arguments: argparse.Namespace) -> int:
    """Get it and write it."""
    document = collateral(arguments, read_file(arguments.quote)) + b"\n"
    if arguments.output:
        write_file(arguments.output, document)
        if arguments.json:
            print_json({"collateral": arguments.output})
    else:
        sys.stdout.write(document.decode())
    return 0
