"""What we say of simulated quotes, beside dcap-qvl and Intel's quote verification library."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from inclavare.sgx import Policy, verify
from inclavare.sgx.tcb import REVOKED, STATUSES
from tests import simulated
from tests.verification_cases import CASES, Case

PERMISSIVE = frozenset(STATUSES) - {REVOKED}


@pytest.fixture(scope="module")
def made() -> dict[str, simulated.Made]:
    return {name: simulated.make(case.recipe) for name, case in CASES.items()}


def trusted_root(case: Case, made: simulated.Made) -> bytes:
    return simulated.other_root(made.root) if case.other_root else made.root


@pytest.mark.parametrize("name", CASES)
def test_dcap_qvl_says_what_the_table_says(name: str, made: dict[str, simulated.Made]) -> None:
    dcap_qvl = pytest.importorskip("dcap_qvl", reason="needs dcap-qvl, of the extra dev")
    case, material = CASES[name], made[name]
    collateral = dcap_qvl.QuoteCollateralV3.from_json(material.document())
    root = simulated.der(trusted_root(case, material))
    try:
        report = dcap_qvl.verify_with_root_ca(material.quote, collateral, root, case.at)
        answer = " ".join((report.status, *report.advisory_ids))
    except ValueError as error:
        answer = str(error)
    if case.dcap_qvl.split()[:1] and case.dcap_qvl.split()[0] in STATUSES:
        assert answer == case.dcap_qvl
    else:
        assert answer.split()[0] not in STATUSES
        assert case.dcap_qvl in answer


@pytest.mark.parametrize("name", CASES)
def test_intels_library_says_what_the_table_says(name: str, made: dict[str, simulated.Made]) -> None:
    qvl = pytest.importorskip(
        "sgx_dcap_quote_verify", reason="needs sgx-dcap-quote-verify-python, which exists for Python up to 3.11"
    )
    case, material = CASES[name], made[name]
    root = material.root.decode()
    fields = material.collateral
    signatures = {"tcb_info": "tcbInfo", "qe_identity": "enclaveIdentity"}
    documents = {
        field: f'{{"{member}":{fields[field]},"signature":"{fields[f"{field}_signature"]}"}}'
        for field, member in signatures.items()
    }
    result = qvl.verify(
        trusted_root_ca_certificate=trusted_root(case, material).decode(),
        pck_certificate=material.pck,
        pck_signing_chain=material.ca + root,
        root_ca_crl=fields["root_ca_crl"],
        intermediate_ca_crl=fields["pck_crl"],
        tcb_info=documents["tcb_info"],
        tcb_signing_chain=fields["tcb_info_issuer_chain"],
        quote=material.quote,
        qe_identity=documents["qe_identity"],
        expiration_date=datetime.fromtimestamp(case.at, UTC),
    )
    parts = {
        "pck": result.pck_certificate_status,
        "tcb": result.tcb_info_status,
        "qe": result.qe_identity_status,
        "quote": result.quote_status,
    }
    said = {part: status.name.removeprefix("STATUS_") for part, status in parts.items()}
    assert " ".join(f"{part}={status}" for part, status in said.items() if status != "OK") == case.qvl


def test_what_both_oracles_accept_has_their_status_here() -> None:
    agreed = {
        name: case.dcap_qvl.split()[0]
        for name, case in CASES.items()
        if case.dcap_qvl.split()[:1] != [] and case.dcap_qvl.split()[0] in STATUSES
        if case.qvl == "" or (case.qvl.startswith("quote=TCB_") and "MISMATCH" not in case.qvl)
    }
    assert len(agreed) > 15
    assert agreed == {name: CASES[name].ours for name in agreed}


def test_a_simulated_quote_is_refused_under_intels_root_by_all(made: dict[str, simulated.Made]) -> None:
    dcap_qvl = pytest.importorskip("dcap_qvl", reason="needs dcap-qvl, of the extra dev")
    material = made["baseline"]
    verdict = verify(material.quote, material.document(), simulated.NOW, Policy(accepted_statuses=PERMISSIVE))
    assert (verdict.verdict, verdict.failed_step, verdict.emulated) == ("refused", "trusted root", True)
    with pytest.raises(ValueError, match="Verification failed"):
        dcap_qvl.verify(
            material.quote, dcap_qvl.QuoteCollateralV3.from_json(json.dumps(material.collateral)), simulated.NOW
        )
