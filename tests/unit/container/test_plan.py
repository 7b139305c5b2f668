"""The form of a plan: what the encoder writes is what native/include/plan.h says."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.container.plan import (
    CALL_EXIT,
    HEADER,
    MAGIC,
    NO_SLOT,
    OP,
    VERSION,
    Data,
    Plan,
    Slot,
    describe,
)
from inclavare.errors import HostError


class Read:
    """A blob taken apart by hand, as the walk does it."""

    def __init__(self, blob: bytes) -> None:
        magic, version, size, ops, relocs, data, self.sync_fd, reserved = HEADER.unpack_from(blob)
        assert (magic, version, size, reserved) == (MAGIC, VERSION, len(blob), 0)
        at = HEADER.size
        self.ops = [OP.unpack_from(blob, at + i * OP.size) for i in range(ops)]
        at += ops * OP.size
        self.relocs = list(struct.unpack_from(f"<{relocs}I", blob, at))
        at += relocs * 4
        assert at % 8 == 0
        self.data = blob[at:]
        assert len(self.data) == data

    def string(self, offset: int) -> bytes:
        return self.data[offset : self.data.index(b"\0", offset)]

    def word(self, offset: int) -> int:
        return int.from_bytes(self.data[offset : offset + 8], "little")


def test_an_op_is_64_bytes() -> None:
    assert OP.size == 64
    assert HEADER.size == 32


def test_arguments_are_marked_as_immediate_data_or_slot() -> None:
    plan = Plan()
    slot = plan.take(257, -100, plan.string("/x"), words="open")
    plan.add(3, slot, words="close", tolerate=(9, 5), skip=2)
    read = Read(plan.encode(7))
    assert read.sync_fd == 7
    first, second = read.ops
    assert first[0] == 257
    assert first[1:7] == (0, 1, 0, 0, 0, 0)
    assert first[7] == slot
    assert first[11] == 2**64 - 100
    assert read.string(first[12]) == b"/x"
    assert second[1:7] == (2, 0, 0, 0, 0, 0)
    assert second[7:11] == (NO_SLOT, 2, 9, 5)
    assert second[11] == slot


def test_equal_strings_are_stored_once() -> None:
    plan = Plan()
    assert plan.string("/proc") == plan.string("/proc")
    assert plan.string("/proc") != plan.string("/sys")


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=20), max_size=8))
def test_an_array_of_strings_is_relocated_and_ends_in_null(texts: list[str]) -> None:
    texts = [text for text in texts if not any(0xD800 <= ord(c) <= 0xDFFF for c in text)]
    plan = Plan()
    array = plan.strings(texts, spare=1)
    plan.add(CALL_EXIT, array, words="exit")
    read = Read(plan.encode(3))
    relocated = [offset for offset in read.relocs if offset in range(array, array + 8 * len(texts))]
    assert relocated == [array + 8 * i for i in range(len(texts))]
    for index, text in enumerate(texts):
        assert read.string(read.word(array + 8 * index)) == text.encode()
    assert read.word(array + 8 * len(texts)) == 0
    assert read.word(array + 8 * len(texts) + 8) == 0


def test_bytes_that_are_not_utf_8_pass_through() -> None:
    plan = Plan()
    offset = plan.string(b"caf\xe9".decode("utf-8", "surrogateescape"))
    plan.add(CALL_EXIT, 0, words="exit")
    assert Read(plan.encode(3)).string(offset) == b"caf\xe9"


@pytest.mark.parametrize("strings", range(5))
def test_data_is_aligned_whatever_stands_before_it(strings: int) -> None:
    plan = Plan()
    for number in range(strings):
        plan.words64([plan.string(f"{number}")])
    offset = plan.data(b"12345678")
    plan.add(CALL_EXIT, 0, words="exit")
    read = Read(plan.encode(3))
    assert offset % 8 == 0
    assert read.data[offset : offset + 8] == b"12345678"
    for reloc in read.relocs:
        assert reloc % 8 == 0
        assert reloc + 8 <= len(read.data)


def test_too_many_variables_are_refused() -> None:
    plan = Plan()
    for _ in range(4095):
        plan.take(257, words="open")
    with pytest.raises(HostError, match="at most 4096 variables"):
        plan.take(257, words="open")


def test_the_description_numbers_the_steps_and_names_the_calls() -> None:
    plan = Plan()
    plan.add(165, Data(0), Slot(1), words="mount proc on /proc")
    plan.add(CALL_EXIT, 0, words="end the executor")
    assert describe(plan) == "   0 mount(2)  mount proc on /proc\n   1 exit      end the executor\n"
