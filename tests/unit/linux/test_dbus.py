"""D-Bus's wire format: the specification's examples, round trips, and bytes that are none."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.linux import dbus
from inclavare.linux.dbus import DBusError, Message, Variant, decode, decode_message, encode, encode_message, split

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
PATHS = st.lists(st.text("abcXYZ019_", min_size=1, max_size=5), max_size=3).map(lambda parts: "/" + "/".join(parts))
BASIC: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(1 << 15), (1 << 15) - 1),
    "q": st.integers(0, (1 << 16) - 1),
    "i": st.integers(-(1 << 31), (1 << 31) - 1),
    "u": st.integers(0, (1 << 32) - 1),
    "x": st.integers(-(1 << 63), (1 << 63) - 1),
    "t": st.integers(0, (1 << 64) - 1),
    "d": st.floats(allow_nan=False),
    "s": TEXT,
    "o": PATHS,
    "g": st.sampled_from(["", "s", "a{sv}", "(ii)as"]),
}
SIGNATURES = st.recursive(
    st.sampled_from([*BASIC, "v"]),
    lambda inner: st.one_of(
        inner.map(lambda kind: f"a{kind}"),
        st.lists(inner, min_size=1, max_size=3).map(lambda kinds: f"({''.join(kinds)})"),
        st.tuples(st.sampled_from("ybnqiuxtso"), inner).map(lambda pair: f"a{{{pair[0]}{pair[1]}}}"),
    ),
    max_leaves=6,
)


@st.composite
def typed(draw: st.DrawFn, signature: str | None = None) -> tuple[str, Any]:
    """Draw a complete type and a value of it."""
    kind = draw(SIGNATURES) if signature is None else signature
    return kind, draw(values_of(kind))


def values_of(kind: str) -> st.SearchStrategy[Any]:
    if kind in BASIC:
        return BASIC[kind]
    if kind == "v":
        return st.sampled_from(["s", "u", "as", "(sb)"]).flatmap(
            lambda inner: values_of(inner).map(lambda value: Variant(inner, value))
        )
    if kind == "ay":
        return st.binary(max_size=20)
    if kind[:2] == "a{":
        key, value = split(kind[2:-1])
        return st.dictionaries(values_of(key), values_of(value), max_size=3)
    if kind[0] == "a":
        return st.lists(values_of(kind[1:]), max_size=3)
    return st.tuples(*[values_of(inner) for inner in split(kind[1:-1])])


@given(typed())
def test_what_is_written_is_read_again(pair: tuple[str, Any]) -> None:
    kind, value = pair
    assert decode(kind, encode(kind, (value,))) == (value,)


@given(st.lists(typed(), max_size=4), st.sampled_from([dbus.METHOD_CALL, dbus.SIGNAL]))
def test_a_message_that_is_written_is_read_again(pairs: list[tuple[str, Any]], kind: int) -> None:
    fields = {dbus.PATH: "/a/b", dbus.MEMBER: "Member", dbus.REPLY_SERIAL: 7}
    message = Message(kind, 9, fields, "".join([one for one, _ in pairs]), [value for _, value in pairs])
    raw = encode_message(message)
    assert dbus.message_size(raw[: dbus.PREAMBLE_SIZE]) == len(raw)
    read = decode_message(raw)
    assert (read.kind, read.serial, read.fields) == (kind, 9, fields)
    assert (read.signature, read.body) == (message.signature, message.body)


@pytest.mark.parametrize(
    ("signature", "values", "written"),
    [
        # The three examples of "Marshaling (Wire Format)", in little endian.
        ("sss", ("foo", "+", "bar"), "03000000 666f6f00 01000000 2b000000 03000000 62617200"),
        ("ai", ([-1],), "04000000 ffffffff"),
        ("ax", ([5],), "08000000 00000000 05000000 00000000"),
        ("v", (Variant("u", 5),), "01 75 00 00 05000000"),
        ("yas", (1, ["a"]), "01 000000 06000000 01000000 6100"),
        ("a{sv}", ({},), "00000000 00000000"),
        ("b(y)", (True, (2,)), "01000000 00000000 02"),
        ("ay", (b"\x01\x02",), "02000000 0102"),
        ("g", ("a{sv}",), "05 617b73767d 00"),
    ],
)
def test_values_have_the_bytes_of_the_specification(signature: str, values: tuple[Any, ...], written: str) -> None:
    raw = bytes.fromhex(written)
    assert encode(signature, values) == raw
    assert decode(signature, raw) == values


def test_a_message_in_big_endian_is_read() -> None:
    body = struct.pack(">I3sx", 3, b"foo")
    header = struct.pack(">BBBBII", ord("B"), dbus.SIGNAL, 0, 1, len(body), 2)
    fields = b"\x08\x01g\0\x01s\0\0" + b"\x03\x01s\0" + struct.pack(">I4sx", 4, b"Told") + b"\0" * 3
    raw = header + struct.pack(">I", len(fields) - 3) + fields + body
    message = decode_message(raw)
    assert (message.serial, message.fields, message.body) == (2, {dbus.MEMBER: "Told"}, ("foo",))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_our_error(data: bytes) -> None:
    for raw in (data, b"l\x01\0\x01" + data, b"B\x02\0\x01" + data):
        try:
            decode_message(raw)
        except DBusError:
            continue


@given(st.data(), SIGNATURES)
def test_any_bytes_are_values_or_our_error(data: st.DataObject, signature: str) -> None:
    try:
        decode(signature, data.draw(st.binary(max_size=100)))
    except DBusError:
        return


@given(st.data(), st.lists(typed(), min_size=1, max_size=3))
def test_a_message_with_a_changed_byte_is_a_message_or_our_error(
    data: st.DataObject, pairs: list[tuple[str, Any]]
) -> None:
    kinds, values = zip(*pairs, strict=True)
    raw = bytearray(encode_message(Message(dbus.SIGNAL, 1, {dbus.MEMBER: "M"}, "".join(kinds), values)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode_message(bytes(raw))
    except DBusError:
        return


@given(st.text("ybnqiuxtdsogvah(){}", max_size=12))
def test_any_signature_is_cut_into_types_or_refused(signature: str) -> None:
    try:
        types = split(signature)
    except DBusError:
        return
    assert "".join(types) == signature
    assert all(split(kind) == [kind] for kind in types)


@pytest.mark.parametrize(
    "signature",
    ["a", "(", "()", ")", "{sv}", "a{vs}", "a{s}", "a{svs}", "a{(s)v}", "z", "(s", "a" * 40 + "s", "s" * 256],
)
def test_a_signature_of_another_form_is_refused(signature: str) -> None:
    with pytest.raises(DBusError):
        split(signature)


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("y", 256),
        ("u", -1),
        ("i", "5"),
        ("b", 1),
        ("s", "a\0b"),
        ("s", 5),
        ("o", "a/b"),
        ("o", "/a/"),
        ("o", "/ä"),
        ("g", "("),
        ("v", "text"),
        ("v", Variant("ss", ("a", "b"))),
        ("(ss)", ("a",)),
        ("as", 5),
        ("a{sv}", ["a"]),
    ],
)
def test_a_value_of_another_type_is_refused(signature: str, value: object) -> None:
    with pytest.raises(DBusError):
        encode(signature, (value,))


@pytest.mark.parametrize(
    ("signature", "data"),
    [
        ("b", "02000000"),
        ("s", "01000000 6101"),
        ("s", "02000000 610000"),
        ("s", "01000000 ff00"),
        ("yu", "01 010000 05000000"),
        ("as", "06000000 0100000061"),
        ("ai", "05000000 0100000002"),
        ("o", "01000000 6100"),
        ("v", "02 7373 00"),
        ("u", "0100000000"),
        ("aaaaaaaaaav", "ffffffff"),
    ],
)
def test_bytes_that_the_specification_forbids_are_refused(signature: str, data: str) -> None:
    with pytest.raises(DBusError):
        decode(signature, bytes.fromhex(data))


def test_variants_in_variants_end_somewhere() -> None:
    with pytest.raises(DBusError, match="nested too deeply"):
        decode("v", b"\x01v\0" * 1000 + b"\x01y\0\x05")
