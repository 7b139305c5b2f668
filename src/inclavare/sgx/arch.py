"""What SGX fixes: constants, and the structures as they lie in memory.

Every structure is one frozen dataclass whose fields are written in the order of memory, each with the code of the
`struct` module that lays it out; all integers are little endian. `from_bytes` and `to_bytes` convert. Byte fields are
kept in the order of memory, so the modulus in a SIGSTRUCT is little endian as well.

Follows the Intel SDM, volume 3D, chapter "Enclave Access Control and Data Structures"; constants are spelled as in
native/include/sgx_arch.h, with which a test compares. Says nothing about what values mean together: see `measure`,
`sign`, `sigstruct`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from inclavare.errors import EnclaveError

SGX_PAGE_SIZE = 4096
SGX_EEXTEND_SIZE = 256  # bytes measured by one EEXTEND

# SECINFO.FLAGS: permissions and page type ("SECINFO Flags").
SGX_SECINFO_R = 0x1
SGX_SECINFO_W = 0x2
SGX_SECINFO_X = 0x4
SGX_SECINFO_TCS = 0x100
SGX_SECINFO_REG = 0x200

# ATTRIBUTES, the first eight of its sixteen bytes ("ATTRIBUTES"); the others are XFRM.
SGX_ATTR_INIT = 0x01
SGX_ATTR_DEBUG = 0x02
SGX_ATTR_MODE64BIT = 0x04
SGX_ATTR_PROVISIONKEY = 0x10
SGX_ATTR_EINITTOKENKEY = 0x20
SGX_ATTR_CET = 0x40
SGX_ATTR_KSS = 0x80
SGX_ATTR_AEXNOTIFY = 0x400
ATTRIBUTE_NAMES = {
    SGX_ATTR_INIT: "INIT",
    SGX_ATTR_DEBUG: "DEBUG",
    SGX_ATTR_MODE64BIT: "MODE64BIT",
    SGX_ATTR_PROVISIONKEY: "PROVISIONKEY",
    SGX_ATTR_EINITTOKENKEY: "EINITTOKENKEY",
    SGX_ATTR_CET: "CET",
    SGX_ATTR_KSS: "KSS",
    SGX_ATTR_AEXNOTIFY: "AEXNOTIFY",
}

SGX_XFRM_LEGACY = 0x3  # x87 and SSE: the two bits that must be set
SGX_MISCSELECT_EXINFO = 0x1

SGX_SIGSTRUCT_HEADER = bytes.fromhex("06000000e100000000000100")
SGX_SIGSTRUCT_HEADER2 = bytes.fromhex("01010000600000006000000001000000")
SGX_SIGSTRUCT_TYPE_DEBUG = 0x80000000
SGX_SIGSTRUCT_VENDOR_INTEL = 0x8086
SGX_MODULUS_SIZE = 384
SGX_EXPONENT = 3

SSA_GPRSGX_SIZE = 184
SSA_MISC_EXINFO_SIZE = 16
_XSAVE_LEGACY_SIZE = 576  # FXSAVE area and XSAVE header
# Size and offset of each XSAVE state component, by its bit in XFRM, as CPUID.(EAX=0DH, ECX=bit) says on Intel's
# processors. Intel has never moved a component; where the table is silent, we cannot know and say so.
_XSAVE_COMPONENTS = {
    2: (256, 576),  # AVX
    3: (64, 960),  # MPX bounds registers
    4: (64, 1024),  # MPX configuration
    5: (64, 1088),  # AVX-512 opmask
    6: (512, 1152),  # AVX-512, upper halves of ZMM0-15
    7: (1024, 1664),  # AVX-512, ZMM16-31
    9: (8, 2688),  # PKRU
    17: (64, 2752),  # AMX tile configuration
    18: (8192, 2816),  # AMX tile data
}


def ssa_frame_pages(xfrm: int, miscselect: int = 0) -> int:
    """Return the pages of one SSA frame (SECS.SSAFRAMESIZE) that saves the state selected by `xfrm` and `miscselect`.

    The answer depends on nothing but its arguments, so that an enclave is measured alike on every machine. Raises
    EnclaveError for a state component whose size is not known here. Source: SDM, "State Save Area (SSA) Frame".
    """
    xsave_end = _XSAVE_LEGACY_SIZE
    for bit in range(2, 64):
        if not xfrm >> bit & 1:
            continue
        if bit not in _XSAVE_COMPONENTS:
            raise EnclaveError(
                f"cannot size the SSA frame for XFRM {xfrm:#x}: the size of state component {bit} is not known",
                f"leave bit {bit} out of XFRM",
            )
        size, offset = _XSAVE_COMPONENTS[bit]
        xsave_end = max(xsave_end, offset + size)
    total = xsave_end + SSA_GPRSGX_SIZE + (SSA_MISC_EXINFO_SIZE if miscselect & SGX_MISCSELECT_EXINFO else 0)
    return -(-total // SGX_PAGE_SIZE)


def attribute_names(attributes: int) -> str:
    """Return the set bits of `attributes` by name, as in `DEBUG|MODE64BIT`; bits without a name in hex; `0` if none."""
    names = [name for bit, name in ATTRIBUTE_NAMES.items() if attributes & bit]
    unnamed = attributes & ~sum(ATTRIBUTE_NAMES)
    if unnamed:
        names.append(f"{unnamed:#x}")
    return "|".join(names) or "0"


def _wire(code: str) -> Any:
    """Declare a field that `struct` lays out with `code`; it is zero unless given."""
    default: int | bytes = bytes(struct.calcsize(code)) if code.endswith("s") else 0
    return field(default=default, metadata={"code": code})


class Record:
    """A structure of fixed layout; subclasses are dataclasses whose fields are made by `_wire`."""

    NAME: ClassVar[str]
    SIZE: ClassVar[int]

    @classmethod
    def offsets(cls) -> dict[str, tuple[int, int]]:
        """Return where each field lies: its name -> (offset, size), both in bytes."""
        places = {}
        offset = 0
        for name, code in cls._codes():
            size = struct.calcsize("<" + code)
            places[name] = (offset, size)
            offset += size
        return places

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the structure that the `SIZE` bytes of `data` hold. Raises EnclaveError for any other size."""
        if len(data) != cls.SIZE:
            raise EnclaveError(f"cannot read a {cls.NAME}: it has {cls.SIZE} bytes, found {len(data)}")
        codes = cls._codes()
        values = struct.unpack("<" + "".join(code for _, code in codes), data)
        return cls(**dict(zip((name for name, _ in codes), values, strict=True)))

    def to_bytes(self) -> bytes:
        """Return the `SIZE` bytes. Raises EnclaveError, naming the field, for a value that its field cannot hold."""
        parts = []
        for name, code in self._codes():
            value = getattr(self, name)
            packer = struct.Struct("<" + code)
            # struct would cut or pad byte strings without a word.
            if isinstance(value, bytes) and len(value) != packer.size:
                raise EnclaveError(f"{self.NAME}.{name} has {packer.size} bytes, found {len(value)}")
            try:
                parts.append(packer.pack(value))
            except struct.error as error:
                raise EnclaveError(f"{self.NAME}.{name} has {packer.size} bytes and cannot hold {value!r}") from error
        return b"".join(parts)

    @classmethod
    def _codes(cls) -> list[tuple[str, str]]:
        return [(item.name, item.metadata["code"]) for item in fields(cls)]  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Sigstruct(Record):
    """The signature over an enclave and its signer's public key (SDM, "Enclave Signature Structure (SIGSTRUCT)")."""

    NAME = "SIGSTRUCT"
    SIZE = 1808

    header: bytes = _wire("12s")
    type: int = _wire("I")
    vendor: int = _wire("I")
    date: int = _wire("I")  # 0xYYYYMMDD; not checked by the processor
    header2: bytes = _wire("16s")
    swdefined: int = _wire("I")
    reserved1: bytes = _wire("84s")
    modulus: bytes = _wire("384s")  # little endian, as are signature, q1 and q2
    exponent: int = _wire("I")
    signature: bytes = _wire("384s")
    miscselect: int = _wire("I")
    miscmask: int = _wire("I")
    cet_attributes: int = _wire("B")
    cet_attributes_mask: int = _wire("B")
    reserved2: bytes = _wire("2s")
    isvfamilyid: bytes = _wire("16s")
    attributes: int = _wire("Q")
    xfrm: int = _wire("Q")
    attributes_mask: int = _wire("Q")
    xfrm_mask: int = _wire("Q")
    enclavehash: bytes = _wire("32s")  # MRENCLAVE
    reserved3: bytes = _wire("16s")
    isvextprodid: bytes = _wire("16s")
    isvprodid: int = _wire("H")
    isvsvn: int = _wire("H")
    reserved4: bytes = _wire("12s")
    q1: bytes = _wire("384s")
    q2: bytes = _wire("384s")


