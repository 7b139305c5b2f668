"""What a relying party accepts. Everything that is not said is strict, and checked when the policy is made."""

from __future__ import annotations

from dataclasses import dataclass

from inclavare.errors import AttestationError
from inclavare.sgx.certificates import parse_trusted_root
from inclavare.sgx.tcb import REVOKED, STATUSES, UP_TO_DATE
from inclavare.sgx.verdict import REPORT_DATA_SIZE

_HASH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Policy:
    """What to accept; None stands for anything. Raises AttestationError for values that no quote could meet.

    `trusted_root` is a certificate, PEM or DER, that is trusted instead of Intel's root. `allow_emulated` accepts
    simulated platforms, whose root must be given. `report_data` has at most 64 bytes; zeros follow. The age of
    collateral is in seconds. Status Revoked is never accepted.
    """

    accepted_statuses: frozenset[str] = frozenset({UP_TO_DATE})
    accepted_advisories: frozenset[str] | None = None
    refused_advisories: frozenset[str] = frozenset()
    mrenclaves: frozenset[bytes] | None = None
    mrsigners: frozenset[bytes] | None = None
    isvprodid: int | None = None
    min_isvsvn: int = 0
    report_data: bytes | None = None
    allow_debug: bool = False
    allow_emulated: bool = False
    trusted_root: bytes | None = None
    max_collateral_age: int | None = None

    def __post_init__(self) -> None:
        for status in sorted(self.accepted_statuses):
            if status not in STATUSES or status == REVOKED:
                acceptable = ", ".join(known for known in STATUSES if known != REVOKED)
                raise AttestationError("accepted_statuses", f"expected some of {acceptable}, found {status}")
        for name, hashes in (("mrenclaves", self.mrenclaves), ("mrsigners", self.mrsigners)):
            for value in hashes or ():
                if len(value) != _HASH_SIZE:
                    raise AttestationError(name, f"expected {_HASH_SIZE} bytes, found {len(value)}")
        if self.report_data is not None and len(self.report_data) > REPORT_DATA_SIZE:
            found = len(self.report_data)
            raise AttestationError("report_data", f"expected at most {REPORT_DATA_SIZE} bytes, found {found}")
        if self.trusted_root is not None:
            parse_trusted_root(self.trusted_root)
