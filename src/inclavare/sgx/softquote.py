"""The quoting enclave of the software platform: quotes of version 3, made as DCAP's quoting enclave makes them.

The attestation key comes from the platform's seed. What vouches for it is a report of the quoting enclave, signed by
the PCK, whose certificate chain is given: without one there are no quotes, as on hardware that was never registered. A
quote is genuine only under the root of that chain, whose names are to say SIMULATED.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from inclavare.errors import EnclaveError
from inclavare.sgx.arch import Report, ReportBody, TargetInfo
from inclavare.sgx.platform_protocol import NoCertificateError
from inclavare.sgx.quote import (
    CERT_PCK_CHAIN,
    CertificationData,
    QEReportCertification,
    Quote,
    QuoteHeader,
    encode_quote,
)
from inclavare.sgx.softkeys import QUOTING_ENCLAVE, REPORT_BODY_SIZE, SoftKeys

PCE_SVN = 1
ATT_KEY_ID_SIZE = 256
ALGORITHM_ECDSA_P256 = 2

_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_AUTH_DATA = bytes(range(32))  # what Intel's quoting enclave has there
_NUMBER_SIZE = 32


@dataclass(frozen=True, slots=True)
class Certified:
    """The provisioning certification key (PCK) and its certificates: PEM, from the PCK's to the root's."""

    key: ec.EllipticCurvePrivateKey
    chain: bytes


class SoftPlatform:
    """The software platform as `platform_protocol.Platform`: `certified` is None on one without a PCK certificate."""

    def __init__(self, keys: SoftKeys, certified: Certified | None) -> None:
        self._keys = keys
        self._certified = certified
        self._attestation_key = p256_key(keys.secret("attestation key"))
        self._size = 0

    def att_key_id(self) -> bytes:
        """Return sgx_att_key_id_ext_t: whose quoting enclave this is, and the algorithm of its key."""
        identity = bytes(4) + (32).to_bytes(2, "little") + QUOTING_ENCLAVE.mrsigner + bytes(16)
        identity += QUOTING_ENCLAVE.isvprodid.to_bytes(4, "little")
        identity += bytes(16 + 64 + 16)  # extended product id, CONFIGID, family id
        return (identity + ALGORITHM_ECDSA_P256.to_bytes(4, "little")).ljust(ATT_KEY_ID_SIZE, b"\0")

    def qe_target_info(self) -> bytes:
        """Return the quoting enclave's TARGETINFO."""
        return QUOTING_ENCLAVE.target_info().to_bytes()

    def pub_key_id(self) -> bytes:
        """Return the SHA-256 of the attestation key. Raises NoCertificateError."""
        self._require_certified()
        return hashlib.sha256(_point(self._attestation_key)).digest()

    def quote_size(self) -> int:
        """Return the size of a quote. Raises NoCertificateError."""
        if not self._size:
            self._size = len(self._quote(ReportBody()))
        return self._size

    def quote(self, report: bytes) -> bytes:
        """Return the quote of a report for the quoting enclave. Raises InvalidReportError, NoCertificateError."""
        checked = Report.from_bytes(report)
        self._keys.check_report(checked, QUOTING_ENCLAVE.target_info())
        return self._quote(ReportBody.from_bytes(report[:REPORT_BODY_SIZE]))

    def qe_report(self, target_info: bytes, reportdata: bytes) -> bytes:
        """Return a report of the quoting enclave."""
        return self._keys.report(QUOTING_ENCLAVE, TargetInfo.from_bytes(target_info), reportdata).to_bytes()

    def launch_token(self, mrenclave: bytes, modulus: bytes, attributes: bytes) -> bytes:
        """Return an EINITTOKEN. Raises LaunchRefusedError."""
        return self._keys.launch_token(mrenclave, modulus, attributes)

    def _require_certified(self) -> Certified:
        if self._certified is None:
            raise NoCertificateError("the software platform has no PCK certificate", "It is pck.pem, beside the seed.")
        return self._certified

    def _quote(self, body: ReportBody) -> bytes:
        certified = self._require_certified()
        attestation_key = _point(self._attestation_key)
        reportdata = hashlib.sha256(attestation_key + _AUTH_DATA).digest() + bytes(32)
        # On hardware the certification enclave checks this report's MAC; here both are one program.
        report = self._keys.report(QUOTING_ENCLAVE, QUOTING_ENCLAVE.target_info(), reportdata)
        qe_body = report.to_bytes()[:REPORT_BODY_SIZE]
        user_data = self._keys.secret("quoting enclave id")[:16] + bytes(4)
        unsigned = Quote(
            QuoteHeader(qe_svn=QUOTING_ENCLAVE.isvsvn, pce_svn=PCE_SVN, user_data=user_data),
            body,
            bytes(64),
            attestation_key,
            QEReportCertification(
                ReportBody.from_bytes(qe_body),
                raw_signature(certified.key, qe_body),
                _AUTH_DATA,
                CertificationData(CERT_PCK_CHAIN, certified.chain),
            ),
        )
        return encode_quote(replace(unsigned, signature=raw_signature(self._attestation_key, unsigned.signed())))


def p256_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the private key that 32 secret bytes make; all secrets but one in 2**32 make a key of their own."""
    if len(secret) != _NUMBER_SIZE:
        raise EnclaveError(f"a key is made of {_NUMBER_SIZE} bytes, found {len(secret)}")
    return ec.derive_private_key(int.from_bytes(secret, "big") % (_P256_ORDER - 1) + 1, ec.SECP256R1())


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(_NUMBER_SIZE, "big") + numbers.y.to_bytes(_NUMBER_SIZE, "big")


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Return the ECDSA signature (SHA-256) as quotes and collateral have it: r and s, 64 bytes."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(_NUMBER_SIZE, "big") + s.to_bytes(_NUMBER_SIZE, "big")
