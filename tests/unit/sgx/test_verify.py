"""Verification of simulated quotes: everything that can be wrong, and the policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inclavare.errors import AttestationError
from inclavare.sgx import Policy, parse_collateral, parse_quote, verify
from inclavare.sgx.tcb import REVOKED, STATUSES
from inclavare.sgx.verdict import Verdict
from tests import simulated
from tests.simulated import NOW, Made, Recipe
from tests.verification_cases import CASES

ANY_STATUS = frozenset(STATUSES) - {REVOKED}


@pytest.fixture(scope="module")
def made() -> Made:
    return simulated.make()


def judge(made: Made, **policy: object) -> Verdict:
    values = {"trusted_root": made.root, "allow_emulated": True} | policy
    return verify(made.quote, made.document(), NOW, Policy(**values))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_each_thing_that_can_be_wrong_has_its_verdict(name: str) -> None:
    case = CASES[name]
    material = simulated.make(case.recipe)
    root = simulated.other_root(material.root) if case.other_root else material.root
    policy = Policy(trusted_root=root, allow_emulated=True, accepted_statuses=ANY_STATUS)
    verdict = verify(material.quote, material.document(), case.at, policy)
    if isinstance(case.ours, str):
        assert (verdict.verdict, verdict.status, verdict.failed_step) == ("accepted", case.ours, None)
        assert (verdict.emulated, verdict.root, verdict.cause) == (True, "simulated", "")
        assert verdict.reason.startswith("SIMULATED")
    else:
        assert (verdict.cause, verdict.failed_step) == case.ours
        assert verdict.verdict == ("unknown" if case.ours[0] == "cannot tell" else "refused")
        failed = next(step for step in verdict.steps if step.passed is False)
        assert failed.expected
        assert failed.found


def test_a_simulated_platform_needs_both_its_root_and_permission(made: Made) -> None:
    assert judge(made).verdict == "accepted"
    unpermitted = judge(made, allow_emulated=False)
    assert (unpermitted.verdict, unpermitted.failed_step, unpermitted.emulated) == ("refused", "emulation", True)
    assert (unpermitted.cause, unpermitted.status) == ("genuine but unacceptable", "UpToDate")
    rootless = judge(made, trusted_root=None)
    assert (rootless.verdict, rootless.failed_step, rootless.emulated) == ("refused", "trusted root", True)
    assert "it needs its root given, and emulation allowed" in rootless.reason


@pytest.mark.parametrize("name", ["SIMULATED SGX", "My simulated SGX"])
def test_emulation_is_seen_however_it_is_written(name: str) -> None:
    verdict = judge(simulated.make(Recipe(name=name)), allow_emulated=False)
    assert (verdict.emulated, verdict.failed_step) == (True, "emulation")


def test_a_given_root_that_does_not_say_simulated_is_trusted_and_named_other() -> None:
    verdict = judge(simulated.make(Recipe(name="Test SGX")), allow_emulated=False)
    assert (verdict.verdict, verdict.emulated, verdict.root) == ("accepted", False, "other")


def test_the_trusted_root_may_be_der(made: Made) -> None:
    assert judge(made, trusted_root=simulated.der(made.root)).verdict == "accepted"


def test_values_that_are_parsed_already_give_the_same_verdict(made: Made) -> None:
    policy = Policy(trusted_root=made.root, allow_emulated=True)
    parsed = verify(parse_quote(made.quote), parse_collateral(made.document()), NOW, policy)
    assert parsed == judge(made)


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_a_quote_that_only_names_its_platform_needs_a_pck_certificate_beside_it(kind: int) -> None:
    material = simulated.make(Recipe(certification=kind))
    collateral = material.collateral | {"pck_certificate_chain": material.pck + material.ca + material.root.decode()}
    assert judge(replace(material, collateral=collateral)).verdict == "accepted"


def test_what_the_quote_says_is_in_the_verdict(made: Made) -> None:
    verdict = judge(made)
    assert (verdict.mrenclave, verdict.mrsigner) == (b"e" * 32, b"s" * 32)
    assert (verdict.isvprodid, verdict.isvsvn, verdict.report_data) == (7, 3, b"d" * 64)
    assert (verdict.debug, verdict.fmspc) == (False, bytes.fromhex("00906ed50000"))
    assert verdict.expires == NOW + 30 * 86400


@pytest.mark.parametrize(
    ("recipe", "policy", "step"),
    [
        (Recipe(), {"isvprodid": 7, "min_isvsvn": 3, "report_data": b"d" * 64}, None),
        (Recipe(), {"isvprodid": 8}, "product id"),
        (Recipe(), {"min_isvsvn": 4}, "SVN"),
        (Recipe(), {"report_data": b"d" * 63}, "report data"),
        (Recipe(), {"mrenclaves": frozenset({b"s" * 32, b"e" * 32})}, None),
        (Recipe(), {"mrenclaves": frozenset()}, "MRENCLAVE"),
        (Recipe(), {"mrsigners": frozenset({b"e" * 32})}, "MRSIGNER"),
        (Recipe(), {"accepted_statuses": frozenset()}, "status"),
        (Recipe(tcb_status="OutOfDate"), {}, "status"),
        (Recipe(tcb_status="OutOfDate"), {"accepted_statuses": frozenset({"OutOfDate"})}, None),
        (Recipe(advisories=("A", "B")), {"refused_advisories": frozenset({"B"})}, "advisories"),
        (Recipe(advisories=("A", "B")), {"accepted_advisories": frozenset({"A"})}, "advisories"),
        (Recipe(advisories=("A", "B")), {"accepted_advisories": frozenset({"A", "B"})}, None),
        (Recipe(), {"max_collateral_age": 30 * 86400}, None),
        (Recipe(), {"max_collateral_age": 30 * 86400 - 1}, "collateral age"),
        (Recipe(body=replace(simulated.BODY, attributes=7)), {"allow_debug": True}, None),
    ],
)
def test_a_policy_is_obeyed(recipe: Recipe, policy: dict[str, object], step: str | None) -> None:
    assert judge(simulated.make(recipe), **policy).failed_step == step


@pytest.mark.parametrize(
    ("policy", "path"),
    [
        ({"accepted_statuses": frozenset({"Revoked"})}, "accepted_statuses"),
        ({"mrenclaves": frozenset({b"short"})}, "mrenclaves"),
        ({"mrsigners": frozenset({b""})}, "mrsigners"),
        ({"report_data": bytes(65)}, "report_data"),
        ({"trusted_root": b"no certificate"}, "root"),
        ({"trusted_root": b""}, "root"),
    ],
)
def test_a_policy_that_makes_no_sense_cannot_be_made(policy: dict[str, object], path: str) -> None:
    with pytest.raises(AttestationError) as error:
        Policy(**policy)  # type: ignore[arg-type]
    assert error.value.path == path


def test_certificates_that_are_no_cas_issue_nothing() -> None:
    verdict = judge(simulated.make(Recipe(ca_may_sign=False)))
    assert (verdict.cause, verdict.failed_step) == ("not genuine", "PCK certificate chain")


def test_a_critical_extension_that_nobody_knows_is_not_passed_over() -> None:
    verdict = judge(simulated.make(Recipe(critical="1.2.3.4")))
    assert (verdict.cause, verdict.failed_step) == ("not genuine", "PCK certificate chain")
    assert "cannot obey its critical extension 1.2.3.4" in verdict.reason
