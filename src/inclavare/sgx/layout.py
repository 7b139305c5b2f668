"""Enclave images as streams of build steps, and the flat image of the skeleton.

An enclave is what the processor was told to build: one ECREATE, then EADD for each page and EEXTEND for each 256 bytes
that shall be measured. Every image format ends as an iterator of these `BuildStep` values; one consumer hashes them
(`measure`), another writes them down (`sgxs`), a loader carries them out.

The flat image is a program linked at 0 and cut to raw bytes: a TCS page, then pages that are all readable, writable and
executable, then 17 bytes of metadata at the start of the last page. The loader appends zero pages for the SSA frame and
for whatever `max_mmap_size` asks. All pages are measured. Images may be gigabytes once padded, hence iterators.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from inclavare.errors import EnclaveError
from inclavare.sgx.arch import (
    SGX_EEXTEND_SIZE,
    SGX_PAGE_SIZE,
    SGX_SECINFO_R,
    SGX_SECINFO_REG,
    SGX_SECINFO_TCS,
    SGX_SECINFO_W,
    SGX_SECINFO_X,
    Tcs,
)

METADATA_SIZE = 17
# Where an enclave that protects address 0 begins when its metadata names no mmap_min_addr.
DEFAULT_PROTECTED_OFFSET = 16 << 20
# CPUID.(EAX=12H, ECX=0):EDX[15:8] is 36 on every processor we know of. A wrong image stops here, not in a week.
MAX_ENCLAVE_SIZE = 1 << 36

_METADATA = struct.Struct("<QBQ")
_FLAT_FLAGS = SGX_SECINFO_REG | SGX_SECINFO_R | SGX_SECINFO_W | SGX_SECINFO_X
_ZERO_PAGE = bytes(SGX_PAGE_SIZE)


@dataclass(frozen=True, slots=True)
class Ecreate:
    """Begin an enclave of `size` bytes whose SSA frames have `ssa_frame_pages` pages."""

    ssa_frame_pages: int
    size: int


@dataclass(frozen=True, slots=True)
class Eadd:
    """Add the page at `offset` (bytes from the enclave's base) with SECINFO.FLAGS `flags`."""

    offset: int
    flags: int


@dataclass(frozen=True, slots=True)
class Eextend:
    """The 256 bytes `data` at `offset` belong to the page added last, and are measured."""

    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """The 256 bytes `data` at `offset` belong to the page added last, and are not measured."""

    offset: int
    data: bytes


BuildStep = Ecreate | Eadd | Eextend | Unmeasured


def checked(steps: Iterable[BuildStep]) -> Iterator[BuildStep]:
    """Yield `steps` unchanged; raise EnclaveError, with its number, at the first that cannot be carried out."""
    enclave: Ecreate | None = None
    added: set[int] = set()
    pieces: set[int] = set()
    page = -SGX_PAGE_SIZE
    for number, step in enumerate(steps):
        if isinstance(step, Ecreate):
            problem = _ecreate_problem(step, enclave)
            enclave = step
        elif enclave is None:
            problem = "an enclave begins with ECREATE"
        elif isinstance(step, Eadd):
            problem = _eadd_problem(step, enclave, added)
            page = step.offset
            added.add(page)
            pieces.clear()
        elif len(step.data) != SGX_EEXTEND_SIZE:
            problem = f"data come in pieces of {SGX_EEXTEND_SIZE} bytes, found {len(step.data)}"
        elif step.offset % SGX_EEXTEND_SIZE or not 0 <= step.offset - page < SGX_PAGE_SIZE:
            problem = f"offset {step.offset:#x} is not a piece of the page added last"
        elif step.offset in pieces:
            problem = f"the piece at {step.offset:#x} is there already"
        else:
            problem = ""
            pieces.add(step.offset)
        if problem:
            raise EnclaveError(f"cannot build the enclave, step {number} ({type(step).__name__}): {problem}")
        yield step
    if enclave is None:
        raise EnclaveError("cannot build the enclave: no steps")


def _ecreate_problem(step: Ecreate, before: Ecreate | None) -> str:
    if before is not None:
        return "a second ECREATE"
    if step.size < SGX_PAGE_SIZE or step.size & (step.size - 1) or step.size > MAX_ENCLAVE_SIZE:
        return f"the size must be a power of two from {SGX_PAGE_SIZE} to {MAX_ENCLAVE_SIZE}, found {step.size}"
    if not 0 < step.ssa_frame_pages <= step.size // SGX_PAGE_SIZE:
        return f"an SSA frame of {step.ssa_frame_pages} pages does not fit"
    return ""


def _eadd_problem(step: Eadd, enclave: Ecreate, added: set[int]) -> str:
    if step.offset % SGX_PAGE_SIZE or not 0 <= step.offset < enclave.size:
        return f"offset {step.offset:#x} is not a page of the enclave's {enclave.size:#x} bytes"
    if step.offset in added:
        return f"the page at {step.offset:#x} is there already"
    return ""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the last page of a flat image tells its loader.

    `max_mmap_size`: bytes to which the image is padded with zero pages, 0 for no more than needed.
    `null_dereference_protection`: the enclave lies at address 0, its first page at `mmap_min_addr` (0: at 16 MiB), so
    that nobody outside can map what a null pointer inside would reach.
    """

    max_mmap_size: int = 0
    null_dereference_protection: bool = False
    mmap_min_addr: int = 0

    @classmethod
    def from_bytes(cls, data: bytes) -> Metadata:
        """Return what 17 bytes say: u64 max_mmap_size, u8 protection, u64 mmap_min_addr. Raises EnclaveError."""
        if len(data) != METADATA_SIZE:
            raise EnclaveError(f"cannot read the image's metadata: they have {METADATA_SIZE} bytes, found {len(data)}")
        size, protection, min_addr = _METADATA.unpack(data)
        if protection > 1:
            raise EnclaveError(
                f"cannot read the image's metadata: null_dereference_protection must be 0 or 1, found {protection}"
            )
        return cls(size, bool(protection), min_addr)

    def to_bytes(self) -> bytes:
        """Return the 17 bytes. Raises EnclaveError for numbers beyond 64 bits."""
        try:
            return _METADATA.pack(self.max_mmap_size, self.null_dereference_protection, self.mmap_min_addr)
        except struct.error as error:
            raise EnclaveError(f"cannot write the image's metadata: {self} does not fit into 64 bits") from error


@dataclass(frozen=True, slots=True)
class FlatImage:
    """A flat image and where its parts will lie. Sizes and offsets in bytes, offsets from the enclave's base."""

    data: bytes
    metadata: Metadata
    ssa_frame_pages: int
    offset: int  # of the first page
    ssa_offset: int
    mmap_size: int  # the pages that are added
    enclave_size: int

    def steps(self) -> Iterator[BuildStep]:
        """Yield the build steps: every page ascending, each measured at once."""
        yield Ecreate(self.ssa_frame_pages, self.enclave_size)
        yield from _page_steps(self.offset, SGX_SECINFO_TCS, self._tcs())
        for start in range(SGX_PAGE_SIZE, self.mmap_size, SGX_PAGE_SIZE):
            page = (
                self.data[start : start + SGX_PAGE_SIZE].ljust(SGX_PAGE_SIZE, b"\0")
                if start < len(self.data)
                else _ZERO_PAGE
            )
            yield from _page_steps(self.offset + start, _FLAT_FLAGS, page)

    def runs(self, most: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield what `steps` adds behind ECREATE in runs of pages: offset, SECINFO.FLAGS, at most `most` bytes."""
        yield self.offset, SGX_SECINFO_TCS, self._tcs()
        for start in range(SGX_PAGE_SIZE, self.mmap_size, most):
            size = min(most, self.mmap_size - start)
            yield self.offset + start, _FLAT_FLAGS, self.data[start : start + size].ljust(size, b"\0")

    def _tcs(self) -> bytes:
        """Return the TCS page with the two offsets that only the loader knows."""
        tcs = Tcs.from_bytes(self.data[:SGX_PAGE_SIZE])
        return replace(tcs, ossa=self.ssa_offset, oentry=tcs.oentry + self.offset).to_bytes()


def read_flat(data: bytes, ssa_frame_pages: int = 1) -> FlatImage:
    """Return the flat image in `data`, laid out for SSA frames of `ssa_frame_pages` pages. Raises EnclaveError."""
    if len(data) < SGX_PAGE_SIZE + METADATA_SIZE or len(data) % SGX_PAGE_SIZE != METADATA_SIZE:
        raise EnclaveError(
            f"cannot read the enclave image: a flat image has whole pages and {METADATA_SIZE} bytes of metadata,"
            f" found {len(data)} bytes",
            "an image in SGXS format begins with ECREATE",
        )
    metadata = Metadata.from_bytes(data[-METADATA_SIZE:])
    offset = 0
    if metadata.null_dereference_protection:
        offset = metadata.mmap_min_addr or DEFAULT_PROTECTED_OFFSET
        if offset % SGX_PAGE_SIZE:
            raise EnclaveError(f"cannot lay out the enclave: mmap_min_addr {offset:#x} is not a multiple of a page")
    image_size = _page_round(len(data))
    mmap_size = _page_round(_padded_size(image_size + ssa_frame_pages * SGX_PAGE_SIZE, metadata.max_mmap_size))
    enclave_size = max(SGX_PAGE_SIZE, 1 << (offset + mmap_size - 1).bit_length())
    if enclave_size > MAX_ENCLAVE_SIZE:
        raise EnclaveError(
            f"cannot lay out the enclave: it would have {enclave_size} bytes, and {MAX_ENCLAVE_SIZE} are possible"
        )
    return FlatImage(data, metadata, ssa_frame_pages, offset, offset + image_size, mmap_size, enclave_size)


def flat_with_metadata(data: bytes, metadata: Metadata) -> bytes:
    """Return the flat image `data` with other metadata. Raises EnclaveError when either cannot be laid out."""
    read_flat(data)
    changed = data[:-METADATA_SIZE] + metadata.to_bytes()
    read_flat(changed)
    return changed


def _padded_size(needed: int, max_mmap_size: int) -> int:
    if not max_mmap_size:
        return needed
    if max_mmap_size < needed:
        raise EnclaveError(
            f"Invalid enclave mmap size {max_mmap_size}, set enclave mmap size larger than {needed}.",
            "sign the image with a larger --mmap-size, or with 0 for the smallest that is possible",
        )
    return max_mmap_size


def _page_steps(offset: int, flags: int, page: bytes) -> Iterator[BuildStep]:
    yield Eadd(offset, flags)
    for start in range(0, SGX_PAGE_SIZE, SGX_EEXTEND_SIZE):
        yield Eextend(offset + start, page[start : start + SGX_EEXTEND_SIZE])


def _page_round(size: int) -> int:
    return -(-size // SGX_PAGE_SIZE) * SGX_PAGE_SIZE
