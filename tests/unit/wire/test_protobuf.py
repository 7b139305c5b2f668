"""The codec by itself: what no message of ours has, and what is malformed."""

from __future__ import annotations

import time
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from inclavare.errors import WireError
from inclavare.shim import messages as m
from inclavare.shim import metrics
from inclavare.wire import protobuf, ttrpc
from inclavare.wire.protobuf import Field, Schema
from tests.containerd_kit import schema as kit

INNER: Schema = {"number": Field(1, "uint"), "names": Field(2, "text", repeated=True)}
ALL: Schema = {
    "uint": Field(1, "uint"),
    "int": Field(2, "int"),
    "bool": Field(3, "bool"),
    "text": Field(4, "text"),
    "bytes": Field(5, "bytes"),
    "double": Field(6, "double"),
    "message": Field(7, INNER),
    "numbers": Field(16, "uint", repeated=True),
    "messages": Field(2047, INNER, repeated=True),
    "last": Field((1 << 29) - 1, "uint"),
}
SCHEMAS = [ALL, m.CREATE, m.FORWARD, m.BOOTSTRAP, m.UPDATE, ttrpc.REQUEST_SCHEMA, ttrpc.RESPONSE_SCHEMA, metrics.V1]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", {}),
        (b"\x08\x96\x01", {"uint": 150}),  # the example of protobuf's own documentation
        (b"\x08\x01\x08\x02", {"uint": 2}),
        (b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", {"uint": 0}),
        (b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", {"int": -1}),
        (b"\x18\x02", {"bool": True}),
        (b"\x22\x02\xc3\xa9", {"text": "é"}),
        (b"\x31\x00\x00\x00\x00\x00\x00\xf0\x3f", {"double": 1.0}),
        (b"\x3a\x00", {"message": {}}),
        (b"\x80\x01\x05\x82\x01\x02\x06\x07", {"numbers": [5, 6, 7]}),  # packed or not
        (b"\x42\x01x\x45\x00\x00\x00\x00\x49\x00\x00\x00\x00\x00\x00\x00\x00\x50\x01\x08\x07", {"uint": 7}),  # unknown
        (b"\xf8\xff\xff\xff\x0f\x01", {"last": 1}),
    ],
)
def test_what_is_read(raw: bytes, expected: dict[str, Any]) -> None:
    assert protobuf.decode(ALL, raw) == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x08", "a number is cut off"),
        (b"\x80", "a number is cut off"),
        (b"\x08" + b"\xff" * 11, "a number has more than 10 bytes"),
        (b"\x22\x05ab", "field 4 is cut off: 5 bytes announced, 2 there"),
        (b"\x22\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "is cut off"),
        (b"\x31\x00", "field 6 is cut off: 8 bytes announced, 1 there"),
        (b"\x0b", "field 1 has the unknown wire type 3"),
        (b"\x0f", "field 1 has the unknown wire type 7"),
        (b"\x00\x01", "a field has the impossible number 0"),
        (b"\x80\x80\x80\x80\x10\x01", "a field has the impossible number"),
        (b"\x0a\x01x", "field uint has wire type 2, which its kind does not have"),
        (b"\x20\x01", "field text has wire type 0, which its kind does not have"),
        (b"\x38\x01", "field message has wire type 0, which its kind does not have"),
        (b"\x35\x00\x00\x00\x00", "field double has wire type 5, which its kind does not have"),
        (b"\x3a\x02\x08\x80", "a number is cut off"),
        (b"\x82\x01\x01\x80", "a number is cut off"),
    ],
)
def test_what_is_malformed_is_named(raw: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        protobuf.decode(ALL, raw)


@given(schema=st.sampled_from(SCHEMAS), raw=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(schema: Schema, raw: bytes) -> None:
    try:
        protobuf.parse(schema, raw)
    except WireError:
        return


@given(raw=st.binary(max_size=60))
def test_what_is_read_is_what_google_reads(raw: bytes) -> None:
    cls = kit.message_class("containerd.v1.types.ProcessInfo")
    try:
        ours = protobuf.parse(m.PROCESS_INFO, raw)
    except WireError:
        return  # it may be that we are stricter: groups and wrong wire types of known fields
    try:
        theirs = cls.FromString(raw)
    except DecodeError:
        return  # text that is not UTF-8, in the type's name
    assert theirs.pid == ours["pid"] & 0xFFFFFFFF


@given(data=st.data())
def test_a_message_that_is_cut_off_is_read_or_refused(data: st.DataObject) -> None:
    raw = kit.make(
        "containerd.task.v2.CreateTaskRequest", id="c", bundle="/b" * 20, rootfs=[{"type": "bind", "options": ["ro"]}]
    ).SerializeToString()
    end = data.draw(st.integers(0, len(raw)))
    try:
        read = protobuf.decode(m.CREATE, raw[:end])
    except WireError:
        return
    assert read.items() <= protobuf.decode(m.CREATE, raw).items()


def test_nesting_is_bounded() -> None:
    recursive: Schema = {}
    recursive["inside"] = Field(1, recursive)
    raw = b""
    for _ in range(protobuf.DEPTH_MAX):
        raw = protobuf._varint(10) + protobuf._varint(len(raw)) + raw
    assert protobuf.decode(recursive, raw)
    for _ in range(2):
        raw = protobuf._varint(10) + protobuf._varint(len(raw)) + raw
    with pytest.raises(WireError, match="nested too deeply"):
        protobuf.decode(recursive, raw)


@pytest.mark.parametrize("piece", [b"\x80\x01\x01", b"\xfa\x7f\x00", b"\x82\x01\x00", b"\x42\x00"])
def test_a_frame_full_of_the_smallest_fields_is_read_in_time(piece: bytes) -> None:
    raw = piece * ((1 << 20) // len(piece))
    begin = time.process_time()
    protobuf.decode(ALL, raw)
    assert time.process_time() - begin < 5


def test_none_is_no_value_and_an_empty_message_is_one() -> None:
    assert protobuf.encode(ALL, {"text": None, "message": None}) == b""
    assert protobuf.encode(ALL, {"message": {}}) == b"\x3a\x00"
    assert protobuf.encode(ALL, {"uint": 0, "text": "", "bool": False, "numbers": []}) == b""
    assert protobuf.encode(ALL, {"uint": 0}, explicit=True) == b"\x08\x00"


def test_a_field_that_the_schema_lacks_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        protobuf.encode(ALL, {"unknown": 1})


@given(text=st.binary(max_size=40))
def test_a_path_that_is_no_utf_8_comes_back_as_it_was(text: bytes) -> None:
    decoded = text.decode("utf-8", "surrogateescape")
    assert protobuf.decode(ALL, protobuf.encode(ALL, {"text": decoded})).get("text", "") == decoded
