"""The words of a verification: its steps, its verdict, and what the steps hand on to each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Final, Literal

from inclavare.sgx.certificates import Certificate
from inclavare.sgx.collateral import Collateral
from inclavare.sgx.pck import PckExtension
from inclavare.sgx.quote import Quote

NOT_GENUINE: Final = "not genuine"
UNACCEPTABLE: Final = "genuine but unacceptable"
CANNOT_TELL: Final = "cannot tell"
Cause = Literal["", "not genuine", "genuine but unacceptable", "cannot tell"]

REPORT_DATA_SIZE: Final = 64
_TIMES = {"tcb_date", "expires"}


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of one step; `passed` is None where an earlier failure left nothing to check."""

    number: int
    name: str
    passed: bool | None
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer.

    What it repeats from the quote is only a claim unless `verdict` is "accepted" or `cause` "genuine but unacceptable".
    """

    verdict: Literal["accepted", "refused", "unknown"] = "unknown"
    cause: Cause = ""
    status: str | None = None  # one of tcb.STATUSES, once it is known
    advisory_ids: tuple[str, ...] = ()
    mrenclave: bytes | None = None
    mrsigner: bytes | None = None
    isvprodid: int | None = None
    isvsvn: int | None = None
    report_data: bytes | None = None
    debug: bool | None = None
    emulated: bool | None = None  # the certificates say that the platform is simulated
    root: str | None = None  # whose root the chain ends in: "Intel", "simulated" or "other" (given, neither of the two)
    fmspc: bytes | None = None
    tcb_date: int | None = None  # unix seconds
    expires: int | None = None  # unix seconds: when the first part of collateral and certificates does
    failed_step: str | None = None
    reason: str = ""
    steps: tuple[Step, ...] = ()

    def values(self) -> dict[str, object]:
        """Return all of it as JSON has it: bytes in hexadecimal, times as 2025-06-19T10:56:11Z."""
        values: dict[str, object] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, bytes):
                value = value.hex()
            elif item.name in _TIMES and value is not None:
                value = date_text(value)
            values[item.name] = value
        return values | {"advisory_ids": list(self.advisory_ids), "steps": [asdict(step) for step in self.steps]}


@dataclass(slots=True)
class State:
    """What the steps hand on to each other."""

    given_quote: bytes | Quote
    given_collateral: bytes | str | Collateral
    now: int
    trusted_root: Certificate | None
    verdict: Verdict = field(default_factory=Verdict)
    quote: Quote = field(init=False)
    collateral: Collateral = field(init=False)
    pck: Certificate = field(init=False)
    pck_ca: Certificate = field(init=False)
    root: Certificate = field(init=False)
    tcb_signing: Certificate = field(init=False)
    qe_signing: Certificate = field(init=False)
    extension: PckExtension = field(init=False)

    def report(self, **values: object) -> None:
        """Add to the verdict."""
        self.verdict = replace(self.verdict, **values)  # type: ignore[arg-type]


class StepError(Exception):
    """A step fails: what that means, what must be, and what is."""

    def __init__(self, cause: Cause, expected: str, found: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.expected = expected
        self.found = found


def date_text(seconds: int) -> str:
    """Return unix seconds as people write times, or as they are if there is no such date."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
