"""Quotes: parsed into values with every size exact, and written again byte for byte.

ECDSA quotes of version 3 and, for SGX, version 4; both become a `Quote`. EPID quotes (version 2) can be read as
`EpidQuote`, for reports of the time when Intel verified them. Quotes of TDX are refused by name.

A quote says nothing by being parsed: whoever wants to believe it calls `verification.verify`. Follows "Intel SGX ECDSA
Quote Library Reference", appendix A, and "Intel TDX DCAP Quoting Library API", appendix A.3; fields keep its names.
Integers are little endian, but coordinates and signatures are big endian, as ECDSA writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from inclavare.errors import AttestationError
from inclavare.sgx.arch import ReportBody

QUOTE_VERSION_EPID = 2
QUOTE_VERSION_SGX = 3
QUOTE_VERSION_TD = 4  # SGX may use it, too
QUOTE_VERSION_TD15 = 5
TEE_TYPE_SGX = 0
TEE_TYPE_TDX = 0x81
ATT_KEY_TYPE_ECDSA_P256 = 2
INTEL_QE_VENDOR_ID = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
MAX_QUOTE_SIZE = 1 << 20  # real ones have less than 5 KiB; QVL has no limit

# Certification data ("QE Certification Data"); 6 is the QE report's own certification, which nests one of the others.
CERT_PPID_CLEARTEXT = 1
CERT_PPID_RSA2048 = 2
CERT_PPID_RSA3072 = 3
CERT_PCK_LEAF = 4
CERT_PCK_CHAIN = 5
CERT_QE_REPORT = 6
# PPID (in the clear or encrypted), CPUSVN, PCESVN, PCE id; quotes of type 1 in the world leave the last one out.
_PPID_SIZES = {CERT_PPID_CLEARTEXT: (34, 36), CERT_PPID_RSA2048: (276,), CERT_PPID_RSA3072: (404,)}

_POINT_SIZE = 64
_SIGNATURE_SIZE = 64
_EPID_HEADER_SIZE = 48
_HEADER = Struct("<HHIHH16s20s")
_U16 = Struct("<H")
_U32 = Struct("<I")


@dataclass(frozen=True, slots=True)
class QuoteHeader:
    """The first 48 bytes of an ECDSA quote ("Quote Header").

    In version 3, `tee_type` is reserved (zero); in version 4, `qe_svn` and `pce_svn` are.
    """

    version: int = QUOTE_VERSION_SGX
    att_key_type: int = ATT_KEY_TYPE_ECDSA_P256
    tee_type: int = TEE_TYPE_SGX
    qe_svn: int = 0
    pce_svn: int = 0
    qe_vendor_id: bytes = INTEL_QE_VENDOR_ID
    user_data: bytes = bytes(20)  # the first 16 bytes tell one quoting enclave from another

    def to_bytes(self) -> bytes:
        """Return the 48 bytes."""
        return _HEADER.pack(
            self.version,
            self.att_key_type,
            self.tee_type,
            self.qe_svn,
            self.pce_svn,
            self.qe_vendor_id,
            self.user_data,
        )


@dataclass(frozen=True, slots=True)
class CertificationData:
    """What names or carries the PCK certificate: `type` is one of CERT_*, `data` as they are in the quote."""

    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class QEReportCertification:
    """How the platform vouches for the attestation key: the quoting enclave's report, signed by the PCK.

    The report's data are SHA-256 of attestation key and `auth_data`, then zeros; `signature` is r and s, 32 bytes each.
    """

    report: ReportBody
    signature: bytes
    auth_data: bytes
    certification: CertificationData


@dataclass(frozen=True, slots=True)
class Quote:
    """An ECDSA quote of an SGX enclave, version 3 or 4.

    `signature` (r and s) is by `attestation_key` (x and y) over `signed()`: 32 bytes for each number.
    """

    header: QuoteHeader
    body: ReportBody
    signature: bytes
    attestation_key: bytes
    qe: QEReportCertification

    def signed(self) -> bytes:
        """Return what the signature covers: header and body, the first 432 bytes of the quote."""
        return self.header.to_bytes() + self.body.to_bytes()


@dataclass(frozen=True, slots=True)
class EpidQuote:
    """A quote of the time of EPID, version 2; the signature is encrypted for Intel's service, which is no more."""

    sign_type: int  # 0 unlinkable, 1 linkable
    epid_group_id: bytes  # little endian
    qe_svn: int
    pce_svn: int
    xeid: int
    basename: bytes
    body: ReportBody
    signature: bytes  # encrypted; empty in a report of the attestation service, which repeats only what comes before


