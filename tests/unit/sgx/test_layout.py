from __future__ import annotations

import contextlib
import itertools
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inclavare.errors import EnclaveError
from inclavare.sgx.layout import (
    BuildStep,
    Eadd,
    Ecreate,
    Eextend,
    Metadata,
    Unmeasured,
    checked,
    flat_with_metadata,
    read_flat,
)

PIECE = bytes(256)


def pages_of(steps: list[BuildStep]) -> dict[int, tuple[int, bytes]]:
    """Return page offset -> (SECINFO flags, measured content)."""
    pages: dict[int, tuple[int, bytes]] = {}
    page = 0
    for step in steps:
        if isinstance(step, Eadd):
            page = step.offset
            pages[page] = (step.flags, b"")
        elif isinstance(step, Eextend):
            flags, content = pages[page]
            assert step.offset == page + len(content)
            pages[page] = (flags, content + step.data)
    return pages


def test_metadata_are_seventeen_packed_bytes() -> None:
    assert Metadata(0, False, 65536).to_bytes() == bytes(9) + bytes.fromhex("0000010000000000")


@given(st.binary(min_size=17, max_size=17))
def test_metadata_survive_a_round_trip_or_are_refused(data: bytes) -> None:
    try:
        assert Metadata.from_bytes(data).to_bytes() == data
    except EnclaveError:
        assert data[8] > 1


def test_the_first_page_is_the_tcs_with_the_loaders_offsets(image: bytes) -> None:
    flat = read_flat(flat_with_metadata(image, Metadata(0, null_dereference_protection=True, mmap_min_addr=65536)))
    flags, tcs = pages_of(list(flat.steps()))[65536]
    assert flags == 0x100
    assert struct.unpack_from("<Q", tcs, 16) == (65536 + 12288,)
    assert struct.unpack_from("<Q", tcs, 32) == (65536 + 0x1000,)
    assert tcs[64:72] == b"\xff" * 8


def test_all_other_pages_are_read_write_execute_and_the_rest_is_zero(image: bytes) -> None:
    pages = pages_of(list(read_flat(flat_with_metadata(image, Metadata(0x8000))).steps()))
    assert sorted(pages) == list(range(0, 0x8000, 4096))
    assert pages[0x1000] == (0x207, b"\x90" * 4096)
    assert pages[0x2000] == (0x207, (0x8000).to_bytes(8, "little").ljust(4096, b"\0"))
    for offset in range(0x3000, 0x8000, 4096):
        assert pages[offset] == (0x207, bytes(4096))


@pytest.mark.parametrize(
    ("metadata", "ssa_frame_pages", "offset", "mmap_size", "enclave_size"),
    [
        (Metadata(), 1, 0, 16384, 16384),
        (Metadata(), 2, 0, 20480, 32768),
        (Metadata(65536), 1, 0, 65536, 65536),
        (Metadata(65537), 1, 0, 69632, 131072),
        (Metadata(0, True, 65536), 1, 65536, 16384, 131072),
        (Metadata(0, True, 0), 1, 16 << 20, 16384, 32 << 20),
        (Metadata(0, False, 65536), 1, 0, 16384, 16384),
    ],
)
def test_sizes_follow_the_metadata(
    image: bytes, metadata: Metadata, ssa_frame_pages: int, offset: int, mmap_size: int, enclave_size: int
) -> None:
    flat = read_flat(image[:-17] + metadata.to_bytes(), ssa_frame_pages)
    assert (flat.offset, flat.mmap_size, flat.enclave_size) == (offset, mmap_size, enclave_size)
    assert flat.ssa_offset == offset + 12288


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        (Metadata(4096), "Invalid enclave mmap size 4096, set enclave mmap size larger than 16384."),
        (Metadata(1 << 60), "it would have 1152921504606846976 bytes"),
        (Metadata(0, True, 100), "mmap_min_addr 0x64 is not a multiple of a page"),
    ],
)
def test_metadata_that_cannot_be_laid_out_are_refused(image: bytes, metadata: Metadata, sentence: str) -> None:
    with pytest.raises(EnclaveError, match=sentence):
        flat_with_metadata(image, metadata)


@pytest.mark.parametrize("cut", [0, 16, 18, 4096, 8192])
def test_an_image_of_the_wrong_size_is_refused(image: bytes, cut: int) -> None:
    with pytest.raises(EnclaveError, match="a flat image has whole pages and 17 bytes of metadata"):
        read_flat(image[:cut])


@given(st.integers(1, 3), st.binary(max_size=40), st.binary(min_size=17, max_size=17))
@example(1, b"", bytes(17))
@example(2, b"\xff" * 40, bytes(17))
def test_random_images_are_laid_out_or_refused_with_our_error(pages: int, start: bytes, metadata: bytes) -> None:
    with contextlib.suppress(EnclaveError):
        flat = read_flat(start.ljust(4096 * pages, b"\0") + metadata)
        steps = list(itertools.islice(checked(flat.steps()), 40))
        assert steps[0] == Ecreate(1, flat.enclave_size)


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([], "no steps"),
        ([Eadd(0, 0x200)], r"step 0 \(Eadd\): an enclave begins with ECREATE"),
        ([Ecreate(1, 8192), Ecreate(1, 8192)], r"step 1 \(Ecreate\): a second ECREATE"),
        ([Ecreate(1, 5000)], "must be a power of two from 4096 to 68719476736, found 5000"),
        ([Ecreate(1, 1 << 40)], "found 1099511627776"),
        ([Ecreate(0, 8192)], "an SSA frame of 0 pages does not fit"),
        ([Ecreate(3, 8192)], "an SSA frame of 3 pages does not fit"),
        ([Ecreate(1, 8192), Eadd(8192, 0x200)], "offset 0x2000 is not a page of the enclave"),
        ([Ecreate(1, 8192), Eadd(100, 0x200)], "offset 0x64 is not a page of the enclave"),
        ([Ecreate(1, 8192), Eadd(0, 0x200), Eadd(0, 0x200)], "the page at 0x0 is there already"),
        ([Ecreate(1, 8192), Eextend(0, PIECE)], "is not a piece of the page added last"),
        ([Ecreate(1, 8192), Eadd(4096, 0x200), Eextend(0, PIECE)], "offset 0x0 is not a piece"),
        ([Ecreate(1, 8192), Eadd(0, 0x200), Eextend(4096, PIECE)], "offset 0x1000 is not a piece"),
        ([Ecreate(1, 8192), Eadd(0, 0x200), Unmeasured(128, PIECE)], "offset 0x80 is not a piece"),
        ([Ecreate(1, 8192), Eadd(0, 0x200), Eextend(0, b"x")], "pieces of 256 bytes, found 1"),
        ([Ecreate(1, 8192), Eadd(0, 0x200), Eextend(0, PIECE), Unmeasured(0, PIECE)], "the piece at 0x0 is there"),
    ],
)
def test_steps_that_build_no_enclave_are_refused_by_number(steps: list[BuildStep], sentence: str) -> None:
    with pytest.raises(EnclaveError, match=sentence):
        list(checked(steps))
