"""Frames against struct, messages in them against Google's library."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.wire import ttrpc
from tests.containerd_kit import schema as kit
from tests.containerd_kit.ttrpc import frame

FRAMES = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=300), st.integers(0, 255)), max_size=8
)


def feed(reader: ttrpc.Reader, data: bytes) -> list[tuple[int, int, bytes | None]]:
    return [(each.stream, each.kind, each.payload) for each in reader.feed(data)]


def test_a_header_is_ten_bytes_in_network_order() -> None:
    raw = ttrpc.answer(0x01020304, b"x" * 300)
    assert raw[:10] == struct.pack(">I", len(raw) - 10) + b"\x01\x02\x03\x04\x02\x00"


@given(frames=FRAMES, data=st.data())
def test_frames_come_out_whole_however_they_come_in(
    frames: list[tuple[int, int, bytes, int]], data: st.DataObject
) -> None:
    raw = b"".join(frame(stream, kind, payload, flags) for stream, kind, payload, flags in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=10)))
    reader, found = ttrpc.Reader(), []
    for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += feed(reader, raw[begin:end])
    assert found == [(stream, kind, payload) for stream, kind, payload, _ in frames]


def test_frames_come_byte_by_byte() -> None:
    raw = frame(1, 1, b"abc") + frame(3, 1, b"")
    reader = ttrpc.Reader()
    found = [each for byte in raw for each in feed(reader, bytes((byte,)))]
    assert found == [(1, 1, b"abc"), (3, 1, b"")]


@pytest.mark.parametrize("excess", [1, 5, (1 << 32) - 1 - ttrpc.PAYLOAD_MAX])
def test_an_oversized_frame_is_told_at_once_and_not_kept(excess: int) -> None:
    reader = ttrpc.Reader()
    size = ttrpc.PAYLOAD_MAX + excess
    (told,) = reader.feed(struct.pack(">IIBB", size, 7, 1, 0))
    assert (told.stream, told.size, told.payload) == (7, size, None)
    piece = b"x" * (1 << 20)
    for _ in range(4):
        assert not feed(reader, piece)
        assert len(reader._buffer) == 0


def test_what_follows_an_oversized_frame_is_read() -> None:
    reader = ttrpc.Reader()
    huge = struct.pack(">IIBB", ttrpc.PAYLOAD_MAX + 3, 1, 1, 0) + b"y" * (ttrpc.PAYLOAD_MAX + 3)
    assert feed(reader, huge + frame(3, 1, b"next")) == [(1, 1, None), (3, 1, b"next")]


def test_the_largest_frame_is_read() -> None:
    reader = ttrpc.Reader()
    payload = b"z" * ttrpc.PAYLOAD_MAX
    assert feed(reader, frame(1, 1, payload)) == [(1, 1, payload)]


@given(data=st.binary(max_size=200))
def test_any_bytes_are_frames_or_the_beginning_of_one(data: bytes) -> None:
    for each in ttrpc.Reader().feed(data):
        assert each.payload is None or len(each.payload) == each.size


def test_a_request_is_what_google_makes_of_it() -> None:
    theirs = kit.make("ttrpc.Request", service="s.S", method="M", payload=b"p", timeout_nano=5)
    theirs.metadata.add(key="containerd-namespace-ttrpc", value="k8s.io")
    ours = ttrpc.request(9, "s.S", "M", b"p", 5, {"containerd-namespace-ttrpc": "k8s.io"})
    assert ours == frame(9, 1, theirs.SerializeToString())


def test_answers_are_what_google_makes_of_them() -> None:
    assert ttrpc.answer(3, b"p") == frame(3, 2, kit.make("ttrpc.Response", payload=b"p").SerializeToString())
    assert ttrpc.answer(3, b"") == frame(3, 2, b"")
    theirs = kit.make("ttrpc.Response", status={"code": 5, "message": "gone: not found"})
    assert ttrpc.refusal(3, 5, "gone: not found") == frame(3, 2, theirs.SerializeToString())


def test_a_refusal_is_text_whatever_name_it_tells() -> None:
    raw = ttrpc.refusal(1, 2, "cannot open /tmp/\udcff")
    assert (
        kit.message_class("ttrpc.Response").FromString(raw[10:]).status.message
        == "cannot open /tmp/\N{REPLACEMENT CHARACTER}"
    )
