"""The messages between `rune exec` and the agent in an enclave container's runelet. No socket. Hot path.

A frame is a 32-bit little-endian length and a protobuf message:

    Request  { Execute exec = 1; Kill kill = 2; Attest attest = 3; }
      Execute { string argv = 1; string envp = 2; repeated bytes args = 3; repeated bytes env = 4; }
      Kill    { int32 sig = 1; }
      Attest  { bytes target_info = 5; }
    Response { Execute exec = 1 { int32 exitCode = 1; string error = 2; };
               Attest attest = 2 { int32 exitCode = 1; string error = 2; bytes localReport = 3; }; }

Fields 1 and 2 of Execute are the original's, joined by blanks, which tears words with blanks apart; 3 and 4 are ours,
one entry a word. The agent reads the new ones when they are there.
"""

from __future__ import annotations

FRAME_MAX = 1 << 20

EXEC, KILL = 1, 2
ARGS, ENV = 3, 4


def execute_request(args: list[str], env: list[str]) -> bytes:
    """Frame a request to run a program in the enclave. Lone surrogates stand for bytes that are not UTF-8."""
    body = b"".join([_bytes(ARGS, _raw(word)) for word in args] + [_bytes(ENV, _raw(entry)) for entry in env])
    return frame(_bytes(EXEC, body))


def kill_request(signal: int) -> bytes:
    """Frame a request to send a signal."""
    return frame(_bytes(KILL, b"\x08" + _varint(signal)))


def frame(message: bytes) -> bytes:
    """Put the length in front."""
    return len(message).to_bytes(4, "little") + message


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
