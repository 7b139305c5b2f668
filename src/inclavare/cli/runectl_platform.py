"""`runectl platform`: make the software platform of this host, show it, give away its root, renew it.

The files, below /var/lib/inclavare/platform: `seed`, for root only; `root.pem`, for relying parties; `pck.pem`, for
aesmd; `collateral.json`, for pccs and verify-quote.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from inclavare.cli.runectl_files import create_secret_file, print_json, print_labelled, read_file, write_file
from inclavare.errors import EnclaveError, HostError

if TYPE_CHECKING:
    from collections.abc import Callable

PLATFORM = "/var/lib/inclavare/platform"
DAYS = 30
_COLUMN = 22
_NOTICE = "SIMULATED: this platform protects nothing, and only who is told so should trust its root."


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "platform",
        help="make, show and renew the software platform of this host",
        description="The software platform is one seed of 32 bytes, from which its keys come, and certificates and"
        " collateral for them. It protects nothing.",
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add(actions, _init, "init", "make the seed if there is none, certificates and collateral")
    _add(actions, _show, "show", "say what the platform is, and how long its collateral is valid")
    export = _add(actions, _export_root, "export-root", "give the root certificate, for who is to trust quotes")
    export.add_argument("-o", "--output", metavar="FILE", help="write it to FILE instead of standard output")
    rotate = _add(actions, _rotate, "rotate", "renew certificates and collateral; the root stays")
    rotate.add_argument(
        "--new-seed",
        action="store_true",
        help="become another platform: new keys and a new root; what enclaves sealed is lost",
    )
    for action in (actions.choices["init"], rotate):
        action.add_argument(
            "--days", type=_days, default=DAYS, metavar="N", help=f"how long the collateral is valid (default {DAYS})"
        )


def _add(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    run: Callable[[argparse.Namespace], int],
    name: str,
    text: str,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    parser.add_argument("--platform", metavar="DIR", default=PLATFORM, help=f"where it is (default {PLATFORM})")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=run)
    return parser


def _days(text: str) -> int:
    days = int(text) if text.isdigit() else 0
    if not 1 <= days <= 3650:
        raise argparse.ArgumentTypeError(f"expected a number of days from 1 to 3650, found {text!r}")
    return days


def _init(arguments: argparse.Namespace) -> int:
    directory = arguments.platform
    if os.path.exists(f"{directory}/pck.pem"):
        raise HostError(f"there is a software platform in {directory}", "runectl platform rotate renews it.")
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
    except OSError as error:
        raise HostError(f"cannot make {directory}: {error.strerror}", "Root can.") from error
    if not os.path.exists(f"{directory}/seed"):
        create_secret_file(f"{directory}/seed", secrets.token_bytes(32))
    _issue(directory, arguments.days, "")
    return _show(arguments)


def _rotate(arguments: argparse.Namespace) -> int:
    directory = arguments.platform
    root = read_file(f"{directory}/root.pem").decode("ascii", "replace")
    if arguments.new_seed:
        write_file(f"{directory}/seed", secrets.token_bytes(32), 0o600)
        root = ""
        print(
            "The old root is no longer this platform's. Give the new one away: runectl platform export-root",
            file=sys.stderr,
        )
    _issue(directory, arguments.days, root)
    return _show(arguments)


def _issue(directory: str, days: int, root: str) -> None:
    from inclavare.cli.runectl_platform_files import read_seed  # noqa: PLC0415  # cryptography takes 60 ms to load
    from inclavare.sgx.softkeys import SoftKeys  # noqa: PLC0415
    from inclavare.sgx.softpki import issue  # noqa: PLC0415

    issued = issue(SoftKeys(read_seed(f"{directory}/seed")), datetime.now(UTC), days, root)
    write_file(f"{directory}/root.pem", issued.root.encode())
    write_file(f"{directory}/collateral.json", json.dumps(dict(issued.collateral), indent=2).encode() + b"\n")
    write_file(f"{directory}/pck.pem", issued.pck_chain.encode())  # the last: what has it is complete


def _show(arguments: argparse.Namespace) -> int:
    from cryptography import x509  # noqa: PLC0415  # 60 ms
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    from inclavare.cli.runectl_platform_files import read_platform  # noqa: PLC0415
    from inclavare.sgx.collateral import parse_collateral  # noqa: PLC0415
    from inclavare.sgx.softkeys import CPUSVN  # noqa: PLC0415
    from inclavare.sgx.softpki import FMSPC, PCEID  # noqa: PLC0415

    directory = arguments.platform
    platform = read_platform(directory)
    if not os.path.exists(f"{directory}/pck.pem"):
        raise EnclaveError(f"the software platform in {directory} has no certificates", "runectl platform init")
    root = x509.load_pem_x509_certificate(read_file(f"{directory}/root.pem"))
    collateral = parse_collateral(read_file(f"{directory}/collateral.json"))
    until = min(collateral.tcb_info.next_update, collateral.qe_identity.next_update)
    left = (datetime.fromtimestamp(until, UTC) - datetime.now(UTC)).days
    values = {
        "simulated": True,
        "directory": directory,
        "root": root.subject.rfc4514_string(),
        "root_sha256": root.fingerprint(hashes.SHA256()).hex(),
        "fmspc": FMSPC.hex(),
        "pceid": PCEID.hex(),
        "cpusvn": CPUSVN.hex(),
        "attestation_key_id": platform.pub_key_id().hex(),
        "collateral_valid_until": datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "collateral_days_left": left,
    }
    if arguments.json:
        print_json(values)
        return 0
    print(_NOTICE)
    shown = {name.replace("_", " "): str(value) for name, value in values.items() if name != "simulated"}
    print_labelled(list(shown.items()), max(_COLUMN, *(len(name) + 2 for name in shown)))
    if left < 0:
        print("hint: verifiers refuse expired collateral: runectl platform rotate")
    return 0


def _export_root(arguments: argparse.Namespace) -> int:
    root = read_file(f"{arguments.platform}/root.pem")
    if arguments.output:
        write_file(arguments.output, root)
    if arguments.json:
        print_json({"simulated": True, "root": root.decode("ascii", "replace"), "file": arguments.output})
    elif not arguments.output:
        sys.stdout.write(root.decode("ascii", "replace"))
    print(_NOTICE, file=sys.stderr)
    return 0