def parse_quote(data: bytes) -> Quote:
    """Return the quote that `data` are, to the last byte.

    Raises AttestationError, which names field and offset, what was expected and what was found.
    """
    reader = _Reader(data)
    version = reader.peek_u16("version")
    if version == QUOTE_VERSION_EPID:
        raise _found("quote.version", 0, "3 or 4", "2, an EPID quote", "Intel has retired EPID: ask for an ECDSA quote")
    if version == QUOTE_VERSION_TD15:
        raise _found("quote.version", 0, "3 or 4", "5, as TDX has", "only quotes of SGX enclaves can be verified")
    if version not in {QUOTE_VERSION_SGX, QUOTE_VERSION_TD}:
        raise _found("quote.version", 0, "3 or 4", str(version))
    header = QuoteHeader(*_HEADER.unpack(reader.take("header", _HEADER.size)))
    if header.att_key_type != ATT_KEY_TYPE_ECDSA_P256:
        raise _found("quote.att_key_type", 2, "2 (ECDSA P-256)", str(header.att_key_type))
    if header.tee_type == TEE_TYPE_TDX:
        raise _found("quote.tee_type", 4, "0 (SGX)", "0x81 (TDX)", "only quotes of SGX enclaves can be verified")
    if header.tee_type != TEE_TYPE_SGX:
        raise _found("quote.tee_type", 4, "0 (SGX)", f"{header.tee_type:#x}")
    if header.qe_vendor_id != INTEL_QE_VENDOR_ID:
        raise _found("quote.qe_vendor_id", 12, f"{INTEL_QE_VENDOR_ID.hex()} (Intel)", header.qe_vendor_id.hex())
    body = ReportBody.from_bytes(reader.take("body", ReportBody.SIZE))
    size = reader.u32("signature_size")
    if size != reader.left:
        raise _found("quote.signature_size", reader.offset - 4, f"{reader.left}, the bytes that follow", str(size))
    signature = reader.take("signature", _SIGNATURE_SIZE)
    attestation_key = reader.take("attestation_key", _POINT_SIZE)
    if version == QUOTE_VERSION_TD:
        _nested(reader)
    qe_report = ReportBody.from_bytes(reader.take("qe_report", ReportBody.SIZE))
    qe_signature = reader.take("qe_report.signature", _SIGNATURE_SIZE)
    auth_data = reader.take("qe_report.auth_data", reader.u16("qe_report.auth_size"))
    certification = _certification(reader)
    return Quote(
        header,
        body,
        signature,
        attestation_key,
        QEReportCertification(qe_report, qe_signature, auth_data, certification),
    )


def encode_quote(quote: Quote) -> bytes:
    """Return the bytes of `quote`, of which `parse_quote` makes the same value.

    Raises AttestationError for a version other than 3 and 4 and for fields of a wrong size.
    """
    qe = quote.qe
    for name, value, size in (
        ("quote.qe_vendor_id", quote.header.qe_vendor_id, 16),
        ("quote.user_data", quote.header.user_data, 20),
        ("quote.signature", quote.signature, _SIGNATURE_SIZE),
        ("quote.attestation_key", quote.attestation_key, _POINT_SIZE),
        ("quote.qe_report.signature", qe.signature, _SIGNATURE_SIZE),
    ):
        if len(value) != size:
            raise AttestationError(name, f"expected {size} bytes, found {len(value)}")
    if len(qe.auth_data) > 0xFFFF:
        raise AttestationError("quote.qe_report.auth_size", f"expected at most 65535, found {len(qe.auth_data)}")
    tail = b"".join(
        (
            qe.report.to_bytes(),
            qe.signature,
            _U16.pack(len(qe.auth_data)),
            qe.auth_data,
            _U16.pack(qe.certification.type),
            _U32.pack(len(qe.certification.data)),
            qe.certification.data,
        )
    )
    if quote.header.version == QUOTE_VERSION_TD:
        tail = _U16.pack(CERT_QE_REPORT) + _U32.pack(len(tail)) + tail
    elif quote.header.version != QUOTE_VERSION_SGX:
        raise AttestationError("quote.version", f"expected 3 or 4, found {quote.header.version}")
    tail = quote.signature + quote.attestation_key + tail
    return quote.signed() + _U32.pack(len(tail)) + tail


