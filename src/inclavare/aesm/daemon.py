"""The daemon: takes connections, reads one message from each, sends its answer, closes.

One thread does everything; an answer takes a few milliseconds, so requests wait for each other as they do in Intel's
daemon. What a client can hold is bounded: a message of 1 MiB, TIMEOUT_S seconds from connect to the last byte of the
answer, and one of CONNECTIONS_MAX places. Beyond those clients wait in the kernel's queue.

A fault of ours in one request closes that connection, with a log line, and stops nothing.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from inclavare.aesm.errors import AesmMalformedError
from inclavare.aesm.server import FrameReader, Service
from inclavare.log import Log

TIMEOUT_S = 10.0
CONNECTIONS_MAX = 512  # open files are limited to 1024 by default
_PIECE_SIZE = 1 << 16
_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid
_PAUSE_S = 0.2  # when the kernel has no descriptor for us
_STOP_S = 2.0  # for answers under way


class Daemon:
    """Serves `service` on `listener`, which stays the caller's."""

    def __init__(self, service: Service, listener: socket.socket, log: Log, timeout_s: float = TIMEOUT_S) -> None:
        self._service = service
        self._listener = listener
        self._log = log
        self._timeout_s = timeout_s
        self._clients: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; what is under way then gets two seconds to be done."""
        self._listener.setblocking(False)
        accepting = asyncio.create_task(self._accept())
        await stop.wait()
        accepting.cancel()
        await asyncio.wait([accepting])
        if self._clients:
            _, late = await asyncio.wait(self._clients, timeout=_STOP_S)
            for client in late:
                client.cancel()
            if late:
                await asyncio.wait(late)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        places = asyncio.Semaphore(CONNECTIONS_MAX)

        def done(client: asyncio.Task[None]) -> None:
            self._clients.discard(client)
            places.release()

        while True:
            await places.acquire()
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                places.release()
                self._log.warning(f"cannot take a connection: {error.strerror}")
                await asyncio.sleep(_PAUSE_S)
                continue
            client = asyncio.create_task(self._serve(connection))
            self._clients.add(client)
            client.add_done_callback(done)

    async def _serve(self, connection: socket.socket) -> None:
        with connection:
            who = "?"
            try:
                who = _peer(connection)
                async with asyncio.timeout(self._timeout_s):
                    said = await self._converse(connection)
            except TimeoutError:
                self._log.warning(f"{who}: closed after {self._timeout_s:g} s without a whole message, or unread")
            except OSError as error:
                self._log.debug(f"{who}: {error.strerror}")
            except Exception as error:  # noqa: BLE001  # one request shall not stop the daemon
                self._log.error(f"{who}: internal error, connection closed: {type(error).__name__}: {error}")
            else:
                self._log.info(f"{who}: {said}")

    async def _converse(self, connection: socket.socket) -> str:
        """Read a message and answer it; return a line for the log."""
        loop = asyncio.get_running_loop()
        reader = FrameReader()
        while wanted := reader.wanted():
            piece = await loop.sock_recv(connection, min(wanted, _PIECE_SIZE))
            if not piece:
                return "closed before its message was whole"
            try:
                reader.feed(piece)
            except AesmMalformedError as error:
                return f"malformed: {error.message}"
        outcome = self._service.answer(reader.payload())
        if outcome.frame is not None:
            await loop.sock_sendall(connection, outcome.frame)
        return outcome.said


def _peer(connection: socket.socket) -> str:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(raw)
    return f"pid {pid} uid {uid}"
