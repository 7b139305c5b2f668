"""MRENCLAVE: the hash of what was built, as the processor computes it.

ECREATE, EADD and EEXTEND each extend a SHA-256 by one block of 64 bytes, EEXTEND by the data as well. These are
exactly the records of SGXS. Follows the Intel SDM, volume 3D, the operation sections of ECREATE, EADD and EEXTEND.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from inclavare.sgx.layout import BuildStep, Ecreate, Unmeasured, read_flat
from inclavare.sgx.pagestream import page_records, possible
from inclavare.sgx.sgxs import is_sgxs, read_sgxs, record

_RUN = 1 << 19  # bytes of an image that are turned into records at once: caches hold these


def mrenclave(steps: Iterable[BuildStep]) -> bytes:
    """Return the 32 bytes of MRENCLAVE after `steps`."""
    digest = hashlib.sha256()
    for step in steps:
        if not isinstance(step, Unmeasured):
            digest.update(record(step))
    return digest.digest()


def image_steps(data: bytes, ssa_frame_pages: int = 1) -> Iterator[BuildStep]:
    """Return the build steps of the image `data`, SGXS or flat; raises EnclaveError, also while iterating.

    `ssa_frame_pages` is used for flat images only; an SGXS stream says it itself.
    """
    return read_sgxs(data) if is_sgxs(data) else read_flat(data, ssa_frame_pages).steps()


def measure_image(data: bytes, ssa_frame_pages: int = 1) -> bytes:
    """Return the 32 bytes of MRENCLAVE of the image `data`, SGXS or flat. Raises EnclaveError."""
    if is_sgxs(data) or not possible():
        return mrenclave(image_steps(data, ssa_frame_pages))
    image = read_flat(data, ssa_frame_pages)
    digest = hashlib.sha256(record(Ecreate(image.ssa_frame_pages, image.enclave_size)))
    for offset, flags, pages in image.runs(_RUN):
        digest.update(page_records(offset, flags, pages))
    return digest.digest()


def mrsigner(modulus: bytes) -> bytes:
    """Return the 32 bytes of MRSIGNER: the SHA-256 of the signer's modulus, 384 bytes little endian."""
    return hashlib.sha256(modulus).digest()
