"""Images for the test host: pages of an ELF file with their SIGSTRUCT, measured and signed here.

Independent of inclavare.sgx on purpose: the emulator is checked against the manual twice, not against our own Python.
The file: a header of 8-byte words, the SIGSTRUCT at 4096, page records (offset, SECINFO.FLAGS, measure) at 8192, then
the pages, aligned to 4096 (struct image of host.h).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

PAGE = 4096
EEXTEND = 256
R, W, X, TCS, REG = 1, 2, 4, 0x100, 0x200
PF_TCS = 1 << 20  # of p_flags, set by enclave.lds
SIGSTRUCT = struct.Struct("<12sIII16sI84s384sI384sII4s16sQQQQ32s16s16sHH12s384s384s")
HEADER = bytes.fromhex("06000000e100000000000100")
HEADER2 = bytes.fromhex("01010000600000006000000001000000")


@dataclass(frozen=True)
class Identity:
    """What a signer chooses: fields of SECS and of SIGSTRUCT."""

    attributes: int = 0x06  # MODE64BIT, DEBUG
    attributes_mask: int = 0xFFFFFFFFFFFFFFFF
    secs_attributes: int | None = None  # where SECS is to differ from SIGSTRUCT
    xfrm: int = 3
    xfrm_mask: int = 0xFFFFFFFFFFFFFFFF
    secs_xfrm: int | None = None
    miscselect: int = 1  # EXINFO
    miscmask: int = 0xFFFFFFFF
    secs_miscselect: int | None = None
    isvprodid: int = 7
    isvsvn: int = 3
    vendor: int = 0
    sigtype: int = 0
    isvfamilyid: bytes = bytes(16)
    isvextprodid: bytes = bytes(16)
    configid: bytes = bytes(64)
    configsvn: int = 0
    ssaframesize: int = 1


@dataclass(frozen=True)
class Page:
    """One page: offset in the enclave, SECINFO.FLAGS, 4096 bytes, and whether it is EEXTENDed."""

    offset: int
    flags: int
    data: bytes
    measure: bool = True


def elf_pages(elf: bytes) -> list[Page]:
    """Return the pages of an ELF file's PT_LOAD segments."""
    (table,) = struct.unpack_from("<Q", elf, 32)
    (count,) = struct.unpack_from("<H", elf, 56)
    pages: list[Page] = []
    for index in range(count):
        kind, flags, start, address, _, filesz, memsz, _ = struct.unpack_from("<IIQQQQQQ", elf, table + 56 * index)
        if kind != 1 or not memsz:
            continue
        secinfo = TCS if flags & PF_TCS else REG | (flags >> 2 & R) | (flags & W) | (flags << 2 & X)
        data = elf[start : start + filesz].ljust(-(-memsz // PAGE) * PAGE, b"\0")
        pages += [Page(address + at, secinfo, data[at : at + PAGE]) for at in range(0, len(data), PAGE)]
    return pages


def enclave_size(pages: list[Page]) -> int:
    """Return ELRANGE's size: a power of two that holds all pages."""
    end: int = max(page.offset for page in pages) + PAGE
    return max(2 * PAGE, 1 << (end - 1).bit_length())


def mrenclave(pages: list[Page], size: int, ssaframesize: int) -> bytes:
    """Return MRENCLAVE of pages added in this order."""
    digest = hashlib.sha256(struct.pack("<8sIQ44x", b"ECREATE", ssaframesize, size))
    for page in pages:
        digest.update(struct.pack("<8sQQ40x", b"EADD", page.offset, page.flags))
        for at in range(0, PAGE if page.measure else 0, EEXTEND):
            digest.update(struct.pack("<8sQ48x", b"EEXTEND", page.offset + at))
            digest.update(page.data[at : at + EEXTEND])
    return digest.digest()


def quotients(signature: int, modulus: int) -> tuple[int, int]:
    """Return SIGSTRUCT's Q1 and Q2."""
    q1, remainder = divmod(signature * signature, modulus)
    return q1, signature * remainder // modulus


def sign(key: RSAPrivateKey, identity: Identity, measurement: bytes) -> bytes:
    """Return a SIGSTRUCT, 1808 bytes."""
    modulus = key.public_key().public_numbers().n
    number = modulus.to_bytes(384, "little")

    def pack(signature: bytes, q1: bytes, q2: bytes) -> bytes:
        i = identity
        return SIGSTRUCT.pack(
            HEADER, i.sigtype, i.vendor, 0x20260101, HEADER2, 0, b"",
            number, 3, signature,
            i.miscselect, i.miscmask, b"", i.isvfamilyid, i.attributes, i.xfrm, i.attributes_mask, i.xfrm_mask,
            measurement, b"", i.isvextprodid, i.isvprodid, i.isvsvn, b"", q1, q2,
        )  # fmt: skip

    unsigned = pack(b"", b"", b"")
    signature = key.sign(unsigned[:128] + unsigned[900:1028], padding.PKCS1v15(), hashes.SHA256())
    q1, q2 = quotients(int.from_bytes(signature, "big"), modulus)
    return pack(signature[::-1], q1.to_bytes(384, "little"), q2.to_bytes(384, "little"))


def patched(pages: list[Page], offset: int, patch: bytes) -> list[Page]:
    """Return pages with some bytes of one of them changed: another enclave."""
    result = []
    for page in pages:
        at = offset - page.offset
        if 0 <= at < PAGE:
            page = replace(page, data=page.data[:at] + patch + page.data[at + len(patch) :])  # noqa: PLW2901
        result.append(page)
    return result


def build(path: Path, pages: list[Page], key: RSAPrivateKey, identity: Identity) -> bytes:
    """Write an image and return its MRENCLAVE."""
    size = enclave_size(pages)
    measurement = mrenclave(pages, size, identity.ssaframesize)
    i = identity
    header = struct.pack(
        "<8sQQQQQQQ64s",
        b"TESTIMG1",
        size,
        i.ssaframesize,
        i.attributes if i.secs_attributes is None else i.secs_attributes,
        i.xfrm if i.secs_xfrm is None else i.secs_xfrm,
        i.miscselect if i.secs_miscselect is None else i.secs_miscselect,
        len(pages),
        i.configsvn,
        i.configid,
    )
    records = b"".join(struct.pack("<QQQ", page.offset, page.flags, page.measure) for page in pages)
    with path.open("wb") as image:
        image.write(header.ljust(PAGE, b"\0"))
        image.write(sign(key, identity, measurement).ljust(PAGE, b"\0"))
        image.write(records.ljust(-(-len(records) // PAGE) * PAGE, b"\0"))
        for page in pages:
            image.write(page.data)
    return measurement
