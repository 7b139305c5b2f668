"""ttrpc's client: many calls may be under way on one connection, and each is waited for when its caller likes."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

from tests.containerd_kit.schema import METHODS, message_class

HEADER = struct.Struct(">IIBB")  # the payload's size, stream, type, flags
REQUEST, RESPONSE = 1, 2
CHUNK = 1 << 16
TASK_V2, TASK_V3 = "containerd.task.v2.Task", "containerd.task.v3.Task"
TIMEOUT_S = 30.0

_Request = message_class("ttrpc.Request")
_Response = message_class("ttrpc.Response")
CALLS = {name: (message_class(asked), message_class(answered)) for name, (asked, answered) in METHODS.items()}


class RpcError(Exception):
    """A call was refused: google.rpc.Status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"code {code}: {message}")
        self.code = code
        self.message = message


def frame(stream: int, kind: int, payload: bytes, flags: int = 0) -> bytes:
    return HEADER.pack(len(payload), stream, kind, flags) + payload


def request(service: str, method: str, payload: bytes, *, timeout_ns: int = 0, namespace: str = "kit") -> bytes:
    """Give a Request as containerd makes it."""
    message = _Request(service=service, method=method, payload=payload, timeout_nano=timeout_ns)
    message.metadata.add(key="containerd-namespace-ttrpc", value=namespace)
    encoded: bytes = message.SerializeToString()
    return encoded


class Frames:
    """Turns what comes from a peer into (stream, type, payload)."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        buffer = self._buffer + data
        found = []
        at = 0
        while len(buffer) - at >= HEADER.size:
            size, stream, kind, _ = HEADER.unpack_from(buffer, at)
            end = at + HEADER.size + size
            if len(buffer) < end:
                break
            found.append((stream, kind, buffer[at + HEADER.size : end]))
            at = end
        self._buffer = buffer[at:]
        return found


class Client:
    """A connection to a shim. Not for several threads at once."""

    def __init__(self, path: str, service: str = TASK_V2, namespace: str = "kit") -> None:
        self.service = service
        self._namespace = namespace
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self._frames = Frames()
        self._stream = 1
        self._answers: dict[int, Any] = {}

    def begin(self, method: str, timeout_ns: int = 0, **fields: object) -> tuple[int, str]:
        """Send a call of the Task service; give what finish() wants."""
        return self.begin_raw(self.service, method, CALLS[method][0](**fields).SerializeToString(), timeout_ns), method

    def begin_raw(self, service: str, method: str, payload: bytes, timeout_ns: int = 0) -> int:
        """Send any call; give its stream."""
        stream, self._stream = self._stream, self._stream + 2
        wanted = request(service, method, payload, timeout_ns=timeout_ns, namespace=self._namespace)
        self.socket.sendall(frame(stream, REQUEST, wanted))
        return stream

    def finish(self, call: tuple[int, str], timeout_s: float = TIMEOUT_S) -> Any:
        """Wait for the answer of a call. Raises RpcError, TimeoutError, ConnectionResetError."""
        stream, method = call
        return CALLS[method][1].FromString(self.finish_raw(stream, timeout_s))

    def finish_raw(self, stream: int, timeout_s: float = TIMEOUT_S) -> bytes:
        """Wait for the answer of a stream; give its payload."""
        deadline = time.monotonic() + timeout_s
        while stream not in self._answers:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"stream {stream} is not answered")
            self.socket.settimeout(left)
            self._receive()
        answer = self._answers.pop(stream)
        if answer.HasField("status") and answer.status.code:
            raise RpcError(answer.status.code, answer.status.message)
        payload: bytes = answer.payload
        return payload

    def is_answered(self, call: tuple[int, str], within_s: float = 0.0) -> bool:
        """Tell whether an answer comes within a time."""
        deadline = time.monotonic() + within_s
        while call[0] not in self._answers:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                self._receive()
                continue
            if time.monotonic() >= deadline:
                return False
        return True

    def call(
        self, method: str, more: Mapping[str, object] | None = None, timeout_s: float = TIMEOUT_S, **fields: object
    ) -> Any:
        """Call with `fields`, and `more` of them, and wait."""
        payload = CALLS[method][0](**fields, **(more or {})).SerializeToString()
        return CALLS[method][1].FromString(self.finish_raw(self.begin_raw(self.service, method, payload), timeout_s))

    def close(self) -> None:
        self.socket.close()

    def _receive(self) -> None:
        data = self.socket.recv(CHUNK)
        if not data:
            raise ConnectionResetError("the shim closed the connection")
        for stream, kind, payload in self._frames.feed(data):
            if kind == RESPONSE:
                self._answers[stream] = _Response.FromString(payload)
