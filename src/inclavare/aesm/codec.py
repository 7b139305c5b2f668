"""AESM's messages as bytes: protobuf (proto2) as far as they need it, and the frame around them. No I/O.

A frame is a 32-bit little-endian length and a message of that size. Unknown members are skipped, as are known ones with
another wire type, as every protobuf reader does; of a member that comes twice the last counts, and two halves of a
submessage are one. Not read: groups, which no AESM message ever had. What is sent has its members in the order of their
numbers, so it is byte for byte what Google's library writes.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any, TypeVar

from inclavare.aesm.errors import AesmMalformedError, AesmMissingMemberError
from inclavare.aesm.messages import REQUESTS, Message, Request, Response, members

FRAME_MAX = 1 << 20  # bytes of a message. Intel's daemon has no bound; its largest message is a quote of some KiB
HEAD_SIZE = 4
MEMBERS_MAX = 256  # in one message, known or not: nobody shall make a reader count to a million

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MASKS = {"u32": (1 << 32) - 1, "u64": (1 << 64) - 1}

AnyMessage = TypeVar("AnyMessage", bound=Message)
AnyResponse = TypeVar("AnyResponse", bound=Response)

_REQUEST_NUMBERS = {kind.NUMBER for kind in REQUESTS}


def encode(message: Message) -> bytes:
    """Return the frame with `message`. Raises AesmMalformedError for one that is too large to be sent."""
    body = b"".join(
        _member(number, kind, getattr(message, name))
        for number, (name, kind, _) in sorted(members(type(message)).items())
        if getattr(message, name) is not None
    )
    payload = _tag(message.NUMBER, _BYTES) + _varint(len(body)) + body
    if len(payload) > FRAME_MAX:
        raise AesmMalformedError(f"a message of {len(payload)} bytes exceeds the limit of {FRAME_MAX}")
    return len(payload).to_bytes(HEAD_SIZE, "little") + payload


def message_size(head: bytes) -> int:
    """Return the size of the message behind a frame's first 4 bytes. Raises AesmMalformedError out of bounds."""
    size = int.from_bytes(head, "little")
    if len(head) != HEAD_SIZE or not 0 < size <= FRAME_MAX:
        raise AesmMalformedError(f"the frame announces a message of {size} bytes, the limit is {FRAME_MAX}")
    return size


def decode_request(payload: bytes) -> Request:
    """Read a client's message (without its length).

    Raises AesmMissingMemberError for a request that lacks a required member, AesmMalformedError for anything that is no
    request.
    """
    found = _submessages(payload, _REQUEST_NUMBERS)
    for kind in REQUESTS:
        if kind.NUMBER in found:
            return _decode(kind, found[kind.NUMBER])
    raise AesmMalformedError(f"the message has none of the known requests, only members {sorted(found)}")


def decode_response(payload: bytes, kind: type[AnyResponse]) -> AnyResponse:
    """Read a daemon's message (without its length), the answer of the type `kind`. Raises AesmMalformedError."""
    found = _submessages(payload, {kind.NUMBER})
    if kind.NUMBER not in found:
        raise AesmMalformedError(f"the answer has no member {kind.NUMBER} ({kind.__name__}), only {sorted(found)}")
    return _decode(kind, found[kind.NUMBER])


def _submessages(payload: bytes, known: Container[int]) -> dict[int, bytes]:
    """Give the members that are messages, each whole; those of the numbers `known` are looked through."""
    found: dict[int, list[bytes]] = {}
    for number, value in _read_members(payload):
        if isinstance(value, bytes):
            found.setdefault(number, []).append(value)
            if number in known:
                for _ in _read_members(value):
                    pass  # as protobuf does: what is malformed anywhere is malformed as a whole
    return {number: b"".join(parts) for number, parts in found.items()}


def _decode(message: type[AnyMessage], body: bytes) -> AnyMessage:
    known = members(message)
    values: dict[str, Any] = {}
    for number, value in _read_members(body):
        name, kind, _ = known.get(number, ("", "", False))
        if not name or isinstance(value, bytes) != (kind == "bytes"):
            continue
        if isinstance(value, bytes):
            values[name] = value
        else:
            values[name] = bool(value) if kind == "bool" else value & _MASKS[kind]
    for name, _, required in known.values():
        if required and name not in values:
            raise AesmMissingMemberError(message.NUMBER, f"{message.__name__} lacks its member {name}")
    return message(**values)


def _read_members(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the members of a message in its order: number, and integer or bytes. Integers of fixed size are skipped."""
    at = 0
    count = 0
    while at < len(raw):
        count += 1
        if count > MEMBERS_MAX:
            raise AesmMalformedError(f"the message has more than {MEMBERS_MAX} members")
        tag, at = _read_varint(raw, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise AesmMalformedError(f"a member has the impossible number {number}")
        if wire == _VARINT:
            value, at = _read_varint(raw, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _read_varint(raw, at)
        elif wire in _FIXED_SIZES:
            size = _FIXED_SIZES[wire]
        else:
            raise AesmMalformedError(f"member {number} has the unknown wire type {wire}")
        if size > len(raw) - at:
            raise AesmMalformedError(f"member {number} is cut off: {size} bytes announced, {len(raw) - at} there")
        if wire == _BYTES:
            yield number, raw[at : at + size]
        at += size


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(raw[at : at + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & _MASKS["u64"], at + index + 1
    raise AesmMalformedError("a number is cut off")


def _member(number: int, kind: str, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return _tag(number, _BYTES) + _varint(len(value)) + value
    if not 0 <= value <= _MASKS.get(kind, 1):
        raise AesmMalformedError(f"member {number} ({kind}) cannot hold {value}")
    return _tag(number, _VARINT) + _varint(value)


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
