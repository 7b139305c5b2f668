"""The certificates and the collateral of the software platform, as Intel's services give them for hardware.

All keys come from the platform's seed, so what is issued anew fits what was issued before. All certificates' names
say SIMULATED: verifiers that were not told otherwise trust Intel's root alone, and people see what they look at.

Formats: Intel's "SGX PCK Certificate and Certificate Revocation List Profile Specification" and PCS API version 4 (TCB
info version 3, QE identity version 2). No clock: times are given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from inclavare.errors import EnclaveError
from inclavare.sgx.arch import SGX_ATTR_MODE64BIT
from inclavare.sgx.softkeys import CPUSVN, QUOTING_ENCLAVE, SoftKeys
from inclavare.sgx.softquote import PCE_SVN, p256_key, raw_signature

FMSPC = b"SIMUL\0"  # the kind of platform; all software platforms are of one kind
PCEID = bytes(2)
EVALUATION = 1  # tcbEvaluationDataNumber

_NAME = "SIMULATED SGX"
_ORGANIZATION = "SIMULATED platform that protects nothing"
_SGX_EXTENSION = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_SGX_PREFIX = bytes.fromhex("2a864886f84d010d01")  # its DER
_CRL_URL = "https://simulated.invalid/crl"
_CERTIFICATE_DAYS = 30 * 365
_EARLIER = timedelta(days=1)  # clocks differ
_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
_ROOT, _CA, _PCK, _TCB_SIGNING = "root ca", "pck ca", "pck", "tcb signing"  # labels of secrets
_NAMES = {
    _ROOT: f"{_NAME} Root CA",
    _CA: f"{_NAME} PCK Processor CA",
    _PCK: f"{_NAME} PCK Certificate",
    _TCB_SIGNING: f"{_NAME} TCB Signing",
}
_PATH_LENGTHS = {_ROOT: 1, _CA: 0}  # of those that may sign certificates


@dataclass(frozen=True, slots=True)
class Issued:
    """What a platform has to show: PEM of the root, of the PCK's certificate up to the root, and the collateral.

    `collateral` has the fields of `collateral.Collateral`, each a string.
    """

    root: str
    pck_chain: str
    collateral: Mapping[str, str]


def issue(keys: SoftKeys, now: datetime, days: int, root: str = "") -> Issued:
    """Issue everything: certificates for thirty years, collateral for `days` days from `now` (with time zone).

    A `root` (PEM) that was issued before stays, so that who trusts it need not be told. Raises EnclaveError when it is
    not of these keys.
    """
    authority = _Authority(keys, now - _EARLIER)
    certificates = {_ROOT: authority.root(root)}
    for label, issuer in ((_CA, _ROOT), (_PCK, _CA), (_TCB_SIGNING, _ROOT)):
        certificates[label] = authority.certificate(label, certificates[issuer], issuer)
    pem = {label: _pem(certificate) for label, certificate in certificates.items()}
    until = now + timedelta(days=days)
    tcb_info = _compact(_tcb_info(now, until))
    qe_identity = _compact(_qe_identity(now, until))
    signer = authority.key(_TCB_SIGNING)
    collateral = {
        "pck_crl_issuer_chain": pem[_CA] + pem[_ROOT],
        "root_ca_crl": authority.revocations(_ROOT, certificates[_ROOT], until).hex(),
        "pck_crl": authority.revocations(_CA, certificates[_CA], until).hex(),
        "tcb_info_issuer_chain": pem[_TCB_SIGNING] + pem[_ROOT],
        "tcb_info": tcb_info,
        "tcb_info_signature": raw_signature(signer, tcb_info.encode()).hex(),
        "qe_identity_issuer_chain": pem[_TCB_SIGNING] + pem[_ROOT],
        "qe_identity": qe_identity,
        "qe_identity_signature": raw_signature(signer, qe_identity.encode()).hex(),
    }
    return Issued(pem[_ROOT], pem[_PCK] + pem[_CA] + pem[_ROOT], collateral)


class _Authority:
    def __init__(self, keys: SoftKeys, begin: datetime) -> None:
        self._keys = keys
        self._begin = begin

    def key(self, label: str) -> ec.EllipticCurvePrivateKey:
        return p256_key(self._keys.secret(label))

    def root(self, pem: str) -> x509.Certificate:
        if not pem:
            return self.certificate(_ROOT, None, _ROOT)
        try:
            root = x509.load_pem_x509_certificate(pem.encode())
        except ValueError as error:
            raise EnclaveError(f"the root is no certificate: {error}", "runectl platform init") from error
        if _point(root.public_key()) != _point(self.key(_ROOT).public_key()):
            raise EnclaveError("the root is of another platform than the seed beside it", "runectl platform init")
        return root

    def certificate(self, label: str, issuer: x509.Certificate | None, issuer_label: str) -> x509.Certificate:
        public, issuer_key = self.key(label).public_key(), self.key(issuer_label)
        is_ca = label in _PATH_LENGTHS
        granted = {"key_cert_sign", "crl_sign"} if is_ca else {"digital_signature", "content_commitment"}
        place = x509.DistributionPoint([x509.UniformResourceIdentifier(_CRL_URL)], None, None, None)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(label))
            .issuer_name(issuer.subject if issuer else _name(label))
            .public_key(public)
            .serial_number(int.from_bytes(self._keys.secret(f"{label} serial")[:16], "big") | 1)
            .not_valid_before(self._begin)
            .not_valid_after(self._begin + timedelta(days=_CERTIFICATE_DAYS))
            .add_extension(identifier, critical=False)
            .add_extension(x509.CRLDistributionPoints([place]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.KeyUsage(**{usage: usage in granted for usage in _USAGES}), critical=True)
            .add_extension(x509.BasicConstraints(is_ca, _PATH_LENGTHS.get(label)), critical=True)
        )
        if label == _PCK:
            extension = x509.UnrecognizedExtension(_SGX_EXTENSION, _sgx_extension(self._keys))
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    def revocations(self, label: str, issuer: x509.Certificate, until: datetime) -> bytes:
        """Return the list (DER) of what was revoked, which is nothing."""
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key(label).public_key())
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(self._begin)
            .next_update(until)
            .add_extension(x509.CRLNumber(int(self._begin.timestamp())), critical=False)
            .add_extension(identifier, critical=False)
        )
        return builder.sign(self.key(label), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _tcb_info(begin: datetime, until: datetime) -> dict[str, object]:
    level = {
        "tcb": {"sgxtcbcomponents": [{"svn": svn} for svn in CPUSVN], "pcesvn": PCE_SVN},
        "tcbDate": _utc(begin),
        "tcbStatus": "UpToDate",
    }
    return {
        "id": "SGX",
        "version": 3,
        "issueDate": _utc(begin),
        "nextUpdate": _utc(until),
        "fmspc": FMSPC.hex().upper(),
        "pceId": PCEID.hex().upper(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": EVALUATION,
        "tcbLevels": [level],
    }


def _qe_identity(begin: datetime, until: datetime) -> dict[str, object]:
    mask = ~SGX_ATTR_MODE64BIT & (1 << 64) - 1  # as Intel's: a quoting enclave may have 32 bits; XFRM is free
    level = {"tcb": {"isvsvn": QUOTING_ENCLAVE.isvsvn}, "tcbDate": _utc(begin), "tcbStatus": "UpToDate"}
    return {
        "id": "QE",
        "version": 2,
        "issueDate": _utc(begin),
        "nextUpdate": _utc(until),
        "tcbEvaluationDataNumber": EVALUATION,
        "miscselect": bytes(4).hex(),
        "miscselectMask": "FF" * 4,
        "attributes": ((QUOTING_ENCLAVE.attributes & mask).to_bytes(8, "little") + bytes(8)).hex().upper(),
        "attributesMask": (mask.to_bytes(8, "little") + bytes(8)).hex().upper(),
        "mrsigner": QUOTING_ENCLAVE.mrsigner.hex().upper(),
        "isvprodid": QUOTING_ENCLAVE.isvprodid,
        "tcbLevels": [level],
    }


def _compact(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _utc(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(label: str) -> x509.Name:
    attributes = ((NameOID.COMMON_NAME, _NAMES[label]), (NameOID.ORGANIZATION_NAME, _ORGANIZATION))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _point(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


# --- the SGX extension of a PCK certificate, DER ---------------------------------------------------------------------

_INTEGER, _OCTETS, _OID, _ENUMERATED, _SEQUENCE = 2, 4, 6, 10, 0x30


def _sgx_extension(keys: SoftKeys) -> bytes:
    components = b"".join(_entry((2, index), _number(svn)) for index, svn in enumerate(CPUSVN, 1))
    tcb = components + _entry((2, 17), _number(PCE_SVN)) + _entry((2, 18), _element(_OCTETS, CPUSVN))
    entries = [
        _entry((1,), _element(_OCTETS, keys.secret("ppid")[:16])),
        _entry((2,), _element(_SEQUENCE, tcb)),
        _entry((3,), _element(_OCTETS, PCEID)),
        _entry((4,), _element(_OCTETS, FMSPC)),
        _entry((5,), _element(_ENUMERATED, b"\0")),  # SGX type: standard
    ]
    return _element(_SEQUENCE, b"".join(entries))


def _entry(suffix: tuple[int, ...], value: bytes) -> bytes:
    return _element(_SEQUENCE, _element(_OID, _SGX_PREFIX + bytes(suffix)) + value)


def _number(value: int) -> bytes:
    return _element(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
