"""A client of AESM: one connection a request, as the daemon wants it.

The time-out is for a request as a whole: from connect to the last byte of the answer. Sizes are checked before memory
is asked for. A daemon that closes without an answer has taken the request for malformed, and that is said.

Where the socket file is not there or nobody listens, the abstract socket of old releases is tried; a path that the
caller gave is not replaced by another.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TypeVar

from inclavare.aesm.codec import HEAD_SIZE, decode_response, encode, message_size
from inclavare.aesm.errors import AesmError, AesmMalformedError, AesmTimeoutError, AesmUnreachableError
from inclavare.aesm.messages import Request, Response

SOCKET = "/var/run/aesmd/aesm.socket"
LEGACY_SOCKET = b"\0sgx_aesm_socket_base".ljust(108, b"\0")  # old releases name the whole of sun_path
TIMEOUT_S = 30.0  # making a key and fetching its certificate takes seconds
TIMEOUT_MICROSECONDS = 15_000_000  # what Intel's client sends along; daemons do not read it

AnyResponse = TypeVar("AnyResponse", bound=Response)


class AesmClient:
    """Asks the daemon at `path` (None: where it is by default). `timeout_s` bounds each request as a whole."""

    def __init__(self, path: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def ask(self, attempted: str, request: Request, kind: type[AnyResponse]) -> AnyResponse:
        """Return the daemon's answer to `request`, which has the code 0.

        `attempted` is what the errors say was tried, as in `get a quote`. Raises AesmError for other codes,
        AesmUnreachableError (or its AesmTimeoutError), AesmMalformedError.
        """
        response = self.exchange(attempted, request, kind)
        if response.error_code:
            raise AesmError(attempted, response.error_code)
        return response

    def exchange(self, attempted: str, request: Request, kind: type[AnyResponse]) -> AnyResponse:
        """Return the daemon's answer whatever its code. Raises as `ask`, but for AesmError."""
        frame = encode(request)
        deadline = time.monotonic() + self._timeout_s
        connection, where = self._connect(attempted, deadline)
        with connection:
            try:
                _send(connection, frame, deadline)
                payload = _receive(connection, message_size(_receive(connection, HEAD_SIZE, deadline)), deadline)
            except TimeoutError as error:
                raise self._late(attempted, where) from error
            except OSError as error:
                raise AesmUnreachableError(
                    f"cannot {attempted}: {where}: {error.strerror}", "Is the daemon well? systemctl status aesmd"
                ) from error
            except AesmMalformedError as error:
                raise AesmMalformedError(f"cannot {attempted}: {where}: {error.message}", error.hint) from error
        return decode_response(payload, kind)

    def _connect(self, attempted: str, deadline: float) -> tuple[socket.socket, str]:
        places: list[tuple[str | bytes, str]] = [(self._path or SOCKET, self._path or SOCKET)]
        if self._path is None:
            places.append((LEGACY_SOCKET, "the abstract socket sgx_aesm_socket_base"))
        first: OSError | None = None
        for address, name in places:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                connection.connect(address)
            except TimeoutError as error:
                connection.close()
                raise self._late(attempted, name) from error
            except OSError as error:
                connection.close()
                first = first or error
                if not isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
                    break
            else:
                return connection, name
        assert first is not None  # noqa: S101  # there is at least one place
        # ENAMETOOLONG is the only error without a number: Python finds it before the kernel does.
        reason = os.strerror(first.errno) if first.errno else str(first)
        raise AesmUnreachableError(f"cannot {attempted}: cannot connect to {places[0][1]}: {reason}", _hint(first))

    def _late(self, attempted: str, where: str) -> AesmTimeoutError:
        return AesmTimeoutError(
            f"cannot {attempted}: no answer from {where} within {self._timeout_s:g} s",
            "Is the daemon well, and its PCCS? journalctl -u aesmd",
        )


def _hint(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "Start the daemon: systemctl start aesmd (in a container: mount the directory /var/run/aesmd)."
    if isinstance(error, ConnectionRefusedError):
        return "The socket is left over from a daemon that ended. Start it: systemctl start aesmd"
    if isinstance(error, PermissionError):
        return "The socket wants mode 0777 and its directory 0755: see runectl doctor."
    return ""


def _send(connection: socket.socket, data: bytes, deadline: float) -> None:
    view = memoryview(data)
    while view:
        connection.settimeout(_left(deadline))
        view = view[connection.send(view) :]


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    """Return exactly `size` bytes. Raises TimeoutError, OSError, AesmMalformedError."""
    data = bytearray()
    while len(data) < size:
        connection.settimeout(_left(deadline))
        part = connection.recv(size - len(data))
        if not part:
            raise AesmMalformedError(
                f"the daemon closed the connection after {len(data)} of {size} bytes",
                "It does so with requests that it takes for malformed, and when it stops.",
            )
        data += part
    return bytes(data)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
