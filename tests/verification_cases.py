"""Everything that can be wrong with a quote and its collateral, each with our verdict and those of two oracles.

`ours` is a status, or the cause and the step of a failure. `dcap_qvl` is a status, or what its error contains. `qvl`
(Intel's library) has the parts that are not OK: pck, tcb, qe, quote. docs/verification.md says why the three differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from struct import pack

from tests.simulated import BODY, CA, HEADER, NOW, OTHER, PCK, QE_REPORT, TCB_SIGNING, Recipe

DAY = 86400
ADVISORY = "INTEL-SA-00001"
NOT_GENUINE = "not genuine"
UNACCEPTABLE = "genuine but unacceptable"
CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Case:
    recipe: Recipe
    ours: str | tuple[str, str]
    dcap_qvl: str
    qvl: str
    at: int = NOW
    other_root: bool = False  # trust another root of the same name


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def put(offset: int, data: bytes) -> Callable[[bytes], bytes]:
    return lambda quote: quote[:offset] + data + quote[offset + len(data) :]


def resized(difference: int) -> Callable[[bytes], bytes]:
    return lambda quote: quote[:432] + pack("<I", len(quote) - 436 + difference) + quote[436:]


def _status(status: str, qvl: str) -> Case:
    return Case(Recipe(tcb_status=status, advisories=(ADVISORY,)), status, f"{status} {ADVISORY}", f"quote={qvl}")


def _good(recipe: Recipe, dcap_qvl: str = "UpToDate", qvl: str = "") -> Case:
    return Case(recipe, "UpToDate", dcap_qvl, qvl)


def _format(quote_bytes: Callable[[bytes], bytes], dcap_qvl: str) -> Case:
    recipe = Recipe(quote_bytes=quote_bytes)
    return Case(recipe, (NOT_GENUINE, "quote format"), dcap_qvl, "quote=UNSUPPORTED_QUOTE_FORMAT")


def _qe(recipe: Recipe, dcap_qvl: str) -> Case:
    return Case(recipe, (NOT_GENUINE, "quoting enclave"), dcap_qvl, "quote=QE_IDENTITY_MISMATCH")


_REVOKED = (UNACCEPTABLE, "TCB level")
_ALL_UNTRUSTED = "pck=SGX_PCK_CERT_CHAIN_UNTRUSTED tcb=SGX_TCB_SIGNING_CERT_CHAIN_UNTRUSTED"
_ALL_CHAINS_EXPIRED = (
    "pck=SGX_PCK_CERT_CHAIN_EXPIRED tcb=SGX_SIGNING_CERT_CHAIN_EXPIRED qe=SGX_SIGNING_CERT_CHAIN_EXPIRED"
)
_CRL_EXPIRED = "pck=SGX_CRL_EXPIRED tcb=SGX_CRL_EXPIRED qe=SGX_CRL_EXPIRED"
_OUT_OF_DATE = "quote=TCB_OUT_OF_DATE"
_V4 = replace(HEADER, version=4, qe_svn=0, pce_svn=0)
_OLD_QE = replace(QE_REPORT, isvsvn=6)

CASES = {
    "baseline": _good(Recipe()),
    "SWHardeningNeeded": _status("SWHardeningNeeded", "TCB_SW_HARDENING_NEEDED"),
    "ConfigurationNeeded": _status("ConfigurationNeeded", "TCB_CONFIGURATION_NEEDED"),
    "ConfigurationAndSWHardeningNeeded": _status(
        "ConfigurationAndSWHardeningNeeded", "TCB_CONFIGURATION_AND_SW_HARDENING_NEEDED"
    ),
    "OutOfDate": _status("OutOfDate", "TCB_OUT_OF_DATE"),
    "OutOfDateConfigurationNeeded": _status("OutOfDateConfigurationNeeded", "TCB_OUT_OF_DATE_CONFIGURATION_NEEDED"),
    "Revoked": Case(Recipe(tcb_status="Revoked"), _REVOKED, "TCB status is invalid: Revoked", "quote=TCB_REVOKED"),
    "a status that nobody knows": Case(
        Recipe(tcb_status="Bogus"),
        (CANNOT_TELL, "collateral format"),
        "Failed to decode TcbInfo",
        "tcb=SGX_TCB_INFO_INVALID quote=UNSUPPORTED_TCB_INFO_FORMAT",
    ),
    "second level": Case(Recipe(components=(4,) * 16, pcesvn=11), "OutOfDate", "OutOfDate", _OUT_OF_DATE),
    "a component below all levels": Case(
        Recipe(components=(5,) * 15 + (3,)), _REVOKED, "No matching TCB level found", "quote=TCB_NOT_SUPPORTED"
    ),
    "PCESVN below all levels": Case(Recipe(pcesvn=10), _REVOKED, "No matching TCB level", "quote=TCB_NOT_SUPPORTED"),
    "old QE": Case(Recipe(qe_report=_OLD_QE), "OutOfDate", "OutOfDate", _OUT_OF_DATE),
    "old QE, SWHardeningNeeded": Case(
        Recipe(qe_report=_OLD_QE, tcb_status="SWHardeningNeeded"), "OutOfDate", "OutOfDate", _OUT_OF_DATE
    ),
    "old QE, ConfigurationNeeded": Case(
        Recipe(qe_report=_OLD_QE, tcb_status="ConfigurationNeeded"),
        "OutOfDateConfigurationNeeded",
        "OutOfDateConfigurationNeeded",
        "quote=TCB_OUT_OF_DATE_CONFIGURATION_NEEDED",
    ),
    "old QE, ConfigurationAndSWHardeningNeeded": Case(
        Recipe(qe_report=_OLD_QE, tcb_status="ConfigurationAndSWHardeningNeeded"),
        "OutOfDateConfigurationNeeded",
        "OutOfDateConfigurationNeeded",
        "quote=TCB_OUT_OF_DATE_CONFIGURATION_NEEDED",
    ),
    "QE level Revoked": Case(
        Recipe(qe_levels=((8, "Revoked"),)), _REVOKED, "TCB status is invalid: Revoked", "quote=TCB_REVOKED"
    ),
    "QE below all levels": Case(
        Recipe(qe_report=replace(QE_REPORT, isvsvn=1)), _REVOKED, "QE ISVSVN 1 is below", "quote=TCB_REVOKED"
    ),
    "QE's MRSIGNER": _qe(Recipe(qe_report=replace(QE_REPORT, mrsigner=b"x" * 32)), "QE MRSIGNER mismatch"),
    "QE's ATTRIBUTES": _qe(Recipe(qe_report=replace(QE_REPORT, attributes=5)), "QE ATTRIBUTES mismatch at byte 0"),
    "QE is DEBUG": _qe(Recipe(qe_report=replace(QE_REPORT, attributes=0x17)), "Debug mode is enabled"),
    "QE's ISVPRODID": _qe(Recipe(qe_identity={"isvprodid": 2}), "QE ISVPRODID mismatch: expected 2, got 1"),
    "QE's MISCSELECT": _qe(Recipe(qe_report=replace(QE_REPORT, miscselect=1)), "QE MISCSELECT mismatch"),
    "identity of QVE": Case(
        Recipe(qe_identity={"id": "QVE"}),
        (CANNOT_TELL, "platform"),
        "Unsupported QE Identity id",
        "quote=QE_IDENTITY_MISMATCH",
    ),
    "identity of TD_QE": Case(
        Recipe(qe_identity={"id": "TD_QE"}),
        (CANNOT_TELL, "platform"),
        "Unsupported QE Identity id",
        "quote=QE_IDENTITY_MISMATCH",
    ),
    "PCK revoked": Case(
        Recipe(revoked=(PCK,)), (NOT_GENUINE, "revocation"), "CertRevoked", "pck=SGX_PCK_REVOKED quote=PCK_REVOKED"
    ),
    "CA revoked": Case(
        Recipe(revoked=(CA,)), (NOT_GENUINE, "revocation"), "CertRevoked", "pck=SGX_INTERMEDIATE_CA_REVOKED"
    ),
    "TCB signing revoked": Case(
        Recipe(revoked=(TCB_SIGNING,)),
        (NOT_GENUINE, "revocation"),
        "CertRevoked",
        "tcb=SGX_TCB_SIGNING_CERT_REVOKED qe=SGX_TCB_SIGNING_CERT_REVOKED",
    ),
    "PCK CRL by another": Case(
        Recipe(pck_crl_signer=OTHER),
        (NOT_GENUINE, "PCK revocation list"),
        "InvalidCrlSignatureForPublicKey",
        "pck=SGX_CRL_INVALID_SIGNATURE",
    ),
    "PCK CRL expired": Case(
        Recipe(pck_crl_next=NOW - DAY), (CANNOT_TELL, "times"), "CrlExpired", "pck=SGX_CRL_EXPIRED"
    ),
    "root CRL expired": Case(Recipe(root_crl_next=NOW - DAY), (CANNOT_TELL, "times"), "CrlExpired", _CRL_EXPIRED),
    "TCB info expired": Case(
        Recipe(tcb_next=NOW - DAY), (CANNOT_TELL, "times"), "TCBInfo expired", "tcb=SGX_TCB_INFO_EXPIRED"
    ),
    "QE identity expired": Case(
        Recipe(qe_next=NOW - DAY), (CANNOT_TELL, "times"), "QE Identity expired", "qe=SGX_ENCLAVE_IDENTITY_EXPIRED"
    ),
    "everything expired": Case(
        Recipe(), (CANNOT_TELL, "times"), "CrlExpired", _ALL_CHAINS_EXPIRED, at=NOW + 12 * 365 * DAY
    ),
    "not yet valid": Case(
        Recipe(), (CANNOT_TELL, "times"), "issue date is in the future", _CRL_EXPIRED, at=NOW - 45 * DAY
    ),
    "FMSPC of another": Case(
        Recipe(tcb_info={"fmspc": "00A067110000"}),
        (CANNOT_TELL, "platform"),
        "Fmspc mismatch",
        "quote=TCB_INFO_MISMATCH",
    ),
    "FMSPC in lower case": _good(Recipe(tcb_info={"fmspc": "00906ed50000"})),
    "PCE id of another": Case(
        Recipe(tcb_info={"pceId": "0001"}), (CANNOT_TELL, "platform"), "UpToDate", "quote=TCB_INFO_MISMATCH"
    ),
    "TCB info of TDX": Case(
        Recipe(tcb_info={"id": "TDX"}),
        (CANNOT_TELL, "platform"),
        "SGX quote with non-SGX TCB info",
        "tcb=SGX_TCB_INFO_INVALID quote=UNSUPPORTED_TCB_INFO_FORMAT",
    ),
    "TCB info version 2": _good(Recipe(tcb_version=2), "Failed to decode TcbInfo"),
    "quote signature": Case(
        Recipe(quote_signature=flip),
        (NOT_GENUINE, "quote signature"),
        "ISV enclave report signature is invalid",
        "quote=INVALID_QUOTE_SIGNATURE",
    ),
    "QE report signature": Case(
        Recipe(qe_signature=flip),
        (NOT_GENUINE, "QE report signature"),
        "Signature is invalid for qe_report",
        "quote=INVALID_QE_REPORT_SIGNATURE",
    ),
    "QE report data": Case(
        Recipe(qe_reportdata=flip),
        (NOT_GENUINE, "attestation key"),
        "QE report hash mismatch",
        "quote=INVALID_QE_REPORT_DATA",
    ),
    "QE report data, second half": _good(Recipe(qe_reportdata=lambda data: data[:63] + b"\1")),
    "TCB info signature": Case(
        Recipe(tcb_signature=flip),
        (NOT_GENUINE, "TCB info signature"),
        "Signature is invalid for tcb_info",
        "tcb=TCB_INFO_INVALID_SIGNATURE",
    ),
    "QE identity signature": Case(
        Recipe(qe_identity_signature=flip),
        (NOT_GENUINE, "QE identity signature"),
        "Signature is invalid for qe_identity",
        "qe=SGX_ENCLAVE_IDENTITY_INVALID_SIGNATURE",
    ),
    "another root": Case(
        Recipe(),
        (NOT_GENUINE, "trusted root"),
        "InvalidCrlSignatureForPublicKey",
        f"{_ALL_UNTRUSTED} qe=SGX_TCB_SIGNING_CERT_CHAIN_UNTRUSTED",
        other_root=True,
    ),
    "another QE vendor": _format(put(12, bytes(16)), "Unknown QE vendor ID"),
    "version 2": _format(put(0, pack("<H", 2)), "Unsupported quote version"),
    "attestation key type 3": _format(put(2, pack("<H", 3)), "Unsupported DCAP attestation key type"),
    "TEE type 0x81 in version 3": _format(put(4, pack("<I", 0x81)), "Invalid TEE type"),
    "SGX in version 4": _good(Recipe(header=_V4), "SGX TEE quote must have version 3"),
    "SGX in version 5": _format(lambda quote: pack("<H", 5) + quote[2:48] + pack("<HI", 1, 384) + quote[48:], ""),
    "certification data 1": Case(
        Recipe(certification=1), (CANNOT_TELL, "PCK certificate chain"), "Unsupported DCAP PCK cert format: 1", ""
    ),
    "certification data 2": Case(
        Recipe(certification=2), (CANNOT_TELL, "PCK certificate chain"), "Unsupported DCAP PCK cert format: 2", ""
    ),
    "certification data 3": Case(
        Recipe(certification=3), (CANNOT_TELL, "PCK certificate chain"), "Unsupported DCAP PCK cert format: 3", ""
    ),
    "certification data 4": _good(Recipe(certification=4), "Unsupported DCAP PCK cert format: 4"),
    "certification data 7": _format(put(1046, pack("<H", 7)), "Unsupported DCAP PCK cert format: 7"),
    "platform CA": _good(Recipe(platform_ca=True, sgx_type=1)),
    "SGX type 2": _good(Recipe(platform_ca=True, sgx_type=2)),
    "leaf that is no PCK": Case(
        Recipe(pck_name="Something Else"),
        (NOT_GENUINE, "PCK certificate chain"),
        "UpToDate",
        "pck=SGX_PCK_MISSING quote=INVALID_PCK_CERT",
    ),
    "chain PCK, root, CA": _good(Recipe(chain=lambda chain: chain[0] + chain[2] + chain[1])),
    "chain root first": _good(Recipe(chain=lambda chain: chain[2] + chain[0] + chain[1]), "CaUsedAsEndEntity"),
    "chain ends with NUL": _good(Recipe(chain=lambda chain: "".join(chain) + "\0")),
    "chain with CRLF": _good(Recipe(chain=lambda chain: "".join(chain).replace("\n", "\r\n"))),
    "8 bytes after the quote": _format(lambda quote: quote + bytes(8), "UpToDate"),
    "3000 bytes after the quote": _format(lambda quote: quote + bytes(3000), "UpToDate"),
    "signature size too large": _format(resized(1), "Failed to decode quote"),
    "signature size too small": _format(resized(-1), "Failed to decode quote"),
    "10 bytes missing": _format(lambda quote: quote[:-10], "Failed to decode quote"),
    "DEBUG enclave": Case(
        Recipe(body=replace(BODY, attributes=7)), (UNACCEPTABLE, "debug"), "Debug mode is enabled", ""
    ),
    "INIT is not set": _good(Recipe(body=replace(BODY, attributes=4))),
}
