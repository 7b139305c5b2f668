"""The daemon in a thread, for tests that talk to it over its socket."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path

from inclavare.aesm.codec import HEAD_SIZE, decode_response, encode, message_size
from inclavare.aesm.daemon import Daemon
from inclavare.aesm.listener import opened
from inclavare.aesm.messages import Request, Response
from inclavare.aesm.server import Service
from inclavare.log import Log
from inclavare.sgx.platform_protocol import Platform


class Serving:
    """A daemon for `platform` below `folder`; its log lines are in `folder`/log."""

    def __init__(self, folder: Path, platform: Platform, timeout_s: float = 10) -> None:
        self.path = str(folder / "aesm.socket")
        self.log = folder / "log"
        self._listener = opened(self.path)
        self._log_fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        self._daemon = Daemon(Service(platform), self._listener, Log(self._log_fd, level="debug"), timeout_s)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=[self._run()])
        self._thread.start()
        self._ready.wait()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._ready.set()
        await self._daemon.run(self._stop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._listener.close()
        os.close(self._log_fd)

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        connection.connect(self.path)
        return connection

    def raw(self, data: bytes) -> bytes:
        """Send `data`, no more, and return all that comes back."""
        with self.connect() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)

    def ask(self, request: Request) -> Response:
        frame = self.raw(encode(request))
        assert message_size(frame[:HEAD_SIZE]) == len(frame) - HEAD_SIZE
        return decode_response(frame[HEAD_SIZE:], request.RESPONSE)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes, also when it does so with something unread."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data
