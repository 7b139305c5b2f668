from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from inclavare.cli.runectl import main
from inclavare.errors import AttestationError
from inclavare.sgx.ias import check_ias_report, split_response
from tests import simulated

FILE = Path(__file__).parents[2] / "vectors/attestation/ias/response.http"
RESPONSE = FILE.read_bytes()
BODY, SIGNATURE, CERTIFICATES = split_response(RESPONSE)
TIME = 1580382039 + 60  # a minute after the report
EXPIRY = 1795167418  # of the signing certificate: 2026-11-20T09:36:58Z


def refused(
    body: bytes = BODY, signature: str = SIGNATURE, certificates: str = CERTIFICATES, now: int = TIME
) -> AttestationError:
    with pytest.raises(AttestationError) as error:
        check_ias_report(body, signature, certificates, now)
    return error.value


def test_a_genuine_report_says_what_intel_said() -> None:
    report = check_ias_report(BODY, SIGNATURE, CERTIFICATES, TIME)
    assert (report.id, report.version) == ("87128901495989080043954525461315810896", 3)
    assert (report.status, report.advisory_ids, report.nonce) == ("OK", (), None)
    assert report.timestamp == 1580382039
    assert report.quote.epid_group_id.hex() == "860b0000"
    assert report.quote.body.mrsigner.hex().startswith("30e7aa01bd6541dc")
    assert not report.quote.body.debug
    assert report.quote.signature == b""


def test_the_file_may_end_in_a_line_feed() -> None:
    assert split_response(RESPONSE + b"\n") == (BODY, SIGNATURE, CERTIFICATES)


def test_a_report_is_checked_at_a_time_of_its_own() -> None:
    assert check_ias_report(BODY, SIGNATURE, CERTIFICATES, EXPIRY)
    assert "expected a certificate valid from 2016-11-22T09:36:58Z" in str(refused(now=EXPIRY + 1))
    assert refused(now=1580382038).path == "timestamp"
    assert refused(now=0).path == "certificates"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"body": BODY + b" "}, "signature"),
        ({"body": BODY.replace(b'"OK"', b'"KO"')}, "signature"),
        ({"signature": "A" * 344}, "signature"),
        ({"signature": "?"}, "signature"),
        ({"certificates": ""}, "certificates"),
        ({"certificates": CERTIFICATES[: len(CERTIFICATES) // 3]}, "certificates"),
        ({"certificates": CERTIFICATES + CERTIFICATES}, "certificates"),
    ],
)
def test_what_is_forged_is_refused(change: dict[str, object], path: str) -> None:
    assert refused(**change).path == path  # type: ignore[arg-type]


def test_another_authority_is_not_trusted_unless_it_is_given() -> None:
    key = rsa.generate_private_key(65537, 2048)
    certificate = simulated.rsa_certificate("Simulated Report Signing CA", key)
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    signature = base64.b64encode(key.sign(BODY, padding.PKCS1v15(), hashes.SHA256())).decode()
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert refused(signature=signature, certificates=pem + pem, now=simulated.NOW).path == "certificates"
    report = check_ias_report(BODY, signature, pem + pem, simulated.NOW, hashlib.sha256(spki).digest())
    assert report.status == "OK"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"", "response"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "response.x-iasreport-signature"),
        (b"HTTP/1.1 200 OK\r\nX-IASReport-Signature: a\r\n\r\n{}", "response.x-iasreport-signing-certificate"),
    ],
)
def test_a_response_needs_its_headers(data: bytes, path: str) -> None:
    with pytest.raises(AttestationError) as error:
        split_response(data)
    assert error.value.path == path


@given(st.binary(max_size=300), st.text(max_size=50), st.text(max_size=50))
def test_senseless_input_raises_only_our_error(body: bytes, signature: str, certificates: str) -> None:
    for some in (certificates, CERTIFICATES):
        with pytest.raises(AttestationError):
            check_ias_report(body, signature, some, TIME)


def test_runectl_prints_a_genuine_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify-ias-report", str(FILE), "--at", "2020-02-01T00:00:00Z"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "GENUINE, signed by Intel's attestation service"
    assert "status:               OK" in lines
    assert main(["verify-ias-report", str(FILE), "--at", str(TIME), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epid_group_id"] == "860b0000"
    assert main(["verify-ias-report", str(FILE), "--at", str(EXPIRY + 1)]) == 1
    assert capsys.readouterr().err.startswith("runectl: certificates: expected a certificate valid from")
