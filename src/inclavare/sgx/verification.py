"""Remote attestation, the relying party's side: whether a quote is genuine and acceptable.

`verify` is a function of quote, collateral, time and policy: no clock, no file, no network. It goes through `STEPS` in
order and ends at the first that fails. First comes what proves the quote and then the collateral false or not, without
regard to time; then whether the collateral is for this platform and valid now; then the platform's status; last the
policy. So "cannot tell" is never said of what is known to be false, and a policy is never asked about a forgery.

Trust comes from one key: that of Intel's SGX root CA, or of the root given in the policy. A root that is given replaces
Intel's. Chains whose names say "simulated" are accepted only if the policy allows emulation as well.

The order of checks and the statuses follow Intel's quote verification library; docs/verification.md tells where it and
dcap-qvl differ and what is done here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from inclavare.sgx import acceptable, genuine
from inclavare.sgx.certificates import parse_trusted_root
from inclavare.sgx.collateral import Collateral
from inclavare.sgx.policy import Policy
from inclavare.sgx.quote import Quote
from inclavare.sgx.verdict import CANNOT_TELL, State, Step, StepError, Verdict

_GENUINE: Final[tuple[tuple[str, Callable[[State], str]], ...]] = (
    ("quote format", genuine.quote_format),
    ("collateral format", genuine.collateral_format),
    ("PCK certificate chain", genuine.pck_chain),
    ("trusted root", genuine.trusted_root),
    ("QE report signature", genuine.qe_report_signature),
    ("attestation key", genuine.attestation_key),
    ("quote signature", genuine.quote_signature),
    ("TCB info signature", genuine.tcb_info_signature),
    ("QE identity signature", genuine.qe_identity_signature),
    ("root CA revocation list", genuine.root_crl),
    ("PCK revocation list", genuine.pck_crl),
    ("revocation", genuine.revocation),
    ("platform", genuine.platform),
    ("quoting enclave", genuine.quoting_enclave),
    ("times", genuine.times),
    ("TCB level", genuine.tcb_level),
)
_ACCEPTABLE: Final[tuple[tuple[str, Callable[[Policy, State], str]], ...]] = (
    ("emulation", acceptable.emulation),
    ("status", acceptable.status),
    ("advisories", acceptable.advisories),
    ("collateral age", acceptable.collateral_age),
    ("debug", acceptable.debug),
    ("MRENCLAVE", acceptable.mrenclave),
    ("MRSIGNER", acceptable.mrsigner),
    ("product id", acceptable.product),
    ("SVN", acceptable.svn),
    ("report data", acceptable.report_data),
)
STEPS: Final = (*(name for name, _ in _GENUINE), *(name for name, _ in _ACCEPTABLE))


def verify(
    quote: bytes | Quote, collateral: bytes | str | Collateral, now: int, policy: Policy | None = None
) -> Verdict:
    """Return the verdict on `quote` at the time `now` (unix seconds) under `policy` (None: the defaults of Policy).

    Bytes are parsed; what cannot be parsed ends in a verdict, too. Nothing is raised.
    """
    policy = policy or Policy()
    root = parse_trusted_root(policy.trusted_root) if policy.trusted_root is not None else None
    state = State(quote, collateral, now, root)
    steps: list[Step] = []
    try:
        for name, check in _GENUINE:
            steps.append(_passed(len(steps) + 1, name, check(state)))
        for name, accept in _ACCEPTABLE:
            steps.append(_passed(len(steps) + 1, name, accept(policy, state)))
    except StepError as error:
        number, name = len(steps) + 1, STEPS[len(steps)]
        steps.append(Step(number, name, passed=False, expected=error.expected, found=error.found))
        steps += [Step(later, STEPS[later - 1], None, "", "") for later in range(number + 1, len(STEPS) + 1)]
        return replace(
            state.verdict,
            verdict="unknown" if error.cause == CANNOT_TELL else "refused",
            cause=error.cause,
            failed_step=name,
            reason=_reason(state.verdict, f"{name}: expected {error.expected}, found {error.found}"),
            steps=tuple(steps),
        )
    reason = _reason(state.verdict, f"genuine, status {state.verdict.status}")
    return replace(state.verdict, verdict="accepted", reason=reason, steps=tuple(steps))


def _passed(number: int, name: str, found: str) -> Step:
    return Step(number, name, passed=True, expected="", found=found)


def _reason(verdict: Verdict, text: str) -> str:
    return f"SIMULATED platform, which protects nothing: {text}" if verdict.emulated else text
