"""A whole attestation infrastructure made of nothing: roots, PCK, collateral and quotes, each part as a test wants it.

`Recipe` says what shall be; `make` gives a quote, its collateral and its root. All of it is genuine under that root,
save for what the recipe breaks. Certificates have every extension that Intel's library insists on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from inclavare.sgx.arch import ReportBody
from inclavare.sgx.quote import CertificationData, QEReportCertification, Quote, QuoteHeader, encode_quote

NOW = 1_764_000_000  # what is made is valid a month before and after
_DAY = 86400
_NAME = "Simulated SGX"
_SGX_OID = "1.2.840.113741.1.13.1"
_SGX_PREFIX = bytes.fromhex("2a864886f84d010d01")
ROOT, CA, PCK, TCB_SIGNING, ATTESTATION, OTHER, OTHER_ROOT = range(7)


@cache
def key(number: int) -> ec.EllipticCurvePrivateKey:
    """Return one of a handful of keys, made once."""
    return ec.derive_private_key(0xC0FFEE + number, ec.SECP256R1())


def raw_signature(signer: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(signer.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def point(private: ec.EllipticCurvePrivateKey) -> bytes:
    encoded = private.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    return encoded[1:]


def utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


QE_REPORT = ReportBody(attributes=0x15, xfrm=0xE7, mrenclave=b"q" * 32, mrsigner=b"\xaa" * 32, isvprodid=1, isvsvn=8)
BODY = ReportBody(
    attributes=0x05, xfrm=0xE7, mrenclave=b"e" * 32, mrsigner=b"s" * 32, isvprodid=7, isvsvn=3, reportdata=b"d" * 64
)
HEADER = QuoteHeader(qe_svn=8, pce_svn=13)


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Recipe:
    """What to make; functions get what would be and return what shall be."""

    components: tuple[int, ...] = (5,) * 16
    pcesvn: int = 13
    fmspc: str = "00906ED50000"
    pceid: str = "0000"
    platform_ca: bool = False
    sgx_type: int = 0
    ca_may_sign: bool = True
    critical: str = ""  # OID of a critical extension of the PCK certificate
    name: str = _NAME
    pck_name: str = "PCK Certificate"
    tcb_version: int = 3
    tcb_status: str = "UpToDate"
    advisories: tuple[str, ...] = ()
    tcb_info: Mapping[str, object] = field(default_factory=dict)  # members to change
    level: Mapping[str, object] = field(default_factory=dict)  # members of the first level to change
    qe_identity: Mapping[str, object] = field(default_factory=dict)
    qe_levels: tuple[tuple[int, str], ...] = ((8, "UpToDate"), (6, "OutOfDate"), (5, "OutOfDate"))
    qe_report: ReportBody = QE_REPORT
    body: ReportBody = BODY
    header: QuoteHeader = HEADER
    certification: int = 5
    chain: Callable[[list[str]], str] = "".join  # of the PEM of PCK, CA, root, what the quote holds
    qe_reportdata: Callable[[bytes], bytes] = _same
    quote_bytes: Callable[[bytes], bytes] = _same
    quote_signature: Callable[[bytes], bytes] = _same
    qe_signature: Callable[[bytes], bytes] = _same
    tcb_signature: Callable[[bytes], bytes] = _same
    qe_identity_signature: Callable[[bytes], bytes] = _same
    revoked: tuple[int, ...] = ()  # PCK, CA or TCB_SIGNING
    pck_crl_signer: int = CA
    pck_crl_next: int = NOW + 30 * _DAY
    pck_crl_last: int = NOW - 30 * _DAY
    root_crl_next: int = NOW + 30 * _DAY
    tcb_next: int = NOW + 30 * _DAY
    qe_next: int = NOW + 30 * _DAY


@dataclass(frozen=True)
class Made:
    """A quote with all that is needed to verify it."""

    quote: bytes
    collateral: dict[str, str]  # the fields of QuoteCollateralV3
    root: bytes  # PEM
    pck: str  # PEM
    ca: str  # PEM

    def document(self) -> str:
        return json.dumps(self.collateral)


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def other_root(pem: bytes) -> bytes:
    """Return a root of the same name as that in `pem`, with another key."""
    name = x509.load_pem_x509_certificate(pem).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    return _pem(_certificate(OTHER_ROOT, str(name), None, issuer_key=OTHER_ROOT, years=30)).encode()


def make(recipe: Recipe | None = None) -> Made:
    recipe = recipe or Recipe()
    authority = _authority(
        recipe.name,
        recipe.pck_name,
        recipe.platform_ca,
        recipe.ca_may_sign,
        recipe.critical,
        extension(recipe),
    )
    root, ca, pck, tcb_signing = (_pem(authority[number]) for number in (ROOT, CA, PCK, TCB_SIGNING))
    tcb_info = json.dumps(_tcb_info(recipe), separators=(",", ":"))
    qe_identity = json.dumps(_qe_identity(recipe), separators=(",", ":"))
    signer = key(TCB_SIGNING)
    revoked = {number: authority[number].serial_number for number in recipe.revoked}
    root_crl = _crl(
        authority[ROOT],
        key(ROOT),
        [serial for number, serial in revoked.items() if number != PCK],
        NOW - 30 * _DAY,
        recipe.root_crl_next,
    )
    pck_crl = _crl(
        authority[CA],
        key(recipe.pck_crl_signer),
        [serial for number, serial in revoked.items() if number == PCK],
        recipe.pck_crl_last,
        recipe.pck_crl_next,
    )
    collateral = {
        "pck_crl_issuer_chain": ca + root,
        "root_ca_crl": root_crl.hex(),
        "pck_crl": pck_crl.hex(),
        "tcb_info_issuer_chain": tcb_signing + root,
        "tcb_info": tcb_info,
        "tcb_info_signature": recipe.tcb_signature(raw_signature(signer, tcb_info.encode())).hex(),
        "qe_identity_issuer_chain": tcb_signing + root,
        "qe_identity": qe_identity,
        "qe_identity_signature": recipe.qe_identity_signature(raw_signature(signer, qe_identity.encode())).hex(),
    }
    return Made(_quote(recipe, [pck, ca, root]), collateral, root.encode(), pck, ca)


def _quote(recipe: Recipe, chain: list[str]) -> bytes:
    auth_data = bytes(range(32))
    digest = hashlib.sha256(point(key(ATTESTATION)) + auth_data).digest()
    qe_report = replace(recipe.qe_report, reportdata=recipe.qe_reportdata(digest.ljust(64, b"\0")))
    data = {
        1: bytes(36),
        2: bytes(276),
        3: bytes(404),
        4: chain[0].encode(),
    }.get(recipe.certification, recipe.chain(chain).encode())
    certification = CertificationData(recipe.certification, data)
    qe_signature = recipe.qe_signature(raw_signature(key(PCK), qe_report.to_bytes()))
    qe = QEReportCertification(qe_report, qe_signature, auth_data, certification)
    header = recipe.header
    quote = Quote(header, recipe.body, bytes(64), point(key(ATTESTATION)), qe)
    signature = recipe.quote_signature(raw_signature(key(ATTESTATION), quote.signed()))
    # The version is written as it is: nothing that our encoder would refuse stops a test.
    written = encode_quote(
        replace(quote, signature=signature, header=replace(header, version=min(max(header.version, 3), 4)))
    )
    return recipe.quote_bytes(header.to_bytes() + written[48:])


def _tcb_info(recipe: Recipe) -> dict[str, object]:
    def level(svn: int, pcesvn: int, status: str) -> dict[str, object]:
        tcb: dict[str, object] = {"sgxtcbcomponents": [{"svn": svn}] * 16}
        if recipe.tcb_version == 2:
            tcb = {f"sgxtcbcomp{index:02}svn": svn for index in range(1, 17)}
        return {"tcb": tcb | {"pcesvn": pcesvn}, "tcbDate": utc(NOW - 90 * _DAY), "tcbStatus": status}

    first = level(5, 13, recipe.tcb_status)
    if recipe.advisories:
        first["advisoryIDs"] = list(recipe.advisories)
    info = {
        "version": recipe.tcb_version,
        "issueDate": utc(NOW - 20 * _DAY),
        "nextUpdate": utc(recipe.tcb_next),
        "fmspc": recipe.fmspc,
        "pceId": recipe.pceid,
        "tcbType": 0,
        "tcbEvaluationDataNumber": 17,
        "tcbLevels": [first | dict(recipe.level), level(4, 11, "OutOfDate")],
    }
    identity = {"id": "SGX"} if recipe.tcb_version == 3 else {}
    return identity | info | dict(recipe.tcb_info)


def _qe_identity(recipe: Recipe) -> dict[str, object]:
    levels = [
        {"tcb": {"isvsvn": svn}, "tcbDate": utc(NOW - 90 * _DAY), "tcbStatus": status}
        for svn, status in recipe.qe_levels
    ]
    identity = {
        "id": "QE",
        "version": 2,
        "issueDate": utc(NOW - 20 * _DAY),
        "nextUpdate": utc(recipe.qe_next),
        "tcbEvaluationDataNumber": 17,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": "AA" * 32,
        "isvprodid": 1,
        "tcbLevels": levels,
    }
    return identity | dict(recipe.qe_identity)


@cache
def _authority(
    name: str, pck_name: str, platform_ca: bool, ca_may_sign: bool, critical: str, sgx: bytes
) -> dict[int, x509.Certificate]:
    ca_name = f"{name} PCK {'Platform' if platform_ca else 'Processor'} CA"
    root = _certificate(ROOT, f"{name} Root CA", None, years=30)
    ca = _certificate(CA, ca_name, root, years=15, is_ca=ca_may_sign)
    pck = _certificate(PCK, f"{name} {pck_name}", ca, issuer_key=CA, sgx=sgx, critical=critical)
    return {ROOT: root, CA: ca, PCK: pck, TCB_SIGNING: _certificate(TCB_SIGNING, f"{name} TCB Signing", root)}


def _certificate(
    number: int,
    common_name: str,
    issuer: x509.Certificate | None,
    *,
    issuer_key: int = ROOT,
    years: int = 7,
    sgx: bytes | None = None,
    is_ca: bool = True,
    critical: str = "",
) -> x509.Certificate:
    public = key(number).public_key()
    is_ca = is_ca and number in {ROOT, CA, OTHER_ROOT}
    subject = name_of(common_name)
    start = datetime.fromtimestamp(NOW - 60 * _DAY, UTC)
    usage = {
        name: is_ca if name in {"key_cert_sign", "crl_sign"} else name in {"digital_signature", "content_commitment"}
        for name in (
            *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        )
    }
    url = x509.UniformResourceIdentifier("https://simulated.invalid/crl")
    points = x509.CRLDistributionPoints([x509.DistributionPoint([url], None, None, None)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(public)
        .serial_number(0x5000 + number)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365 * years))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key(issuer_key).public_key()), critical=False)
        .add_extension(points, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.BasicConstraints(is_ca, {ROOT: 1, CA: 0}.get(number) if is_ca else None), critical=True)
    )
    if sgx is not None:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX_OID), sgx), critical=False
        )
    if critical:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier(critical), b"\5\0")
        builder = builder.add_extension(unknown, critical=True)
    return builder.sign(key(issuer_key), hashes.SHA256())


def _crl(
    issuer: x509.Certificate, signer: ec.EllipticCurvePrivateKey, serials: list[int], last: int, following: int
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(datetime.fromtimestamp(last, UTC))
        .next_update(datetime.fromtimestamp(following, UTC))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)  # type: ignore[arg-type]
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(
            entry.revocation_date(datetime.fromtimestamp(NOW - 40 * _DAY, UTC)).build()
        )
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def name_of(common_name: str) -> x509.Name:
    attributes = ((NameOID.COMMON_NAME, common_name), (NameOID.ORGANIZATION_NAME, "Sim"), (NameOID.COUNTRY_NAME, "US"))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def rsa_certificate(common_name: str, private: rsa.RSAPrivateKey) -> x509.Certificate:
    """Return a certificate of an authority with an RSA key, signed by itself."""
    start = datetime.fromtimestamp(NOW - 60 * _DAY, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name_of(common_name))
        .issuer_name(name_of(common_name))
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=3650))
        .sign(private, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _entry(suffix: tuple[int, ...], value: bytes) -> bytes:
    return _tlv(0x30, _tlv(6, _SGX_PREFIX + bytes(suffix)) + value)


def _number(value: int, tag: int = 2) -> bytes:
    return _tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def extension(recipe: Recipe) -> bytes:
    """Return the SGX extension of the PCK certificate."""
    svns = b"".join(_entry((2, index), _number(svn)) for index, svn in enumerate(recipe.components, 1))
    tcb = svns + _entry((2, 17), _number(recipe.pcesvn)) + _entry((2, 18), _tlv(4, bytes(recipe.components)))
    entries = [
        _entry((1,), _tlv(4, b"p" * 16)),
        _entry((2,), _tlv(0x30, tcb)),
        _entry((3,), _tlv(4, bytes.fromhex(recipe.pceid))),
        _entry((4,), _tlv(4, bytes.fromhex(recipe.fmspc))),
        _entry((5,), _number(recipe.sgx_type, 10)),
    ]
    if recipe.platform_ca:
        flags = b"".join(_entry((7, index), _tlv(1, b"\xff")) for index in (1, 2, 3))
        entries += [_entry((6,), _tlv(4, b"i" * 16)), _entry((7,), _tlv(0x30, flags))]
    return _tlv(0x30, b"".join(entries))
