"""Quotes of the software platform, taken apart and checked with cryptography's own ECDSA."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from inclavare.errors import EnclaveError
from inclavare.sgx.arch import Report
from inclavare.sgx.platform_protocol import InvalidReportError, NoCertificateError
from inclavare.sgx.quote import CERT_PCK_CHAIN, parse_quote
from inclavare.sgx.softkeys import LAUNCH_ENCLAVE, QUOTING_ENCLAVE, SoftKeys
from inclavare.sgx.softquote import SoftPlatform, p256_key
from tests.unit.aesm.soft_platform import SEED, soft_platform


@pytest.fixture
def report() -> Report:
    return SoftKeys(SEED).report(LAUNCH_ENCLAVE, QUOTING_ENCLAVE.target_info(), bytes(range(64)))


def check(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> None:
    numbers = (int.from_bytes(signature[at : at + 32], "big") for at in (0, 32))
    key.verify(encode_dss_signature(*numbers), data, ec.ECDSA(hashes.SHA256()))


def test_a_quote_has_every_signature_that_a_verifier_asks_for(report: Report) -> None:
    platform = soft_platform()
    raw = platform.quote(report.to_bytes())
    quote = parse_quote(raw)
    assert len(raw) == platform.quote_size()
    assert quote.body.to_bytes() == report.to_bytes()[:384]
    attestation_key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + quote.attestation_key)
    check(attestation_key, quote.signature, quote.signed())
    assert quote.qe.report.reportdata == hashlib.sha256(quote.attestation_key + quote.qe.auth_data).digest() + bytes(32)
    assert quote.qe.certification.type == CERT_PCK_CHAIN
    leaf, root = x509.load_pem_x509_certificates(quote.qe.certification.data)
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    check(key, quote.qe.signature, quote.qe.report.to_bytes())
    leaf.verify_directly_issued_by(root)
    assert platform.pub_key_id() == hashlib.sha256(quote.attestation_key).digest()
    with pytest.raises(InvalidSignature):
        check(attestation_key, quote.signature, quote.signed()[:-1] + b"x")


def test_the_quoting_enclave_is_the_one_that_its_identity_names(report: Report) -> None:
    platform = soft_platform()
    qe = parse_quote(platform.quote(report.to_bytes())).qe.report
    identity = platform.att_key_id()
    assert len(identity) == 256
    assert identity[6:38] == qe.mrsigner
    assert int.from_bytes(identity[54:58], "little") == qe.isvprodid == 1
    assert int.from_bytes(identity[154:158], "little") == 2
    assert platform.qe_target_info()[:32] == qe.mrenclave
    assert not qe.debug


def test_a_forged_report_is_not_quoted(report: Report) -> None:
    with pytest.raises(InvalidReportError):
        soft_platform().quote(replace(report, mrenclave=bytes(32)).to_bytes())


def test_the_quoting_enclaves_own_report_can_be_checked_by_its_target() -> None:
    target = LAUNCH_ENCLAVE.target_info()
    report = Report.from_bytes(soft_platform().qe_report(target.to_bytes(), b"n" * 64))
    SoftKeys(SEED).check_report(report, target)
    assert (report.mrenclave, report.reportdata) == (QUOTING_ENCLAVE.mrenclave, b"n" * 64)


def test_without_a_certificate_there_is_no_quote(report: Report) -> None:
    platform = SoftPlatform(SoftKeys(SEED), None)
    assert len(platform.qe_target_info()) == 512
    for ask in (platform.pub_key_id, platform.quote_size, lambda: platform.quote(report.to_bytes())):
        with pytest.raises(NoCertificateError, match="no PCK certificate"):
            ask()


def test_a_key_is_made_of_32_bytes() -> None:
    assert p256_key(bytes(32)).private_numbers().private_value == 1
    assert p256_key(b"\xff" * 32).private_numbers().private_value
    with pytest.raises(EnclaveError, match="32 bytes, found 31"):
        p256_key(bytes(31))
