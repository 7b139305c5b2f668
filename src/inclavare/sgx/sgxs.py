"""SGXS, the stream format for enclaves: the bytes that are measured, in the order in which they are measured.

A stream is a sequence of records of 64 bytes, each opened by an eight-byte tag: `ECREATE`, `EADD`, `EEXTEND`, padded
with zeros, laid out exactly as the processor hashes them; EEXTEND is followed by its 256 bytes of data. A fourth
record, `UNMEASRD`, is laid out as EEXTEND and carries data that the loader writes without measuring them. So MRENCLAVE
is the SHA-256 of the stream without its UNMEASRD records.

Follows doc/SGXS.md of Fortanix's rust-sgx, with the extension for unmeasured data ("ESGXS"). Pages may come in any
order, which is more than its "canonical" streams allow; nothing may come twice. Streams whose size is still to be
determined (UNSIZED) are not read: they cannot be measured.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from inclavare.errors import EnclaveError
from inclavare.sgx.arch import SGX_EEXTEND_SIZE
from inclavare.sgx.layout import BuildStep, Eadd, Ecreate, Eextend, Unmeasured, checked

RECORD_SIZE = 64
ECREATE_TAG = b"ECREATE\0"
EADD_TAG = b"EADD\0\0\0\0"
EEXTEND_TAG = b"EEXTEND\0"
UNMEASURED_TAG = b"UNMEASRD"

_ECREATE = struct.Struct("<8sIQ44s")
_EADD = struct.Struct("<8sQQ40s")
_EEXTEND = struct.Struct("<8sQ48s")


def is_sgxs(data: bytes) -> bool:
    """Tell whether `data` begin as an SGXS stream does."""
    return data.startswith(ECREATE_TAG)


def record(step: BuildStep) -> bytes:
    """Return the record of one step: 64 bytes, with data 320. Raises EnclaveError for numbers that do not fit."""
    try:
        if isinstance(step, Ecreate):
            return _ECREATE.pack(ECREATE_TAG, step.ssa_frame_pages, step.size, b"")
        if isinstance(step, Eadd):
            return _EADD.pack(EADD_TAG, step.offset, step.flags, b"")
        tag = EEXTEND_TAG if isinstance(step, Eextend) else UNMEASURED_TAG
        return _EEXTEND.pack(tag, step.offset, b"") + step.data
    except struct.error as error:
        raise EnclaveError(f"cannot write {step} as SGXS: {error}") from error


def write_sgxs(steps: Iterable[BuildStep]) -> Iterator[bytes]:
    """Yield the stream of `steps`, a record at a time. Raises EnclaveError for steps that build no enclave."""
    for step in checked(steps):
        yield record(step)


def read_sgxs(data: bytes) -> Iterator[BuildStep]:
    """Yield the steps of the stream `data`. Raises EnclaveError, with the offset in the stream, for what is no SGXS."""
    return checked(_records(data))


def _records(data: bytes) -> Iterator[BuildStep]:
    position = 0
    while position < len(data):
        block = data[position : position + RECORD_SIZE]
        if len(block) < RECORD_SIZE:
            raise EnclaveError(f"cannot read the SGXS stream: it ends within the record at byte {position}")
        tag = block[:8]
        start = position
        position += RECORD_SIZE
        if tag == ECREATE_TAG:
            _, ssa_frame_pages, size, padding = _ECREATE.unpack(block)
            step: BuildStep = Ecreate(ssa_frame_pages, size)
        elif tag == EADD_TAG:
            _, offset, flags, padding = _EADD.unpack(block)
            step = Eadd(offset, flags)
        elif tag in {EEXTEND_TAG, UNMEASURED_TAG}:
            _, offset, padding = _EEXTEND.unpack(block)
            piece = data[position : position + SGX_EEXTEND_SIZE]
            position += SGX_EEXTEND_SIZE
            step = Eextend(offset, piece) if tag == EEXTEND_TAG else Unmeasured(offset, piece)
        else:
            raise EnclaveError(f"cannot read the SGXS stream: no record begins with {tag!r}, at byte {start}")
        if any(padding):
            raise EnclaveError(f"cannot read the SGXS stream: the record at byte {start} is not padded with zeros")
        yield step