@dataclass(frozen=True, slots=True)
class Secs(Record):
    """The control structure of an enclave, which ECREATE reads (SDM, "SGX Enclave Control Structure (SECS)")."""

    NAME = "SECS"
    SIZE = 4096

    size: int = _wire("Q")  # a power of two
    base: int = _wire("Q")  # a multiple of size
    ssaframesize: int = _wire("I")  # pages
    miscselect: int = _wire("I")
    cet_leg_bitmap_offset: int = _wire("Q")
    cet_attributes: int = _wire("B")
    reserved1: bytes = _wire("15s")
    attributes: int = _wire("Q")
    xfrm: int = _wire("Q")
    mrenclave: bytes = _wire("32s")
    reserved2: bytes = _wire("32s")
    mrsigner: bytes = _wire("32s")
    reserved3: bytes = _wire("32s")
    configid: bytes = _wire("64s")
    isvprodid: int = _wire("H")
    isvsvn: int = _wire("H")
    configsvn: int = _wire("H")
    reserved4: bytes = _wire("3834s")


@dataclass(frozen=True, slots=True)
class Tcs(Record):
    """A page through which one thread at a time enters (SDM, "Thread Control Structure (TCS)")."""

    NAME = "TCS"
    SIZE = 4096

    state: int = _wire("Q")
    flags: int = _wire("Q")
    ossa: int = _wire("Q")  # offsets are relative to the base of the enclave
    cssa: int = _wire("I")
    nssa: int = _wire("I")
    oentry: int = _wire("Q")
    aep: int = _wire("Q")
    ofsbase: int = _wire("Q")
    ogsbase: int = _wire("Q")
    fslimit: int = _wire("I")
    gslimit: int = _wire("I")
    ocetssa: int = _wire("Q")
    oprevssp: int = _wire("Q")
    reserved: bytes = _wire("4008s")


