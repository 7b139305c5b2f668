"""The messages between `rune exec` and the agent in an enclave container's runelet: bytes in, bytes out. Hot path.

A frame is a 32-bit little-endian length and a protobuf message:

    Request  { Execute exec = 1; Kill kill = 2; Attest attest = 3; }
      Execute { string argv = 1; string envp = 2; repeated bytes args = 3; repeated bytes env = 4; }
      Kill    { int32 sig = 1; }
      Attest  { bytes target_info = 5; bytes report_data = 6; }
    Response { Execute exec = 1 { int32 exitCode = 1; string error = 2; };
               Attest attest = 2 { int32 exitCode = 1; string error = 2; bytes localReport = 3; }; }

Fields 1 and 2 of Execute are the original's, joined by blanks, which tears words with blanks apart; 3 and 4 are ours,
one entry a word. The agent reads the new ones when they are there. In the original, Attest had four fields with which
the agent fetched the target info itself; ours brings it along. Conversation and limits: docs/pal.md.

The other end is native/runelet/wire.c.
"""

from __future__ import annotations

from inclavare.errors import EnclaveError

FRAME_MAX = 1 << 20  # of a message; WIRE_FRAME_MAX of native/runelet/wire.h
HEAD_SIZE = 4
TARGET_INFO_SIZE = 512
REPORT_DATA_SIZE = 64

EXEC, KILL, ATTEST = 1, 2, 3  # fields of Request
EXEC_RESPONSE, ATTEST_RESPONSE = 1, 2  # fields of Response
ARGS, ENV = 3, 4
TARGET_INFO, REPORT_DATA = 5, 6
EXIT_CODE, ERROR, REPORT = 1, 2, 3

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types


class Response:
    """An answer of the agent: `exit_code` 0 to 255; `error` is "" or a sentence; `report` has 432 bytes or none."""

    __slots__ = ("error", "exit_code", "kind", "report")

    def __init__(self, kind: int, exit_code: int, error: str, report: bytes) -> None:
        self.kind = kind
        self.exit_code = exit_code
        self.error = error
        self.report = report


def execute_request(args: list[str], env: list[str]) -> bytes:
    """Frame a request to run a program in the enclave. Lone surrogates stand for bytes that are not UTF-8 (PEP 383).

    Raises EnclaveError for words that hold a NUL, and for more than a frame can carry.
    """
    body = b"".join([_bytes(ARGS, _raw(word)) for word in args] + [_bytes(ENV, _raw(entry)) for entry in env])
    return frame(_bytes(EXEC, body))


def kill_request(signal: int) -> bytes:
    """Frame a request to send a signal: in the signal pipe to that program, else to all of the enclave."""
    return frame(_bytes(KILL, b"\x08" + _varint(signal)))


def attest_request(target_info: bytes, report_data: bytes = b"") -> bytes:
    """Frame a request for a report to the enclave that `target_info` (512 bytes) describes.

    `report_data` (64 bytes, or none for what the runtime says by itself) is what the report is to say.
    """
    if len(target_info) != TARGET_INFO_SIZE:
        raise EnclaveError(f"a target info has {TARGET_INFO_SIZE} bytes, found {len(target_info)}")
    if report_data and len(report_data) != REPORT_DATA_SIZE:
        raise EnclaveError(f"report data has {REPORT_DATA_SIZE} bytes, found {len(report_data)}")
    data = _bytes(REPORT_DATA, report_data) if report_data else b""
    return frame(_bytes(ATTEST, _bytes(TARGET_INFO, target_info) + data))


def frame(message: bytes) -> bytes:
    """Put the length in front. Raises EnclaveError when the agent would refuse the message for its size."""
    if len(message) > FRAME_MAX:
        raise EnclaveError(
            f"a request of {len(message)} bytes is too long for the agent", f"It takes at most {FRAME_MAX} bytes."
        )
    return len(message).to_bytes(HEAD_SIZE, "little") + message


def message_size(head: bytes) -> int:
    """Give the size of the message behind a frame's first 4 bytes. Raises EnclaveError when it is out of bounds."""
    size = int.from_bytes(head, "little")
    if len(head) != HEAD_SIZE or not 0 < size <= FRAME_MAX:
        raise EnclaveError(f"the agent announced a message of {size} bytes")
    return size


def parse_response(message: bytes) -> Response:
    """Read a message (without its length) of the agent. Raises EnclaveError for what is no response."""
    found = [
        (kind, body)
        for kind, body in _fields(message)
        if kind in (EXEC_RESPONSE, ATTEST_RESPONSE) and isinstance(body, bytes)
    ]
    if len(found) != 1:
        raise EnclaveError("the agent's message is no response")
    kind, body = found[0]
    exit_code: int | bytes = 0
    error: int | bytes = b""
    report: int | bytes = b""
    for field, value in _fields(body):
        if field == EXIT_CODE:
            exit_code = value
        elif field == ERROR:
            error = value
        elif field == REPORT:
            report = value
    if not isinstance(exit_code, int) or not isinstance(error, bytes) or not isinstance(report, bytes):
        raise EnclaveError("a field of the agent's response has the wrong type")
    return Response(kind, exit_code & 0xFF, error.decode("utf-8", "replace"), report)


def _fields(message: bytes) -> list[tuple[int, int | bytes]]:
    """Take a message apart: (field number, integer or bytes), in its order. Fixed-size integers count as bytes."""
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == VARINT:
            value, at = _read_varint(message, at)
            found.append((tag >> 3, value))
            continue
        if kind == BYTES:
            size, at = _read_varint(message, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise EnclaveError(f"the agent's message has a field of the unknown wire type {kind}")
        if size > len(message) - at:
            raise EnclaveError("the agent's message is cut off")
        found.append((tag >> 3, message[at : at + size]))
        at += size
    return found


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise EnclaveError("the agent's message is cut off in a number")


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _raw(text: str) -> bytes:
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise EnclaveError(f"{text!r} holds half a character") from error
    if b"\0" in raw:
        raise EnclaveError(f"{text!r} holds a NUL, which no argument or variable can")
    return raw
