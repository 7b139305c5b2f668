"""Protobuf messages by tables: a message is a dict of its fields' names and values, a schema tells numbers and kinds.

Kinds are "uint" (uint32, uint64, enums), "int" (int32, int64), "bool", "text", "bytes", "double", or the schema of a
message. A `repeated` field's value is a list; a map is a repeated message of key (1) and value (2). Fields that a
schema does not know, and groups, which nobody sends, are not read. Repeated numbers are packed, and read either way. No
I/O; Google's library is the oracle in tests.
"""

from __future__ import annotations

from _struct import Struct

from inclavare.errors import WireError

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MASK64 = (1 << 64) - 1
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
DEPTH_MAX = 32  # messages in messages
DOUBLE = Struct("<d")
DEFAULTS: dict[str, object] = {"uint": 0, "int": 0, "bool": False, "text": "", "bytes": b"", "double": 0.0}


class Field:
    """A field's number and kind."""

    __slots__ = ("kind", "number", "repeated")

    def __init__(self, number: int, kind: str | dict[str, Field], *, repeated: bool = False) -> None:
        self.number = number
        self.kind = kind
        self.repeated = repeated


Schema = dict[str, Field]

ENTRY: Schema = {"key": Field(1, "text"), "value": Field(2, "text")}  # of a map<string, string>


def encode(schema: Schema, message: Mapping[str, object], *, explicit: bool = False) -> bytes:
    """Write a message, in the order of its dict. Raises KeyError for a field that the schema lacks.

    None is no value. Numbers that are 0 and strings that are empty are left out, as proto3 does it, unless `explicit`.
    """
    parts = []
    for name, value in message.items():
        field = schema[name]
        if field.repeated and field.kind == "uint" and value and isinstance(value, list):
            packed = b"".join(_varint(item & MASK64) for item in value)
            parts.append(_varint(field.number << 3 | BYTES) + _varint(len(packed)) + packed)
            continue
        for item in value if isinstance(value, list) else (value,):
            if item is None or not (item or explicit or field.repeated or isinstance(item, dict)):
                continue
            parts.append(_encode_field(field, item, explicit=explicit))
    return b"".join(parts)


def decode(schema: Schema, raw: bytes, depth: int = DEPTH_MAX) -> dict[str, Any]:
    """Read the fields that are there; of two the last counts. Raises WireError for what is malformed."""
    message: dict[str, Any] = {}
    fields = {field.number: (name, field) for name, field in schema.items()}
    at = 0
    while at < len(raw):
        key, at = _read_varint(raw, at)
        number, wire = key >> 3, key & 7
        value: int | bytes
        if wire == VARINT:
            value, at = _read_varint(raw, at)
        else:
            if wire == BYTES:
                size, at = _read_varint(raw, at)
            elif wire in (FIXED64, FIXED32):
                size = 8 if wire == FIXED64 else 4
            else:
                raise WireError(f"field {number} has the unknown wire type {wire}")
            if size > len(raw) - at:
                raise WireError(f"field {number} is cut off: {size} bytes announced, {len(raw) - at} there")
            value, at = raw[at : at + size], at + size
        if not 0 < number < 1 << 29:
            raise WireError(f"a field has the impossible number {number}")
        if number in fields:
            name, field = fields[number]
            if field.repeated and field.kind == "uint" and isinstance(value, bytes):
                message.setdefault(name, []).extend(_numbers(value))
                continue
            item = _value(name, field.kind, wire, value, depth)
            if field.repeated:
                message.setdefault(name, []).append(item)
            else:
                message[name] = item
    return message


def parse(schema: Schema, raw: bytes) -> dict[str, Any]:
    """Read a message with all its fields: what is not there is 0, False, "", b"" or [], or None for a message."""
    message = decode(schema, raw)
    for name, field in schema.items():
        if name not in message:
            message[name] = [] if field.repeated else _default(field.kind)
    return message


def _default(kind: str | Schema) -> object:
    return None if isinstance(kind, dict) else DEFAULTS[kind]


def _encode_field(field: Field, value: object, *, explicit: bool) -> bytes:
    if isinstance(value, float):
        return _varint(field.number << 3 | FIXED64) + DOUBLE.pack(value)
    if isinstance(value, int):
        return _varint(field.number << 3) + _varint(value & MASK64)
    if isinstance(value, dict) and isinstance(field.kind, dict):
        raw = encode(field.kind, value, explicit=explicit)
    elif isinstance(value, bytes):
        raw = value
    else:
        raw = str(value).encode("utf-8", "surrogateescape")
    return _varint(field.number << 3 | BYTES) + _varint(len(raw)) + raw


def _numbers(raw: bytes) -> list[int]:
    found, at = [], 0
    while at < len(raw):
        value, at = _read_varint(raw, at)
        found.append(value)
    return found


def _value(name: str, kind: str | Schema, wire: int, raw: int | bytes, depth: int) -> object:
    if isinstance(raw, int):
        if kind == "bool":
            return raw != 0
        if kind == "int":
            return (raw ^ 1 << 63) - (1 << 63)
        if kind == "uint":
            return raw
    elif wire == FIXED64 and kind == "double":
        return DOUBLE.unpack(raw)[0]
    elif wire == BYTES:
        if isinstance(kind, dict):
            if not depth:
                raise WireError(f"field {name} is nested too deeply")
            return decode(kind, raw, depth - 1)
        if kind == "bytes":
            return raw
        if kind == "text":
            return raw.decode("utf-8", "surrogateescape")
    raise WireError(f"field {name} has wire type {wire}, which its kind does not have")


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(raw):
            raise WireError("a number is cut off")
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & MASK64, at
    raise WireError("a number has more than 10 bytes")
