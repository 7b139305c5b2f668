"""Reports of Intel's attestation service for EPID, which is no more: what was signed then can still be checked.

The service answered with a JSON body, its signature (RSA, PKCS#1 v1.5 with SHA-256, over the exact bytes of the body)
in a header, and the signer's certificates in another. The chain ends in "Intel SGX Attestation Report Signing CA",
whose key is built in. The signing certificate has ended on 2026-11-20: ask at the time of the report.

Genuine is not acceptable: status and quote are for the caller to judge. Follows "Attestation Service for Intel Software
Guard Extensions, API Documentation", "Attestation Verification Report".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from inclavare.errors import AttestationError
from inclavare.sgx.certificates import MALFORMED, split_pem, unix_time
from inclavare.sgx.quote import EpidQuote, parse_epid_quote
from inclavare.sgx.strict_json import load
from inclavare.sgx.verdict import date_text

# SHA-256 of the SubjectPublicKeyInfo of "Intel SGX Attestation Report Signing CA".
INTEL_REPORT_CA: Final = bytes.fromhex("a9beeb83bb1222c108b436bdd82334e5cf380d61039dae11db95272343850394")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?\Z", re.ASCII)
_MAX_VERSION = 0xFFFF
_MAX_HEADERS = 1 << 16


@dataclass(frozen=True, slots=True)
class IasReport:
    """What a genuine report says."""

    id: str
    timestamp: int  # unix seconds
    version: int  # of the service's interface
    status: str  # isvEnclaveQuoteStatus: OK, GROUP_OUT_OF_DATE, ...
    advisory_ids: tuple[str, ...]
    nonce: str | None
    quote: EpidQuote  # without its signature


def check_ias_report(
    body: bytes, signature: str, certificates: str | bytes, now: int, ca: bytes = INTEL_REPORT_CA
) -> IasReport:
    """Return the report in `body`, once its signature, its certificates and the time `now` are proved right.

    `signature` is base64, `certificates` PEM, signer first, URL-encoded or not. `ca` is the SHA-256 of the trusted
    authority's SubjectPublicKeyInfo. Raises AttestationError, which names what failed.
    """
    authority, signer = _chain(certificates, ca)
    for certificate in (authority, signer):
        start, end = unix_time(certificate, "not_valid_before"), unix_time(certificate, "not_valid_after")
        if not start <= now <= end:
            expected = f"a certificate valid from {date_text(start)} to {date_text(end)}"
            raise AttestationError("certificates", f"expected {expected}, found the time {date_text(now)}")
    try:
        raw = base64.b64decode(signature.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise AttestationError("signature", "expected base64") from error
    if not _signed(signer, raw, body):
        raise AttestationError("signature", f"expected one of these {len(body)} bytes, found another")
    report = _report(body)
    if report.timestamp > now:
        raise AttestationError(
            "timestamp", f"expected a time before {date_text(now)}, found {date_text(report.timestamp)}"
        )
    return report


def split_response(data: bytes) -> tuple[bytes, str, str]:
    """Return body, signature and certificates of a response as the service sent it, HTTP headers included.

    Raises AttestationError for one without the two headers.
    """
    head, separator, body = data.partition(b"\r\n\r\n")
    if len(head) > _MAX_HEADERS or not separator:
        raise AttestationError("response", "expected HTTP headers, an empty line and a body")
    headers = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    missing = [name for name in ("x-iasreport-signature", "x-iasreport-signing-certificate") if name not in headers]
    if missing:
        raise AttestationError(f"response.{missing[0]}", "missing")
    # What follows the body, a line feed for example, is the file's.
    size = headers.get("content-length", "")
    if size.isascii() and size.isdecimal() and len(size) < 10:
        body = body[: int(size)]
    return body, headers["x-iasreport-signature"], headers["x-iasreport-signing-certificate"]


def _chain(certificates: str | bytes, ca: bytes) -> tuple[x509.Certificate, x509.Certificate]:
    pem = certificates.encode("utf-8", "surrogatepass") if isinstance(certificates, str) else certificates
    parts = split_pem(unquote_to_bytes(pem) if b"%" in pem else pem, "certificates")
    if len(parts) != 2:
        raise AttestationError("certificates", f"expected those of a signer and its authority, found {len(parts)}")
    try:
        signer, authority = map(x509.load_der_x509_certificate, parts)
        found = hashlib.sha256(
            authority.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        ).digest()
        issued = signer.issuer == authority.subject and _signed(
            authority, signer.signature, signer.tbs_certificate_bytes
        )
    except MALFORMED as error:
        raise AttestationError("certificates", f"expected X.509 certificates: {error}") from error
    if found != ca:
        raise AttestationError("certificates", f"expected an authority with the key {ca.hex()}, found {found.hex()}")
    if not issued:
        raise AttestationError("certificates", "expected a signer that the authority signed, found another")
    return authority, signer


def _signed(signer: x509.Certificate, signature: bytes, data: bytes) -> bool:
    key = signer.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise AttestationError("certificates", "expected RSA keys")
    try:
        key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def _report(body: bytes) -> IasReport:
    document = load(body, "report")
    quote = document.member("isvEnclaveQuoteBody")
    try:
        raw = base64.b64decode(quote.text(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise AttestationError(quote.path, "expected base64") from error
    advisories = document.optional("advisoryIDs")
    nonce = document.optional("nonce")
    moment = document.member("timestamp")
    try:
        if not _TIME.match(moment.text()):
            raise AttestationError(moment.path, "expected a time as 2019-11-16T17:23:27.854380")
        timestamp = int(datetime.fromisoformat(moment.text()).replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise AttestationError(moment.path, "expected a time as 2019-11-16T17:23:27.854380") from error
    return IasReport(
        document.member("id").text(),
        timestamp,
        document.member("version").integer(_MAX_VERSION),
        document.member("isvEnclaveQuoteStatus").text(),
        () if advisories is None else tuple(item.text() for item in advisories.items()),
        None if nonce is None else nonce.text(),
        parse_epid_quote(raw),
    )
