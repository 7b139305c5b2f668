"""`runectl doctor`: what this host can do, and what to do about each lack."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from inclavare.cli.runectl_files import print_json

if TYPE_CHECKING:
    from inclavare.doctor.findings import Capability, Finding

NOT_THERE = 3  # exit status
_MARKS = {"ok": "ok     ", "lack": "LACK   ", "warning": "warning", "note": "note   "}
_CAPABILITIES = ("containers", "enclaves", "attestation")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "doctor",
        help="say what this host can do, and what it lacks",
        description="Examine kernel, processor, SGX driver, AESM, PCCS and engines. Changes nothing. Exit status: 0"
        " when all that is needed is there, 3 when something is lacking, 1 when the examination failed.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--need",
        metavar="WHAT",
        action="append",
        choices=_CAPABILITIES,
        help="containers, enclaves or attestation; repeatable (default: containers and enclaves)",
    )
    parser.add_argument(
        "--platform",
        choices=("hardware", "emulated", "auto"),
        default="",
        help="examine for this SGX platform (default: what the host is set to)",
    )
    parser.add_argument("--root", metavar="DIR", default="/", help="examine the host whose files are below DIR")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine, print, and tell scripts by the exit status."""
    from inclavare.doctor.examine import examine  # noqa: PLC0415  # much to load for the other commands
    from inclavare.doctor.findings import CAPABILITIES, lacking  # noqa: PLC0415
    from inclavare.doctor.host import Host  # noqa: PLC0415

    findings = examine(Host(arguments.root), arguments.platform)
    lacks = {capability: lacking(findings, capability) for capability in CAPABILITIES}
    needed = arguments.need or ["containers", "enclaves"]
    complete = not any(lacks[capability] for capability in needed)
    if arguments.json:
        print_json(
            {
                "complete": complete,
                "needed": needed,
                "capabilities": {capability: not lacks[capability] for capability in CAPABILITIES},
                "findings": [asdict(finding) for finding in findings],
            }
        )
    else:
        _print(findings, lacks)
    return 0 if complete else NOT_THERE


def _print(findings: list[Finding], lacks: dict[Capability, list[Finding]]) -> None:
    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            print(f"{area}:")
        print(f"  {_MARKS[finding.state]}  {finding.subject}: {finding.found}")
        if finding.advice:
            print(f"           -> {finding.advice}")
    print()
    for capability, missing in lacks.items():
        why = ", ".join(dict.fromkeys(finding.subject for finding in missing))
        print(f"{capability + ':':<12} {'no: ' + why if why else 'yes'}")
