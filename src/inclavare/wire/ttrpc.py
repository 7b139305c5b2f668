"""ttrpc: the frames between containerd and a shim, and the two messages in them. No socket, no clock.

A frame is its payload's size, its stream, its type and flags (10 bytes, big-endian), then the payload (ttrpc's
PROTOCOL.md). A client numbers its streams 1, 3, 5 and so on; each request is answered once, in any order. Not here:
streaming methods, which no service of a shim has.
"""

from __future__ import annotations

from _struct import Struct

from inclavare.wire.protobuf import ENTRY, Field, encode

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Iterator

    from inclavare.wire.protobuf import Schema

HEADER = Struct(">IIBB")
PAYLOAD_MAX = 4 << 20
REQUEST, RESPONSE = 1, 2

# google.rpc.Code
OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS = 0, 1, 2, 3, 4, 5, 6
RESOURCE_EXHAUSTED, FAILED_PRECONDITION, UNIMPLEMENTED = 8, 9, 12

REQUEST_SCHEMA: Schema = {
    "service": Field(1, "text"),
    "method": Field(2, "text"),
    "payload": Field(3, "bytes"),
    "timeout_nano": Field(4, "int"),
    "metadata": Field(5, ENTRY, repeated=True),
}
STATUS: Schema = {"code": Field(1, "int"), "message": Field(2, "text")}
RESPONSE_SCHEMA: Schema = {"status": Field(1, STATUS), "payload": Field(2, "bytes")}


class Frame:
    """One frame. `payload` is None for one that exceeded PAYLOAD_MAX; its `size` tells what was announced."""

    __slots__ = ("kind", "payload", "size", "stream")

    def __init__(self, stream: int, kind: int, size: int, payload: bytes | None) -> None:
        self.stream = stream
        self.kind = kind
        self.size = size
        self.payload = payload


class Reader:
    """Turns the bytes of one direction of a connection into frames. It keeps one frame at most."""

    __slots__ = ("_buffer", "_skip")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0  # bytes of a payload that is too large and is not kept

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take what came; yield the frames that are complete."""
        buffer = self._buffer
        buffer += data
        while True:
            if self._skip:
                dropped = min(self._skip, len(buffer))
                del buffer[:dropped]
                self._skip -= dropped
            if len(buffer) < HEADER.size:
                return
            size, stream, kind, _ = HEADER.unpack_from(buffer)
            if size > PAYLOAD_MAX:
                del buffer[: HEADER.size]
                self._skip = size
                yield Frame(stream, kind, size, None)
                continue
            end = HEADER.size + size
            if len(buffer) < end:
                return
            payload = bytes(buffer[HEADER.size : end])
            del buffer[:end]
            yield Frame(stream, kind, size, payload)


def request(stream: int, service: str, method: str, payload: bytes, timeout_ns: int, metadata: dict[str, str]) -> bytes:
    """Give the frame of a call."""
    message = {
        "service": service,
        "method": method,
        "payload": payload,
        "timeout_nano": timeout_ns,
        "metadata": [{"key": key, "value": value} for key, value in metadata.items()],
    }
    return _frame(stream, REQUEST, encode(REQUEST_SCHEMA, message))


def answer(stream: int, payload: bytes) -> bytes:
    """Give the frame that answers a call."""
    return _frame(stream, RESPONSE, encode(RESPONSE_SCHEMA, {"payload": payload}))


def refusal(stream: int, code: int, message: str) -> bytes:
    """Give the frame that says why a call failed. A name in it that is not UTF-8 is told as well as it can be."""
    text = message.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # Go reads no other text
    return _frame(stream, RESPONSE, encode(RESPONSE_SCHEMA, {"status": {"code": code, "message": text}}))


def _frame(stream: int, kind: int, payload: bytes) -> bytes:
    return HEADER.pack(len(payload), stream, kind, 0) + payload
