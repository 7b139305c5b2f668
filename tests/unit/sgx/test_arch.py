from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.errors import EnclaveError
from inclavare.sgx.arch import (
    SGX_ATTR_DEBUG,
    SGX_ATTR_MODE64BIT,
    Record,
    Report,
    Secs,
    Sigstruct,
    TargetInfo,
    Tcs,
    attribute_names,
    ssa_frame_pages,
)

# name, offset and size of fields as the SDM's tables give them
OFFSETS: list[tuple[type[Record], str, int, int]] = [
    (Sigstruct, "header", 0, 12),
    (Sigstruct, "type", 12, 4),
    (Sigstruct, "vendor", 16, 4),
    (Sigstruct, "date", 20, 4),
    (Sigstruct, "header2", 24, 16),
    (Sigstruct, "swdefined", 40, 4),
    (Sigstruct, "modulus", 128, 384),
    (Sigstruct, "exponent", 512, 4),
    (Sigstruct, "signature", 516, 384),
    (Sigstruct, "miscselect", 900, 4),
    (Sigstruct, "miscmask", 904, 4),
    (Sigstruct, "cet_attributes", 908, 1),
    (Sigstruct, "cet_attributes_mask", 909, 1),
    (Sigstruct, "isvfamilyid", 912, 16),
    (Sigstruct, "attributes", 928, 8),
    (Sigstruct, "xfrm", 936, 8),
    (Sigstruct, "attributes_mask", 944, 8),
    (Sigstruct, "xfrm_mask", 952, 8),
    (Sigstruct, "enclavehash", 960, 32),
    (Sigstruct, "isvextprodid", 1008, 16),
    (Sigstruct, "isvprodid", 1024, 2),
    (Sigstruct, "isvsvn", 1026, 2),
    (Sigstruct, "q1", 1040, 384),
    (Sigstruct, "q2", 1424, 384),
    (Secs, "size", 0, 8),
    (Secs, "base", 8, 8),
    (Secs, "ssaframesize", 16, 4),
    (Secs, "miscselect", 20, 4),
    (Secs, "attributes", 48, 8),
    (Secs, "xfrm", 56, 8),
    (Secs, "mrenclave", 64, 32),
    (Secs, "mrsigner", 128, 32),
    (Secs, "configid", 192, 64),
    (Secs, "isvprodid", 256, 2),
    (Secs, "isvsvn", 258, 2),
    (Secs, "configsvn", 260, 2),
    (Tcs, "ossa", 16, 8),
    (Tcs, "cssa", 24, 4),
    (Tcs, "nssa", 28, 4),
    (Tcs, "oentry", 32, 8),
    (Tcs, "aep", 40, 8),
    (Tcs, "ofsbase", 48, 8),
    (Tcs, "ogsbase", 56, 8),
    (Tcs, "fslimit", 64, 4),
    (Tcs, "gslimit", 68, 4),
    (TargetInfo, "mrenclave", 0, 32),
    (TargetInfo, "attributes", 32, 8),
    (TargetInfo, "xfrm", 40, 8),
    (TargetInfo, "cet_attributes", 48, 1),
    (TargetInfo, "configsvn", 50, 2),
    (TargetInfo, "miscselect", 52, 4),
    (TargetInfo, "configid", 64, 64),
    (Report, "cpusvn", 0, 16),
    (Report, "miscselect", 16, 4),
    (Report, "cet_attributes", 20, 1),
    (Report, "isvextprodid", 32, 16),
    (Report, "attributes", 48, 8),
    (Report, "xfrm", 56, 8),
    (Report, "mrenclave", 64, 32),
    (Report, "mrsigner", 128, 32),
    (Report, "configid", 192, 64),
    (Report, "isvprodid", 256, 2),
    (Report, "isvsvn", 258, 2),
    (Report, "configsvn", 260, 2),
    (Report, "isvfamilyid", 304, 16),
    (Report, "reportdata", 320, 64),
    (Report, "keyid", 384, 32),
    (Report, "mac", 416, 16),
]
RECORDS = [Sigstruct, Secs, Tcs, TargetInfo, Report]


@pytest.mark.parametrize(("record", "name", "offset", "size"), OFFSETS)
def test_fields_lie_where_the_manual_says(record: type[Record], name: str, offset: int, size: int) -> None:
    assert record.offsets()[name] == (offset, size)


@pytest.mark.parametrize("record", RECORDS)
def test_the_fields_fill_the_structure(record: type[Record]) -> None:
    assert sum(size for _, size in record.offsets().values()) == record.SIZE


@pytest.mark.parametrize("record", RECORDS)
def test_bytes_survive_a_round_trip(record: type[Record]) -> None:
    data = bytes(index * 7 % 256 for index in range(record.SIZE))
    assert record.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize("record", RECORDS)
@given(data=st.binary(max_size=600))
def test_any_other_size_is_refused(record: type[Record], data: bytes) -> None:
    if len(data) == record.SIZE:
        return
    with pytest.raises(EnclaveError, match=f"it has {record.SIZE} bytes, found {len(data)}"):
        record.from_bytes(data)


@pytest.mark.parametrize(
    ("sigstruct", "sentence"),
    [
        (Sigstruct(isvsvn=1 << 16), "SIGSTRUCT.isvsvn has 2 bytes and cannot hold 65536"),
        (Sigstruct(date=-1), "SIGSTRUCT.date has 4 bytes and cannot hold -1"),
        (Sigstruct(enclavehash=b"short"), "SIGSTRUCT.enclavehash has 32 bytes, found 5"),
        (Sigstruct(enclavehash=bytes(33)), "SIGSTRUCT.enclavehash has 32 bytes, found 33"),
    ],
)
def test_a_value_that_does_not_fit_is_named(sigstruct: Sigstruct, sentence: str) -> None:
    with pytest.raises(EnclaveError, match=sentence):
        sigstruct.to_bytes()


@pytest.mark.parametrize(
    ("xfrm", "miscselect", "pages"),
    [(3, 0, 1), (7, 0, 1), (0xE7, 0, 1), (0x2E7, 1, 1), (1 << 18 | 1 << 17 | 7, 0, 3)],
)
def test_the_ssa_frame_grows_with_the_state_it_saves(xfrm: int, miscselect: int, pages: int) -> None:
    assert ssa_frame_pages(xfrm, miscselect) == pages


def test_a_state_component_of_unknown_size_is_refused() -> None:
    with pytest.raises(EnclaveError, match="size of state component 40 is not known"):
        ssa_frame_pages(1 << 40 | 3)


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        (0, "0"),
        (SGX_ATTR_DEBUG | SGX_ATTR_MODE64BIT, "DEBUG|MODE64BIT"),
        (0x1008, "0x1008"),
        (0x1004, "MODE64BIT|0x1000"),
    ],
)
def test_attributes_are_shown_by_name(attributes: int, names: str) -> None:
    assert attribute_names(attributes) == names