@dataclass(frozen=True, slots=True)
class TargetInfo(Record):
    """Names the enclave that shall be able to verify a report (SDM, "Report Target Info (TARGETINFO)")."""

    NAME = "TARGETINFO"
    SIZE = 512

    mrenclave: bytes = _wire("32s")
    attributes: int = _wire("Q")
    xfrm: int = _wire("Q")
    cet_attributes: int = _wire("B")
    reserved1: bytes = _wire("1s")
    configsvn: int = _wire("H")
    miscselect: int = _wire("I")
    reserved2: bytes = _wire("8s")
    configid: bytes = _wire("64s")
    reserved3: bytes = _wire("384s")


@dataclass(frozen=True, slots=True)
class ReportBody(Record):
    """What a report says about an enclave: a REPORT without key id and MAC (SDM, "REPORT (REPORT)")."""

    NAME = "report body"
    SIZE = 384

    cpusvn: bytes = _wire("16s")
    miscselect: int = _wire("I")
    cet_attributes: int = _wire("B")
    reserved1: bytes = _wire("11s")
    isvextprodid: bytes = _wire("16s")
    attributes: int = _wire("Q")
    xfrm: int = _wire("Q")
    mrenclave: bytes = _wire("32s")
    reserved2: bytes = _wire("32s")
    mrsigner: bytes = _wire("32s")
    reserved3: bytes = _wire("32s")
    configid: bytes = _wire("64s")
    isvprodid: int = _wire("H")
    isvsvn: int = _wire("H")
    configsvn: int = _wire("H")
    reserved4: bytes = _wire("42s")
    isvfamilyid: bytes = _wire("16s")
    reportdata: bytes = _wire("64s")

    @property
    def debug(self) -> bool:
        """Whether a debugger may read and write the enclave."""
        return bool(self.attributes & SGX_ATTR_DEBUG)


@dataclass(frozen=True, slots=True)
class Report(Record):
    """What EREPORT says about an enclave, with a MAC for the target only (SDM, "REPORT (REPORT)")."""

    NAME = "REPORT"
    SIZE = 432

    cpusvn: bytes = _wire("16s")
    miscselect: int = _wire("I")
    cet_attributes: int = _wire("B")
    reserved1: bytes = _wire("11s")
    isvextprodid: bytes = _wire("16s")
    attributes: int = _wire("Q")
    xfrm: int = _wire("Q")
    mrenclave: bytes = _wire("32s")
    reserved2: bytes = _wire("32s")
    mrsigner: bytes = _wire("32s")
    reserved3: bytes = _wire("32s")
    configid: bytes = _wire("64s")
    isvprodid: int = _wire("H")
    isvsvn: int = _wire("H")
    configsvn: int = _wire("H")
    reserved4: bytes = _wire("42s")
    isvfamilyid: bytes = _wire("16s")
    reportdata: bytes = _wire("64s")
    keyid: bytes = _wire("32s")
    mac: bytes = _wire("16s")


@dataclass(frozen=True, slots=True)
class EinitToken(Record):
    """A launch enclave's permission for EINIT (SDM, "EINIT Token Structure (EINITTOKEN)")."""

    NAME = "EINITTOKEN"
    SIZE = 304

    valid: int = _wire("I")
    reserved1: bytes = _wire("44s")
    attributes: int = _wire("Q")
    xfrm: int = _wire("Q")
    mrenclave: bytes = _wire("32s")
    reserved2: bytes = _wire("32s")
    mrsigner: bytes = _wire("32s")
    reserved3: bytes = _wire("32s")
    cpusvnle: bytes = _wire("16s")
    isvprodidle: int = _wire("H")
    isvsvnle: int = _wire("H")
    reserved4: bytes = _wire("24s")
    maskedmiscselectle: int = _wire("I")
    maskedattributesle: int = _wire("Q")
    maskedxfrmle: int = _wire("Q")
    keyid: bytes = _wire("32s")
    mac: bytes = _wire("16s")
