"""Connections of containerd's: requests come in, and each is answered when its method has an answer."""

from __future__ import annotations

import _socket
import errno
import os
from _struct import Struct

from inclavare.errors import InclavareError, WireError
from inclavare.shim.log import describe
from inclavare.shim.loop import IN, OUT, CancelledError
from inclavare.wire import protobuf, ttrpc

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from inclavare.shim.log import ShimLog
    from inclavare.shim.loop import Future, Loop, Task

    Call = Callable[[str, str, bytes], Coroutine[Future, None, bytes]]

CHUNK = 1 << 16
UNSENT_MAX = 1 << 20  # bytes of answers that a client may leave unread before we read no more of it
WAIT = "Wait"  # the method of a service's whose answer may never come
PAUSE_S = 0.1  # when there are no file descriptors left
CREDENTIALS = Struct("3i")  # struct ucred: pid, uid, gid


class RpcError(InclavareError):
    """A call fails with a status: `code` of google.rpc.Code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Server:
    """Listens, and serves who connects with our own user and group. `call` carries out (service, method, payload)."""

    __slots__ = ("_call", "_log", "_loop", "_socket", "connections")

    def __init__(self, loop: Loop, listener: _socket.socket, call: Call, log: ShimLog) -> None:
        self._loop = loop
        self._socket = listener
        self._call = call
        self._log = log
        self.connections: set[Connection] = set()
        listener.setblocking(False)
        loop.watch(listener.fileno(), IN, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]  # noqa: SLF001  # what socket.accept() calls
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                return  # the client has gone
            self._loop.forget(self._socket.fileno())
            self._loop.later(PAUSE_S, lambda: self._loop.watch(self._socket.fileno(), IN, self._accept))
            return
        client = _socket.socket(fileno=fd)
        _, uid, gid = CREDENTIALS.unpack(client.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, CREDENTIALS.size))
        if (uid, gid) != (os.geteuid(), os.getegid()):
            self._log.warning(f"a connection of user {uid}, group {gid} was refused")
            client.close()
            return
        os.set_inheritable(fd, False)
        self.connections.add(Connection(self._loop, client, self._call, self.connections, self._log))


class Connection:
    """One client. What is malformed ends its connection, and no other's."""

    __slots__ = ("_call", "_events", "_last", "_log", "_loop", "_others", "_reader", "_socket", "_unsent", "_waits")

    def __init__(self, loop: Loop, client: _socket.socket, call: Call, others: set[Connection], log: ShimLog) -> None:
        self._loop = loop
        self._log = log
        self._socket = client
        self._call = call
        self._others = others
        self._reader = ttrpc.Reader()
        self._unsent = bytearray()
        self._last = 0  # the highest number of a stream
        self._waits: set[Task] = set()  # calls that do nothing but wait, maybe for ever
        self._events = IN
        client.setblocking(False)
        loop.watch(client.fileno(), IN, self._on_event)

    def is_idle(self) -> bool:
        """Tell whether all that was answered has been sent."""
        return not self._unsent

    def _on_event(self, events: int) -> None:
        if self._unsent:
            self._flush()
        if events & ~OUT and self._events & IN and self._socket.fileno() >= 0:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        for frame in self._reader.feed(data):
            refused = self._check(frame)
            if refused is not None:
                self._send(ttrpc.refusal(frame.stream, refused.code, refused.message))
            elif frame.kind == ttrpc.REQUEST and frame.payload is not None:
                self._loop.start(self._serve(frame.stream, frame.payload))

    def _check(self, frame: ttrpc.Frame) -> RpcError | None:
        if frame.payload is None:
            return RpcError(
                ttrpc.RESOURCE_EXHAUSTED,
                f"message length {frame.size} exceed maximum message size of {ttrpc.PAYLOAD_MAX}",
            )
        if frame.kind != ttrpc.REQUEST:
            return None  # of a later version of the protocol
        if not frame.stream & 1:
            return RpcError(ttrpc.INVALID_ARGUMENT, "StreamID must be odd for client initiated streams")
        if frame.stream <= self._last:
            return RpcError(ttrpc.INVALID_ARGUMENT, "StreamID cannot be re-used and must increment")
        self._last = frame.stream
        return None

    async def _serve(self, stream: int, payload: bytes) -> None:
        try:
            request = _parse(payload)
            call = self._loop.task(self._call(request["service"], request["method"], request["payload"]))
            timer = (
                self._loop.later(request["timeout_nano"] / 1e9, call.cancel) if request["timeout_nano"] > 0 else None
            )
            if request["method"] == WAIT:
                self._waits.add(call)
            try:
                answer = ttrpc.answer(stream, await call)
            finally:
                self._waits.discard(call)
                if timer is not None:
                    timer.cancel()
        except RpcError as error:
            answer = ttrpc.refusal(stream, error.code, error.message)
        except InclavareError as error:
            answer = ttrpc.refusal(stream, ttrpc.UNKNOWN, error.text())
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            answer = ttrpc.refusal(stream, ttrpc.UNKNOWN, f"{where}{error.strerror or error}")
        except CancelledError:
            answer = ttrpc.refusal(stream, ttrpc.DEADLINE_EXCEEDED, "context deadline exceeded")
        except Exception as error:  # noqa: BLE001  # a call is answered, whatever is wrong with us
            self._log.error(describe(error))
            answer = ttrpc.refusal(stream, ttrpc.UNKNOWN, f"{type(error).__name__}: {error}")
        self._send(answer)

    def _send(self, data: bytes) -> None:
        self._unsent += data
        if len(self._unsent) == len(data):  # else it waits for its turn
            self._flush()

    def _flush(self) -> None:
        if self._socket.fileno() < 0:
            return
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        events = (OUT if self._unsent else 0) | (IN if len(self._unsent) <= UNSENT_MAX else 0)
        if events != self._events:
            self._events = events
            self._loop.watch(self._socket.fileno(), events, self._on_event)

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._unsent.clear()
            self._others.discard(self)
            for call in list(self._waits):  # nobody would hear of it; what has been begun goes on
                call.cancel()


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        return protobuf.parse(ttrpc.REQUEST_SCHEMA, payload)
    except WireError as error:
        raise RpcError(ttrpc.INVALID_ARGUMENT, f"unmarshal request error: {error.message}") from error
