from __future__ import annotations

import contextlib
import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.errors import EnclaveError
from inclavare.sgx.layout import BuildStep, Eadd, Ecreate, Eextend, Metadata, Unmeasured, flat_with_metadata, read_flat
from inclavare.sgx.measure import image_steps, measure_image, mrenclave
from inclavare.sgx.sgxs import EADD_TAG, ECREATE_TAG, EEXTEND_TAG, UNMEASURED_TAG, read_sgxs, record, write_sgxs

EXAMPLE: list[BuildStep] = [
    Ecreate(1, 8192),
    Eadd(0, 0x100),
    Eextend(0, b"\1" * 256),
    Unmeasured(256, b"\2" * 256),
    Eadd(4096, 0x203),
]


@given(
    pages=st.integers(0, 3),
    frame_pages=st.integers(1, 2),
    padding=st.integers(0, 600),
    protect=st.booleans(),
    seed=st.randoms(),
)
def test_whole_runs_of_pages_measure_as_their_steps_do(
    pages: int, frame_pages: int, padding: int, protect: bool, seed: random.Random
) -> None:
    needed = (pages + 2 + frame_pages) * 4096
    metadata = Metadata(padding and needed + padding * 4096, protect, 65536)
    data = bytes(4096) + seed.randbytes(pages * 4096) + metadata.to_bytes()
    assert measure_image(data, frame_pages) == mrenclave(image_steps(data, frame_pages))


def test_ecreate_alone_hashes_one_block() -> None:
    expected = "1ae08d565db91bba3113eb03c476049ee802c1df05465ddf7cbebfd256e60114"
    assert mrenclave([Ecreate(1, 0x4000)]).hex() == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (Metadata(), "ea0b6de74d05b8f705df065370885f28797eba2ed64dc799be65ad8b34f8de70"),
        (Metadata(0, True, 65536), "c8ee15da38260315e062427865d7d90007e3b79cbbf56018d6fdad53e3b9e322"),
        (Metadata(0, True, 0), "a710491f8526bff655f16df373e29d7bb0df00612343057e49aaba9e587837d3"),
        (Metadata(65536), "baa93040924f8d7a63353232a389750e9e6d2c9e3d1b84862df7be4f0d254bc4"),
    ],
)
def test_a_flat_image_has_the_known_measurement(image: bytes, metadata: Metadata, expected: str) -> None:
    assert mrenclave(read_flat(flat_with_metadata(image, metadata)).steps()).hex() == expected


def test_the_hash_of_an_sgxs_stream_is_mrenclave(image: bytes) -> None:
    stream = b"".join(write_sgxs(image_steps(image)))
    assert hashlib.sha256(stream).digest() == mrenclave(image_steps(image)) == mrenclave(image_steps(stream))


def test_unmeasured_data_are_carried_but_not_measured() -> None:
    stream = b"".join(write_sgxs(EXAMPLE))
    assert list(read_sgxs(stream)) == EXAMPLE
    assert mrenclave(EXAMPLE) == mrenclave([step for step in EXAMPLE if not isinstance(step, Unmeasured)])


def test_one_flipped_bit_changes_the_measurement(image: bytes) -> None:
    for place in (0, 40, 4095, 4096, 8191):
        changed = bytearray(image)
        changed[place] ^= 1
        assert mrenclave(image_steps(bytes(changed))) != mrenclave(image_steps(image))


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        (b"", "no steps"),
        (b"ECREATE\0" + bytes(55), "it ends within the record at byte 0"),
        (b"UNSIZED\0" + bytes(56), r"no record begins with b'UNSIZED\\x00', at byte 0"),
        (record(Ecreate(1, 8192)) + b"nonsense" * 8, "no record begins with b'nonsense', at byte 64"),
        (record(Ecreate(1, 8192))[:-1] + b"\1", "the record at byte 0 is not padded with zeros"),
        (record(Ecreate(1, 8192)) + record(Eadd(0, 0x200))[:-1] + b"\1", "the record at byte 64 is not padded"),
        (b"".join(map(record, EXAMPLE[:3]))[:-1], "pieces of 256 bytes, found 255"),
    ],
)
def test_what_is_no_sgxs_is_refused_with_its_place(stream: bytes, sentence: str) -> None:
    with pytest.raises(EnclaveError, match=sentence):
        list(read_sgxs(stream))


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(EnclaveError, match="cannot write Eadd"):
        record(Eadd(-1, 0))


blocks = st.one_of(
    st.sampled_from([record(step) for step in EXAMPLE]),
    st.binary(max_size=80),
    st.tuples(
        st.sampled_from([ECREATE_TAG, EADD_TAG, EEXTEND_TAG, UNMEASURED_TAG]), st.binary(min_size=56, max_size=312)
    ).map(b"".join),
)


@given(st.lists(blocks, max_size=8).map(b"".join))
def test_random_streams_are_read_back_alike_or_refused_with_our_error(stream: bytes) -> None:
    with contextlib.suppress(EnclaveError):
        assert b"".join(write_sgxs(read_sgxs(stream))) == stream


@given(st.binary(max_size=200))
def test_random_bytes_are_no_image(data: bytes) -> None:
    with pytest.raises(EnclaveError):
        list(image_steps(data))