def parse_epid_quote(data: bytes) -> EpidQuote:
    """Return the EPID quote that `data` are: complete, or its first 432 bytes, as reports of Intel's service have them.

    Raises AttestationError as `parse_quote`.
    """
    reader = _Reader(data)
    version = reader.u16("version")
    if version != QUOTE_VERSION_EPID:
        raise _found("quote.version", 0, "2 (EPID)", str(version))
    sign_type = reader.u16("sign_type")
    if sign_type > 1:
        raise _found("quote.sign_type", 2, "0 (unlinkable) or 1 (linkable)", str(sign_type))
    group = reader.take("epid_group_id", 4)
    qe_svn, pce_svn, xeid = reader.u16("qe_svn"), reader.u16("pce_svn"), reader.u32("xeid")
    basename = reader.take("basename", 32)
    assert reader.offset == _EPID_HEADER_SIZE  # noqa: S101  # the fields above
    body = ReportBody.from_bytes(reader.take("body", ReportBody.SIZE))
    signature = b""
    if reader.left:
        size = reader.u32("signature_size")
        if size != reader.left:
            raise _found("quote.signature_size", reader.offset - 4, f"{reader.left}, the bytes that follow", str(size))
        signature = reader.take("signature", size)
    return EpidQuote(sign_type, group, qe_svn, pce_svn, xeid, basename, body, signature)


def _nested(reader: _Reader) -> None:
    """Enter the certification data of a version 4 quote: the QE report's, which take all that is left."""
    offset = reader.offset
    kind = reader.u16("certification.type")
    if kind != CERT_QE_REPORT:
        raise _found("quote.certification.type", offset, "6 (QE report)", str(kind))
    size = reader.u32("certification.size")
    if size != reader.left:
        raise _found("quote.certification.size", offset + 2, f"{reader.left}, the bytes that follow", str(size))


def _certification(reader: _Reader) -> CertificationData:
    offset = reader.offset
    kind = reader.u16("certification.type")
    size = reader.u32("certification.size")
    if size != reader.left:
        raise _found("quote.certification.size", offset + 2, f"{reader.left}, the bytes that follow", str(size))
    if not CERT_PPID_CLEARTEXT <= kind <= CERT_PCK_CHAIN:
        raise _found("quote.certification.type", offset, "1 to 5", str(kind))
    sizes = _PPID_SIZES.get(kind, (size,))
    if size not in sizes:
        raise _found("quote.certification.size", offset + 2, " or ".join(map(str, sizes)), str(size))
    return CertificationData(kind, reader.take("certification.data", size))


class _Reader:
    """Bytes taken one field after the other; what is missing is named."""

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_QUOTE_SIZE:
            raise AttestationError("quote", f"expected at most {MAX_QUOTE_SIZE} bytes, found {len(data)}")
        self.data = bytes(data)
        self.offset = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.offset

    def take(self, name: str, size: int) -> bytes:
        if size > self.left:
            raise _found(f"quote.{name}", self.offset, f"{size} bytes", f"{self.left}, then the end")
        self.offset += size
        return self.data[self.offset - size : self.offset]

    def u16(self, name: str) -> int:
        value: int = _U16.unpack(self.take(name, 2))[0]
        return value

    def u32(self, name: str) -> int:
        value: int = _U32.unpack(self.take(name, 4))[0]
        return value

    def peek_u16(self, name: str) -> int:
        value = self.u16(name)
        self.offset -= 2
        return value


def _found(path: str, offset: int, expected: str, found: str, hint: str = "") -> AttestationError:
    return AttestationError(path, f"at offset {offset}: expected {expected}, found {found}", hint)
