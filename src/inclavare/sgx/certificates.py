"""Certificates and revocation lists of SGX's attestation PKI, as values.

All of them are ECDSA on P-256 with SHA-256, in chains of two or three; what is not so is refused here, as are critical
extensions that we do not know. Parsing and arithmetic are the cryptography package's, old (38) or new. Certificates are
remembered by their bytes, because most of a chain is the same in every quote. Nothing here knows the time or whom to
trust: see `verification`.
"""

from __future__ import annotations

import binascii
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from inclavare.errors import AttestationError

SGX_EXTENSION_OID = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_KNOWN_EXTENSIONS = {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, SGX_EXTENSION_OID}
_MAX_CERTIFICATES = 8  # a chain has three
_MAX_CERTIFICATE_SIZE = 1 << 16
_MAX_CRL_SIZE = 1 << 22  # room for 100,000 revoked certificates
_NUMBER_SIZE = 32
_Value = TypeVar("_Value")
_PEM = re.compile(rb"\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")
_PEM_CRL = re.compile(rb"\s*-----BEGIN X509 CRL-----([A-Za-z0-9+/=\s]+)-----END X509 CRL-----\s*\Z")
# What the cryptography package raises for malformed input, as its parts are looked at.
MALFORMED = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """What we use of an X.509 certificate; times are unix seconds, `key` is x and y, 32 bytes each, big endian."""

    der: bytes
    subject: x509.Name
    issuer: x509.Name
    serial: int
    not_before: int
    not_after: int
    key: bytes
    signs_certificates: bool
    signs_crls: bool
    sgx_extension: bytes | None
    _public_key: ec.EllipticCurvePublicKey
    _tbs: bytes
    _signature: bytes

    @property
    def common_name(self) -> str:
        """The subject's common name; empty if there is none."""
        return _common_name(self.subject)

    def signed(self, signature: bytes, data: bytes) -> bool:
        """Tell whether `signature` (r and s, 64 bytes) is one of `data` by this certificate's key."""
        return verify_raw(self._public_key, signature, data)

    def issued(self, other: Certificate) -> bool:
        """Tell whether the signature in `other` is by this certificate's key."""
        return _issued(self, other)

    def issued_crl(self, crl: Crl) -> bool:
        """Tell whether the signature in `crl` is by this certificate's key."""
        return _issued(self, crl)


@dataclass(frozen=True, slots=True, eq=False)
class Crl:
    """What we use of a revocation list; times are unix seconds."""

    der: bytes
    issuer: x509.Name
    this_update: int
    next_update: int
    revoked: frozenset[int]  # serial numbers
    _tbs: bytes
    _signature: bytes

    @property
    def issuer_name(self) -> str:
        """The issuer's common name; empty if there is none."""
        return _common_name(self.issuer)


def parse_chain(data: bytes, path: str) -> tuple[Certificate, ...]:
    """Return the certificates in `data`, PEM one after the other, as they come; white space and final NULs are allowed.

    Raises AttestationError under `path`.
    """
    parts = split_pem(data, path)
    return tuple(parse_certificate(der, f"{path}[{index}]") for index, der in enumerate(parts))


def split_pem(data: bytes, path: str) -> list[bytes]:
    """Return the DER of the certificates in `data`, as `parse_chain` reads them."""
    data = data.rstrip(b"\0")
    if len(data) > _MAX_CERTIFICATES * _MAX_CERTIFICATE_SIZE:
        raise AttestationError(path, f"expected PEM certificates, found {len(data)} bytes")
    certificates: list[bytes] = []
    offset = 0
    while offset < len(data):
        match = _PEM.match(data, offset)
        if match is None or len(certificates) == _MAX_CERTIFICATES:
            raise AttestationError(
                path, f"at offset {offset}: expected at most {_MAX_CERTIFICATES} certificates in PEM and no more"
            )
        certificates.append(_base64(match[1], path))
        offset = match.end()
    if not certificates:
        raise AttestationError(path, "expected certificates in PEM, found none")
    return certificates


def parse_certificate(der: bytes, path: str) -> Certificate:
    """Return the certificate that `der` is. Raises AttestationError under `path`."""
    if len(der) > _MAX_CERTIFICATE_SIZE:
        raise AttestationError(path, f"expected at most {_MAX_CERTIFICATE_SIZE} bytes, found {len(der)}")
    return _guarded(_certificate, der, path, "an X.509 certificate")


def parse_trusted_root(data: bytes) -> Certificate:
    """Return the one certificate in `data`, PEM or DER, to be trusted as root. Raises AttestationError."""
    if not data.lstrip().startswith(b"-----"):
        return parse_certificate(data, "root")
    chain = parse_chain(data, "root")
    if len(chain) != 1:
        raise AttestationError("root", f"expected one certificate, found {len(chain)}")
    return chain[0]


def parse_crl(data: bytes, path: str) -> Crl:
    """Return the revocation list in `data`: DER, PEM or hexadecimal DER. Raises AttestationError under `path`."""
    if len(data) > 2 * _MAX_CRL_SIZE:
        raise AttestationError(path, f"expected at most {_MAX_CRL_SIZE} bytes, found {len(data)}")
    match = _PEM_CRL.match(data.rstrip(b"\0"))
    if match is not None:
        data = _base64(match[1], path)
    elif data[:2] in {b"30", b"0x"}:
        try:
            data = bytes.fromhex(data.decode("ascii").strip().removeprefix("0x"))
        except ValueError as error:
            raise AttestationError(path, "expected hexadecimal digits") from error
    return _guarded(_crl, data, path, "a revocation list")


