"""TCB info and QE identity, what they say of a platform, and how two statuses become one.

Both documents are signed by Intel (or by a software platform's own authority) and say for each level of the trusted
computing base what is known to be wrong with it. TCB info of versions 2 and 3, QE identity of version 2. Signatures and
times are `verification`'s. Follows "Intel SGX Provisioning Certification Service API", "Get TCB Info" and "Get Quoting
Enclave Identity", and their appendices on determining the status.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from inclavare.errors import AttestationError
from inclavare.sgx.arch import ReportBody
from inclavare.sgx.strict_json import Value, load

UP_TO_DATE: Final = "UpToDate"
SW_HARDENING_NEEDED: Final = "SWHardeningNeeded"
CONFIGURATION_NEEDED: Final = "ConfigurationNeeded"
CONFIGURATION_AND_SW_HARDENING_NEEDED: Final = "ConfigurationAndSWHardeningNeeded"
OUT_OF_DATE: Final = "OutOfDate"
OUT_OF_DATE_CONFIGURATION_NEEDED: Final = "OutOfDateConfigurationNeeded"
REVOKED: Final = "Revoked"
STATUSES: Final = (
    UP_TO_DATE,
    SW_HARDENING_NEEDED,
    CONFIGURATION_NEEDED,
    CONFIGURATION_AND_SW_HARDENING_NEEDED,
    OUT_OF_DATE,
    OUT_OF_DATE_CONFIGURATION_NEEDED,
    REVOKED,
)
_QE_STATUSES = (UP_TO_DATE, OUT_OF_DATE, REVOKED)
# What an out-of-date quoting enclave makes of a platform's status; the other statuses stay.
_WITH_OLD_QE = {
    UP_TO_DATE: OUT_OF_DATE,
    SW_HARDENING_NEEDED: OUT_OF_DATE,
    CONFIGURATION_NEEDED: OUT_OF_DATE_CONFIGURATION_NEEDED,
    CONFIGURATION_AND_SW_HARDENING_NEEDED: OUT_OF_DATE_CONFIGURATION_NEEDED,
}
_COMPONENTS = 16
_U16 = 0xFFFF
_U32 = 0xFFFFFFFF
_MISCSELECT_SIZE = 4
_ATTRIBUTES_SIZE = 16


@dataclass(frozen=True, slots=True)
class TcbLevel:
    """A level: it holds for platforms with at least these SVNs."""

    components: tuple[int, ...]
    pcesvn: int
    tcb_date: int  # unix seconds, as all times here
    status: str
    advisory_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TcbInfo:
    """The levels of one kind of platform, the highest first."""

    text: str  # as signed
    id: str  # SGX or TDX
    version: int
    issue_date: int
    next_update: int
    fmspc: bytes
    pceid: bytes | None  # some documents of version 2 do not say
    evaluation_data_number: int
    levels: tuple[TcbLevel, ...]

    def level(self, components: tuple[int, ...], pcesvn: int) -> TcbLevel | None:
        """Return the first level that a platform with these SVNs reaches, or None if it is below all of them."""
        for level in self.levels:
            if pcesvn >= level.pcesvn and all(map(int.__ge__, components, level.components)):
                return level
        return None


@dataclass(frozen=True, slots=True)
class QeTcbLevel:
    """A level of a quoting enclave: it holds from this SVN on."""

    isvsvn: int
    tcb_date: int
    status: str
    advisory_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QeIdentity:
    """What the quoting enclave must be; byte fields in the order of memory."""

    text: str  # as signed
    id: str  # QE, TD_QE or QVE
    issue_date: int
    next_update: int
    evaluation_data_number: int
    miscselect: int
    miscselect_mask: int
    attributes: bytes
    attributes_mask: bytes
    mrsigner: bytes
    isvprodid: int
    levels: tuple[QeTcbLevel, ...]

    def differences(self, report: ReportBody) -> list[tuple[str, str, str]]:
        """Return what `report` has otherwise than it must: for each field its name, what must be, what is."""
        attributes = report.attributes.to_bytes(8, "little") + report.xfrm.to_bytes(8, "little")
        pairs = [
            ("MRSIGNER", self.mrsigner.hex(), report.mrsigner.hex()),
            ("ISVPRODID", str(self.isvprodid), str(report.isvprodid)),
            (
                "MISCSELECT",
                f"{self.miscselect & self.miscselect_mask:#010x}",
                f"{report.miscselect & self.miscselect_mask:#010x}",
            ),
            (
                "ATTRIBUTES",
                _masked(self.attributes, self.attributes_mask).hex(),
                _masked(attributes, self.attributes_mask).hex(),
            ),
        ]
        return [(name, expected, found) for name, expected, found in pairs if expected != found]

    def level(self, isvsvn: int) -> QeTcbLevel | None:
        """Return the first level that `isvsvn` reaches, or None if it is below all of them."""
        return next((level for level in self.levels if isvsvn >= level.isvsvn), None)


def converge(platform: str, quoting_enclave: str) -> str:
    """Return the status of a quote, of the statuses of its platform and of its quoting enclave."""
    if quoting_enclave == REVOKED:
        return REVOKED
    return _WITH_OLD_QE.get(platform, platform) if quoting_enclave == OUT_OF_DATE else platform


def parse_tcb_info(text: str, path: str = "tcbInfo") -> TcbInfo:
    """Return the TCB info `text`, the object that was signed. Raises AttestationError under `path`."""
    document = load(text, path)
    version = document.member("version").integer(_U32)
    if version not in {2, 3}:
        raise AttestationError(f"{path}.version", f"expected 2 or 3, found {version}")
    # Version 2 is of SGX only and does not say so.
    identity = document.member("id").one_of(("SGX", "TDX")) if version == 3 else "SGX"
    pceid = document.optional("pceId") if version == 2 else document.member("pceId")
    document.member("tcbType").integer(0)  # 0: components are compared one by one; no other is defined
    return TcbInfo(
        text,
        identity,
        version,
        document.member("issueDate").time(),
        document.member("nextUpdate").time(),
        document.member("fmspc").hexadecimal(6),
        None if pceid is None else pceid.hexadecimal(2),
        document.member("tcbEvaluationDataNumber").integer(_U32),
        tuple(_tcb_level(level, version) for level in _levels(document)),
    )


def parse_qe_identity(text: str, path: str = "enclaveIdentity") -> QeIdentity:
    """Return the QE identity `text`, the object that was signed. Raises AttestationError under `path`."""
    document = load(text, path)
    document.member("version").integer(2, 2)
    return QeIdentity(
        text,
        document.member("id").one_of(("QE", "TD_QE", "QVE")),
        document.member("issueDate").time(),
        document.member("nextUpdate").time(),
        document.member("tcbEvaluationDataNumber").integer(_U32),
        int.from_bytes(document.member("miscselect").hexadecimal(_MISCSELECT_SIZE), "little"),
        int.from_bytes(document.member("miscselectMask").hexadecimal(_MISCSELECT_SIZE), "little"),
        document.member("attributes").hexadecimal(_ATTRIBUTES_SIZE),
        document.member("attributesMask").hexadecimal(_ATTRIBUTES_SIZE),
        document.member("mrsigner").hexadecimal(32),
        document.member("isvprodid").integer(_U16),
        tuple(
            QeTcbLevel(
                level.member("tcb").member("isvsvn").integer(_U16),
                level.member("tcbDate").time(),
                level.member("tcbStatus").one_of(_QE_STATUSES),
                _advisory_ids(level),
            )
            for level in _levels(document)
        ),
    )


def _levels(document: Value) -> list[Value]:
    levels = list(document.member("tcbLevels").items())
    if not levels:
        raise AttestationError(f"{document.path}.tcbLevels", "expected at least one level, found none")
    return levels


def _tcb_level(level: Value, version: int) -> TcbLevel:
    tcb = level.member("tcb")
    if version == 3:
        array = tcb.member("sgxtcbcomponents")
        components = tuple(item.member("svn").integer(0xFF) for item in array.items())
        if len(components) != _COMPONENTS:
            raise AttestationError(array.path, f"expected {_COMPONENTS} components, found {len(components)}")
    else:
        names = (f"sgxtcbcomp{index:02}svn" for index in range(1, _COMPONENTS + 1))
        components = tuple(tcb.member(name).integer(0xFF) for name in names)
    return TcbLevel(
        components,
        tcb.member("pcesvn").integer(_U16),
        level.member("tcbDate").time(),
        level.member("tcbStatus").one_of(STATUSES),
        _advisory_ids(level),
    )


def _advisory_ids(level: Value) -> tuple[str, ...]:
    ids = level.optional("advisoryIDs")
    return () if ids is None else tuple(item.text() for item in ids.items())


def _masked(value: bytes, mask: Iterable[int]) -> bytes:
    return bytes(byte & bit for byte, bit in zip(value, mask, strict=True))
