"""Verification of quotes of the world, with Intel's collateral."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inclavare.errors import AttestationError
from inclavare.sgx.collateral import FIELDS, parse_collateral, read_collateral
from inclavare.sgx.policy import Policy
from inclavare.sgx.strict_json import split_signed
from inclavare.sgx.tcb import REVOKED, STATUSES, converge, parse_qe_identity, parse_tcb_info
from inclavare.sgx.verification import STEPS, verify

VECTORS = Path(__file__).parents[2] / "vectors" / "attestation"
SETS = sorted((VECTORS / "sets").iterdir())
QVL_SAMPLE_TIME = 1577836800  # 2020-01-01
ANY_STATUS = Policy(accepted_statuses=frozenset(STATUSES) - {REVOKED}, allow_debug=True)
# What Intel's library calls the statuses.
QVL_STATUSES = {
    "SWHardeningNeeded": "TCB_SW_HARDENING_NEEDED",
    "ConfigurationAndSWHardeningNeeded": "TCB_CONFIGURATION_AND_SW_HARDENING_NEEDED",
    "OutOfDate": "TCB_OUT_OF_DATE",
}


def load_set(path: Path) -> tuple[bytes, dict[str, Any]]:
    values = json.loads(path.read_text())
    return (VECTORS / values["quote"]).read_bytes(), values


@pytest.fixture(scope="module")
def phala() -> tuple[bytes, dict[str, Any]]:
    return load_set(VECTORS / "sets/phala_sgx__eval17_v3_2025-07-04.json")


def test_there_are_many_sets() -> None:
    assert len(SETS) == 22


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_a_set_gets_the_status_that_others_gave_it(path: Path) -> None:
    quote, values = load_set(path)
    verdict = verify(quote, path.read_bytes(), values["verify_at"], ANY_STATUS)
    assert (verdict.verdict, verdict.failed_step, verdict.root, verdict.emulated) == ("accepted", None, "Intel", False)
    assert verdict.status is not None
    assert values["intel_qvl_pip_0_0_3"] == f"OK/OK/OK/{QVL_STATUSES[verdict.status]}"
    # The other verifier knows neither TCB info of version 2 nor debug enclaves.
    if not values["dcap_qvl_0_7_0"].startswith("EXC"):
        assert values["dcap_qvl_0_7_0"] == f"{verdict.status} {','.join(verdict.advisory_ids)}"


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_by_default_only_a_platform_that_is_up_to_date_is_accepted(path: Path) -> None:
    quote, values = load_set(path)
    verdict = verify(quote, path.read_bytes(), values["verify_at"])
    assert (verdict.verdict, verdict.cause, verdict.failed_step) == ("refused", "genuine but unacceptable", "status")
    assert verdict.status in QVL_STATUSES


def test_the_steps_are_numbered_and_those_after_a_failure_are_not_checked(phala: tuple[bytes, dict[str, Any]]) -> None:
    quote, values = phala
    steps = verify(quote, json.dumps(values), values["verify_at"]).steps
    assert [(step.number, step.name) for step in steps] == list(enumerate(STEPS, 1))
    failed = STEPS.index("status")
    assert [step.passed for step in steps] == [True] * failed + [False] + [None] * (len(STEPS) - failed - 1)
    assert (steps[failed].expected, steps[failed].found) == ("UpToDate", "ConfigurationAndSWHardeningNeeded")


def test_a_quote_with_certification_data_1_is_verified_with_a_pck_certificate_from_elsewhere() -> None:
    folder = VECTORS / "qvl_sample"
    read = {path.name: path.read_text() for path in folder.iterdir() if path.suffix in {".pem", ".json"}}
    tcb_info, tcb_signature = split_signed(read["tcbInfo.json"], "tcbInfo")
    qe_identity, qe_signature = split_signed(read["qeIdentity.json"], "enclaveIdentity")
    fields: dict[str, object] = {
        "pck_crl_issuer_chain": read["pckSignChain.pem"],
        "root_ca_crl": (folder / "rootCaCrl.der").read_bytes(),
        "pck_crl": read["intermediateCaCrl.pem"],
        "tcb_info_issuer_chain": read["tcbSignChain.pem"],
        "tcb_info": tcb_info,
        "tcb_info_signature": tcb_signature,
        "qe_identity_issuer_chain": read["tcbSignChain.pem"],
        "qe_identity": qe_identity,
        "qe_identity_signature": bytes.fromhex(qe_signature),
        "pck_certificate_chain": read["pckCert.pem"] + read["pckSignChain.pem"],
    }
    quote = (folder / "quote.dat").read_bytes()
    root = read["trustedRootCaCert.pem"].encode()
    verdict = verify(quote, read_collateral(fields), QVL_SAMPLE_TIME, Policy(trusted_root=root))
    # A root that is neither Intel's nor says that it is simulated is trusted because it was given, and said to be so.
    assert (verdict.verdict, verdict.status, verdict.root) == ("accepted", "UpToDate", "other")
    assert verdict.emulated is False
    without_root = verify(quote, read_collateral(fields), QVL_SAMPLE_TIME)
    assert (without_root.cause, without_root.failed_step) == ("not genuine", "trusted root")
    del fields["pck_certificate_chain"]
    unnamed = verify(quote, read_collateral(fields), QVL_SAMPLE_TIME, Policy(trusted_root=root))
    assert (unnamed.verdict, unnamed.failed_step) == ("unknown", "PCK certificate chain")


def test_a_root_that_is_given_replaces_intels(phala: tuple[bytes, dict[str, Any]]) -> None:
    quote, values = phala
    root = (VECTORS / "qvl_sample/trustedRootCaCert.pem").read_bytes()
    verdict = verify(quote, json.dumps(values), values["verify_at"], replace(ANY_STATUS, trusted_root=root))
    assert (verdict.verdict, verdict.failed_step) == ("refused", "trusted root")
    assert "Intel SGX Root CA with the key 0ba9c4c0c0c86193..." in verdict.reason


@pytest.mark.parametrize(
    ("seconds", "step"), [(-2_000_000, "times"), (2_000_000, "times"), (1 << 60, "times"), (-(1 << 60), "times")]
)
def test_collateral_of_another_time_tells_nothing(phala: tuple[bytes, dict[str, Any]], seconds: int, step: str) -> None:
    quote, values = phala
    verdict = verify(quote, json.dumps(values), values["verify_at"] + seconds, ANY_STATUS)
    assert (verdict.verdict, verdict.cause, verdict.failed_step) == ("unknown", "cannot tell", step)


def test_collateral_of_another_platform_tells_nothing(phala: tuple[bytes, dict[str, Any]]) -> None:
    _, values = phala
    quote = (VECTORS / "quotes/oe_sgx_2023.bin").read_bytes()
    verdict = verify(quote, json.dumps(values), values["verify_at"], ANY_STATUS)
    assert (verdict.verdict, verdict.failed_step) == ("unknown", "platform")
    assert "expected TCB info for FMSPC 00906ed50000, found 00a067110000" in verdict.reason


@pytest.mark.parametrize("name", ["phala_tdx_quote_v4.bin", "phala_tdx_quote_v5.bin"])
def test_a_quote_of_tdx_is_refused_as_none_of_sgx(name: str, phala: tuple[bytes, dict[str, Any]]) -> None:
    _, values = phala
    verdict = verify((VECTORS / "tdx" / name).read_bytes(), json.dumps(values), values["verify_at"])
    assert (verdict.verdict, verdict.failed_step) == ("refused", "quote format")
    assert "TDX" in verdict.reason


@pytest.mark.parametrize("field", FIELDS)
def test_collateral_must_be_complete(phala: tuple[bytes, dict[str, Any]], field: str) -> None:
    quote, values = phala
    collateral = {name: value for name, value in values["collateral"].items() if name != field}
    verdict = verify(quote, json.dumps(collateral), values["verify_at"])
    assert (verdict.verdict, verdict.failed_step) == ("unknown", "collateral format")
    assert verdict.reason.endswith(f"{field}: missing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"more": 1}, "collateral.more: not a field of collateral, which are: pck_crl_issuer_chain,"),
        ({"tcb_info": {}}, "collateral.tcb_info: expected a string, found {}"),
        ({"tcb_info": "{}"}, "collateral.tcb_info.version: missing"),
        ({"tcb_info": '{"a":1,"a":2}'}, "collateral.tcb_info: expected JSON: the name 'a' is there twice"),
        ({"tcb_info": "[" * 100_000}, "collateral.tcb_info: expected JSON"),
        ({"qe_identity": '{"version":1}'}, "collateral.qe_identity.version: expected an integer from 2 to 2, found 1"),
        ({"tcb_info_signature": "00"}, "collateral.tcb_info_signature: expected 128 hexadecimal digits, found '00'"),
        ({"root_ca_crl": "3000"}, "collateral.root_ca_crl: expected a revocation list"),
        ({"root_ca_crl": "30zz"}, "collateral.root_ca_crl: expected hexadecimal digits"),
        ({"pck_crl_issuer_chain": ""}, "collateral.pck_crl_issuer_chain: expected certificates in PEM, found none"),
        ({"pck_crl_issuer_chain": "x"}, "collateral.pck_crl_issuer_chain: at offset 0: expected at most 8"),
    ],
)
def test_malformed_collateral_is_named_by_its_path(
    phala: tuple[bytes, dict[str, Any]], change: dict[str, object], message: str
) -> None:
    values = {"collateral": {**phala[1]["collateral"], **change}}
    with pytest.raises(AttestationError) as error:
        parse_collateral(json.dumps(values))
    assert str(error.value).startswith(message)


def test_revocation_lists_may_be_hexadecimal_pem_or_der(phala: tuple[bytes, dict[str, Any]]) -> None:
    values = phala[1]["collateral"]
    der = bytes.fromhex(values["pck_crl"])
    assert read_collateral({**values, "pck_crl": der}).pck_crl.der == der
    assert read_collateral({**values, "pck_crl": values["pck_crl"].upper()}).pck_crl.der == der


NEGATIVE = {
    "qe_identity_missing_attributes": "enclaveIdentity.attributes: missing",
    "qe_identity_missing_attributesmask": "enclaveIdentity.attributesMask: missing",
    "qe_identity_missing_id": "enclaveIdentity.id: missing",
    "qe_identity_missing_issuedate": "enclaveIdentity.issueDate: missing",
    "qe_identity_missing_isvprodid": "enclaveIdentity.isvprodid: missing",
    "qe_identity_missing_isvsvn": "expected JSON",
    "qe_identity_missing_miscselect": "enclaveIdentity.miscselect: missing",
    "qe_identity_missing_miscselectmask": "enclaveIdentity.miscselectMask: missing",
    "qe_identity_missing_mrsigner": "enclaveIdentity.mrsigner: missing",
    "qe_identity_missing_nextupdate": "enclaveIdentity.nextUpdate: missing",
    "qe_identity_missing_qeidentity": "expected JSON",
    "qe_identity_missing_signature": "signature: missing",
    "qe_identity_missing_tcb_date": "enclaveIdentity.tcbLevels[0].tcbDate: missing",
    "qe_identity_missing_tcb_eval_data_num": "enclaveIdentity.tcbEvaluationDataNumber: missing",
    "qe_identity_missing_tcb_levels": "enclaveIdentity.tcbLevels: missing",
    "qe_identity_missing_tcb_status": "enclaveIdentity.tcbLevels[0].tcbStatus: missing",
    "qe_identity_missing_version": "enclaveIdentity.version: missing",
    "tcbInfoNegativeCompSvn": "tcbInfo.tcbLevels[0].tcb.sgxtcbcomp01svn: expected an integer from 0 to 255, found 257",
    "tcbInfoNegativeFloat": "tcbInfo.version: expected an integer",
    "tcbInfoNegativeIntegerOverflow": "tcbInfo.version: expected an integer",
    "tcbInfoNegativeIntegerWithSign": "tcbInfo.version: expected an integer",
    "tcbInfoNegativeInvalidIssueDate": "tcbInfo.issueDate: expected a time",
    "tcbInfoNegativeInvalidNextUpdate": "tcbInfo.nextUpdate: expected a time",
    "tcbInfoNegativeMissingNextUpdate": "tcbInfo.nextUpdate: missing",
    "tcbInfoNegativePceSvn": "tcbInfo.tcbLevels[0].tcb.pcesvn: expected an integer from 0 to 65535, found 65537",
    "tcbInfoNegativePropertyMissingLevel0": "signature: missing",
    "tcbInfoNegativePropertyMissingLevel1": "tcbInfo.version: missing",
    "tcbInfoNegativePropertyMissingLevel2": "tcbInfo.tcbLevels[0].tcbDate: missing",
    "tcbInfoNegativePropertyMissingLevel3": "tcbInfo.tcbLevels[0].tcb.pcesvn: missing",
    "tcbInfoNegativePropertyWrongTypeLevel0": "signature: expected a string",
    "tcbInfoNegativePropertyWrongTypeLevel1": "tcbInfo.fmspc: expected a string",
    "tcbInfoNegativePropertyWrongTypeLevel2": "tcbInfo.tcbLevels[0].tcbStatus: expected a string",
    "tcbInfoNegativePropertyWrongTypeLevel3": "tcbInfo.tcbLevels[0].tcb.sgxtcbcomp06svn: expected an integer",
    "tcbInfoNegativeSignature": "signature: expected 128 hexadecimal digits",
    "tcbInfoNegativeStringEscape": "tcbInfo.issueDate: expected a time",
    "tcbInfoNegativeTcbType": "tcbInfo.tcbType: expected an integer from 0 to 0, found 1",
}


@pytest.mark.parametrize("path", sorted((VECTORS / "negative_json").iterdir()), ids=lambda path: path.stem)
def test_malformed_documents_are_refused_and_good_ones_are_read(path: Path) -> None:
    name, parse = (
        ("tcbInfo", parse_tcb_info) if "tcbinfo" in path.stem.lower() else ("enclaveIdentity", parse_qe_identity)
    )

    def read() -> None:
        text, signature = split_signed(path.read_bytes(), name)
        parse(text)
        assert len(signature) == 128

    if path.stem in NEGATIVE:
        with pytest.raises(AttestationError) as error:
            read()
        assert str(error.value).startswith(NEGATIVE[path.stem])
    else:
        assert "egative" not in path.stem
        assert "missing" not in path.stem
        read()


def test_the_signed_text_is_cut_out_exactly() -> None:
    inner = '{"b" : [1,\n "}"], "signature": {"tcbInfo": 2}}'
    document = f'\n {{ "a":"\\"tcbInfo\\":" , "tcbInfo" \t: {inner} ,"signature":"{"0f" * 64}"}} '
    assert split_signed(document, "tcbInfo") == (inner, "0f" * 64)


def test_the_status_of_a_quote_is_made_of_two() -> None:
    assert {status: converge(status, "OutOfDate") for status in STATUSES} == {
        "UpToDate": "OutOfDate",
        "SWHardeningNeeded": "OutOfDate",
        "ConfigurationNeeded": "OutOfDateConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded": "OutOfDateConfigurationNeeded",
        "OutOfDate": "OutOfDate",
        "OutOfDateConfigurationNeeded": "OutOfDateConfigurationNeeded",
        "Revoked": "Revoked",
    }
    assert {converge(status, "UpToDate") for status in STATUSES} == set(STATUSES)
    assert {converge(status, "Revoked") for status in STATUSES} == {"Revoked"}