def load_key(point: bytes, path: str) -> ec.EllipticCurvePublicKey:
    """Return the P-256 key of `point`, x and y. Raises AttestationError for a point that is not on the curve."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + point)
    except ValueError as error:
        raise AttestationError(path, f"expected a point of P-256, found {point.hex()}") from error


def verify_raw(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    """Tell whether `signature` (r and s, 64 bytes) is one of `data` by `key`, ECDSA with SHA-256."""
    r = int.from_bytes(signature[:_NUMBER_SIZE], "big")
    s = int.from_bytes(signature[_NUMBER_SIZE:], "big")
    return _verify_der(key, encode_dss_signature(r, s), data)


@lru_cache(maxsize=128)
def _issued(issuer: Certificate, issue: Certificate | Crl) -> bool:
    """Remember who issued what: the values never change, and are compared by identity."""
    return _verify_der(issuer._public_key, issue._signature, issue._tbs)  # noqa: SLF001  # of this module's classes


def _verify_der(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data, _ECDSA_SHA256)
    except InvalidSignature:
        return False
    return True


def _guarded(parse: Callable[[bytes], _Value], data: bytes, path: str, expected: str) -> _Value:
    try:
        return parse(data)
    except AttestationError as error:
        raise AttestationError(path, error.message) from error
    except MALFORMED as error:
        raise AttestationError(path, f"expected {expected}: {error}") from error


@lru_cache(maxsize=64)
def _certificate(der: bytes) -> Certificate:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd names and numbers, which compare as others do
        return _read_certificate(x509.load_der_x509_certificate(der), der)


def _read_certificate(parsed: x509.Certificate, der: bytes) -> Certificate:
    key = parsed.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AttestationError("", "expected a key on P-256")
    _require_ecdsa(parsed.signature_algorithm_oid)
    numbers = key.public_numbers()
    constraints = usage = sgx = None
    for extension in parsed.extensions:
        if extension.critical and extension.oid not in _KNOWN_EXTENSIONS:
            raise AttestationError("", f"cannot obey its critical extension {extension.oid.dotted_string}")
        value = extension.value
        if isinstance(value, x509.BasicConstraints):
            constraints = value
        elif isinstance(value, x509.KeyUsage):
            usage = value
        elif isinstance(value, x509.UnrecognizedExtension) and extension.oid == SGX_EXTENSION_OID:
            sgx = value.value
    is_ca = constraints is not None and constraints.ca
    return Certificate(
        der=der,
        subject=parsed.subject,
        issuer=parsed.issuer,
        serial=parsed.serial_number,
        not_before=unix_time(parsed, "not_valid_before"),
        not_after=unix_time(parsed, "not_valid_after"),
        key=numbers.x.to_bytes(_NUMBER_SIZE, "big") + numbers.y.to_bytes(_NUMBER_SIZE, "big"),
        signs_certificates=is_ca and usage is not None and usage.key_cert_sign,
        signs_crls=is_ca and usage is not None and usage.crl_sign,
        sgx_extension=sgx,
        _public_key=key,
        _tbs=parsed.tbs_certificate_bytes,
        _signature=parsed.signature,
    )


@lru_cache(maxsize=16)
def _crl(der: bytes) -> Crl:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _read_crl(x509.load_der_x509_crl(der), der)


def _read_crl(parsed: x509.CertificateRevocationList, der: bytes) -> Crl:
    _require_ecdsa(parsed.signature_algorithm_oid)
    for extension in parsed.extensions:
        if extension.critical:
            raise AttestationError("", f"cannot obey its critical extension {extension.oid.dotted_string}")
    return Crl(
        der=der,
        issuer=parsed.issuer,
        this_update=unix_time(parsed, "last_update"),
        next_update=unix_time(parsed, "next_update"),
        revoked=frozenset(entry.serial_number for entry in parsed),
        _tbs=parsed.tbs_certlist_bytes,
        _signature=parsed.signature,
    )


def _require_ecdsa(oid: x509.ObjectIdentifier) -> None:
    if oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise AttestationError("", f"expected a signature by ECDSA with SHA-256, found algorithm {oid.dotted_string}")


def unix_time(parsed: x509.Certificate | x509.CertificateRevocationList, name: str) -> int:
    """Return a time in unix seconds; cryptography 42 began to call it `name_utc`, and says that `name` will go."""
    if hasattr(parsed, f"{name}_utc"):
        time = getattr(parsed, f"{name}_utc")
    else:
        time = getattr(parsed, name)
        time = time and time.replace(tzinfo=UTC)
    if not isinstance(time, datetime):
        raise AttestationError("", f"has no {name}")
    return int(time.timestamp())


def _common_name(name: x509.Name) -> str:
    names = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _base64(data: bytes, path: str) -> bytes:
    try:
        return binascii.a2b_base64(b"".join(data.split()), strict_mode=True)
    except binascii.Error as error:
        raise AttestationError(path, f"expected base64 in PEM: {error}") from error
