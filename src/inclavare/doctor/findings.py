"""What an examination finds: one value a question, and which capability hangs on it. Pure.

A capability is there when nothing that it needs is lacking. `containers`: rune runs ordinary containers. `enclaves`: it
runs enclave containers on the platform that this host is set to. `attestation`: reports become quotes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Capability = Literal["containers", "enclaves", "attestation"]
CAPABILITIES: tuple[Capability, ...] = ("containers", "enclaves", "attestation")

State = Literal["ok", "lack", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer: what was looked at, what was found, and what to do next where that is not well.

    Only a `lack` takes capabilities away, those in `needed_for`; a `warning` will bite, a `note` is for information.
    """

    area: str
    subject: str
    state: State
    found: str
    advice: str = ""
    needed_for: tuple[Capability, ...] = ()


def lacking(findings: Iterable[Finding], capability: Capability) -> list[Finding]:
    """Return what takes `capability` away."""
    return [finding for finding in findings if finding.state == "lack" and capability in finding.needed_for]
