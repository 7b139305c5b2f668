"""The sockets of a signature server: takes connections, with TLS or without, and has `server.Service` answer.

One thread has all connections; signing is done by others. What a client can hold is bounded: a head of 16 KiB, a body
of 64 KiB, one of CONNECTIONS_MAX places, and some seconds from connect to the last byte of the answer, TLS included.
Beyond those places clients wait in the kernel's queue. A connection serves one request.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time

from inclavare.errors import HostError
from inclavare.log import Log
from inclavare.signing.http import HEAD_MAX, Answer, BadRequestError, encode_answer, parse_head
from inclavare.signing.server import BODY_MAX, Caller, Service

TIMEOUT_S = 10.0
CONNECTIONS_MAX = 256
_PAUSE_S = 0.2  # when the kernel has no descriptor for us
_STOP_S = 2.0  # for answers under way
_LINGER_S = 1.0  # for what a client goes on sending after its answer
_LINGER_MAX = 1 << 20


class Daemon:
    """Serves `service` on `listener`, which stays the caller's, by https where `tls` is there."""

    def __init__(
        self,
        service: Service,
        listener: socket.socket,
        log: Log,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._service = service
        self._listener = listener
        self._log = log
        self._tls = tls
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
                connection, address = await loop.sock_accept(self._listener)
            except OSError as error:
                places.release()
                self._log.warning(f"cannot take a connection: {error.strerror}")
                await asyncio.sleep(_PAUSE_S)
                continue
            host, port = address[:2]
            who = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            client = asyncio.create_task(self._serve(connection, who))
            self._clients.add(client)
            client.add_done_callback(done)

    async def _serve(self, connection: socket.socket, who: str) -> None:
        writer = None
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await self._streams(connection)
                said = await self._converse(reader, writer, who)
        except TimeoutError:
            self._log.warning(f"{who}: closed after {self._timeout_s:g} s without a whole request, or unread")
        except asyncio.IncompleteReadError:
            self._log.info(f"{who}: closed before its request was whole")
        except ssl.SSLError as error:
            self._log.warning(f"{who}: no TLS: {error.reason}")
        except OSError as error:
            self._log.info(f"{who}: {error.strerror or type(error).__name__}")
        except Exception as error:  # noqa: BLE001  # one request shall not stop the daemon
            self._log.error(f"{who}: internal error, connection closed: {type(error).__name__}: {error}")
        else:
            self._log.info(f"{who}: {said}")
        finally:
            if writer is None:
                connection.close()
            else:
                writer.transport.abort()

    async def _streams(self, connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(HEAD_MAX)
        protocol = asyncio.StreamReaderProtocol(reader)
        connection.setblocking(False)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            connection,
            ssl=self._tls,
            ssl_handshake_timeout=self._timeout_s if self._tls else None,
            ssl_shutdown_timeout=_LINGER_S if self._tls else None,
        )
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, who: str) -> str:
        """Read a request and answer it; return a line for the log."""
        caller = Caller(who, _subject(writer))
        asked, whole = "?", False
        try:
            first = await reader.readexactly(1)
            if not first.isalpha():  # the first byte of TLS, for one: no line of HTTP will ever follow
                raise BadRequestError("expected a request of HTTP")  # noqa: TRY301
            request = parse_head(first + await reader.readuntil(b"\r\n\r\n"))
            asked = f"{request.method} {request.path}"
            made, caller = self._service.answer_head(request, caller)
            whole = made is not None and not request.body_size
            if made is None:
                if request.headers.get("expect", "").lower() == "100-continue":
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(request.body_size)
                made = await asyncio.to_thread(self._service.sign, body, caller)
                whole = True
        except BadRequestError as error:
            made = Answer(error.status, f"{error}\n".encode())
        except asyncio.LimitOverrunError:
            made = Answer(431, f"expected at most {HEAD_MAX} bytes of headers\n".encode())
        except HostError as error:  # the audit log cannot be written: nothing is given
            self._log.error(f"{who}: {error.message}")  # no traceback
            made = Answer(500, b"the audit log cannot be written\n")
        writer.write(encode_answer(made, time.time(), with_body=not asked.startswith("HEAD ")))
        await writer.drain()
        if not whole:
            if writer.can_write_eof():  # TLS cannot
                writer.write_eof()
            await _linger(reader)
        writer.close()
        with contextlib.suppress(OSError):  # TimeoutError is one: the client has its answer and does not say goodbye
            await writer.wait_closed()
        return f"{asked} {made.status}{f' by {caller.token}' if caller.token else ''}"


async def _linger(reader: asyncio.StreamReader) -> None:
    """Take what a client goes on sending: if it were refused, the kernel would take back the answer, too."""
    taken = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while taken < _LINGER_MAX and (piece := await reader.read(BODY_MAX)):
                taken += len(piece)


def _subject(writer: asyncio.StreamWriter) -> str | None:
    """Return the subject of the certificate that the client has shown and that was verified."""
    certificate = writer.get_extra_info("peercert")
    if not certificate:
        return None
    return ", ".join(f"{name}={value}" for part in certificate["subject"] for name, value in part)
