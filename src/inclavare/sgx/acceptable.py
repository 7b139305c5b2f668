"""The steps that compare a genuine quote with a policy, in the order of `verification.STEPS`."""

from __future__ import annotations

from collections.abc import Iterable

from inclavare.sgx.policy import Policy
from inclavare.sgx.verdict import CANNOT_TELL, REPORT_DATA_SIZE, UNACCEPTABLE, State, StepError, date_text

_DAY = 86400


def emulation(policy: Policy, state: State) -> str:
    """Refuse simulated platforms unless they are allowed."""
    if not state.verdict.emulated:
        return "not emulated"
    if not policy.allow_emulated:
        raise StepError(UNACCEPTABLE, "hardware (emulation is not allowed)", "a simulated platform")
    return "a simulated platform, which is allowed"


def status(policy: Policy, state: State) -> str:
    """Compare the status."""
    return _one_of(state.verdict.status or "", policy.accepted_statuses)


def advisories(policy: Policy, state: State) -> str:
    """Compare the advisories that are open on the platform."""
    for advisory in state.verdict.advisory_ids:
        if advisory in policy.refused_advisories:
            raise StepError(UNACCEPTABLE, f"no {advisory}", advisory)
        if policy.accepted_advisories is not None:
            _one_of(advisory, policy.accepted_advisories)
    return ", ".join(state.verdict.advisory_ids) or "none"


def collateral_age(policy: Policy, state: State) -> str:
    """Measure the age of what is issued at least monthly; the root's revocation list is issued once a year."""
    collateral = state.collateral
    issued = min(collateral.tcb_info.issue_date, collateral.qe_identity.issue_date, collateral.pck_crl.this_update)
    age, maximum = state.now - issued, policy.max_collateral_age
    found = f"{age // _DAY} days, of {date_text(issued)}"
    if maximum is not None and age > maximum:
        raise StepError(CANNOT_TELL, f"collateral issued in the last {maximum} seconds", found)
    return found


def debug(policy: Policy, state: State) -> str:
    """Refuse DEBUG enclaves unless they are allowed."""
    if state.quote.body.debug and not policy.allow_debug:
        raise StepError(UNACCEPTABLE, "no DEBUG enclave", "DEBUG is set: its memory can be read from outside")
    return "DEBUG, which is allowed" if state.quote.body.debug else "not DEBUG"


def mrenclave(policy: Policy, state: State) -> str:
    """Compare MRENCLAVE."""
    return _identity(state.quote.body.mrenclave, policy.mrenclaves)


def mrsigner(policy: Policy, state: State) -> str:
    """Compare MRSIGNER."""
    return _identity(state.quote.body.mrsigner, policy.mrsigners)


def product(policy: Policy, state: State) -> str:
    """Compare ISVPRODID."""
    found, expected = state.quote.body.isvprodid, policy.isvprodid
    if expected is not None and found != expected:
        raise StepError(UNACCEPTABLE, str(expected), str(found))
    return str(found)


def svn(policy: Policy, state: State) -> str:
    """Compare ISVSVN."""
    found, minimum = state.quote.body.isvsvn, policy.min_isvsvn
    if found < minimum:
        raise StepError(UNACCEPTABLE, f"{minimum} or more", str(found))
    return str(found)


def report_data(policy: Policy, state: State) -> str:
    """Compare REPORTDATA, all 64 bytes."""
    found, expected = state.quote.body.reportdata, policy.report_data
    if expected is not None and found != expected.ljust(REPORT_DATA_SIZE, b"\0"):
        raise StepError(UNACCEPTABLE, expected.ljust(REPORT_DATA_SIZE, b"\0").hex(), found.hex())
    return found.hex()


def _one_of(found: str, accepted: Iterable[str]) -> str:
    if found not in accepted:
        raise StepError(UNACCEPTABLE, " or ".join(sorted(accepted)) or "none", found)
    return found


def _identity(found: bytes, accepted: frozenset[bytes] | None) -> str:
    if accepted is not None:
        _one_of(found.hex(), [identity.hex() for identity in accepted])
    return found.hex()
