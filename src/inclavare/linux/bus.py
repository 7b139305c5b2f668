"""A connection to a D-Bus daemon over its unix socket: authentication, calls with their replies, signals.

It serves one caller that asks one thing after another. The peer's credentials are the socket's (SASL EXTERNAL without a
name: right in a user namespace, too).

D-Bus Specification 0.42, "Authentication Protocol", "Server Addresses", "Message Bus Messages".
"""

from __future__ import annotations

import _socket
import time

from inclavare.errors import HostError
from inclavare.linux.dbus import (
    DESTINATION,
    ERROR,
    ERROR_NAME,
    INTERFACE,
    MEMBER,
    METHOD_CALL,
    METHOD_RETURN,
    PATH,
    PREAMBLE_SIZE,
    REPLY_SERIAL,
    SIGNAL,
    DBusError,
    Message,
    decode_message,
    encode_message,
    message_size,
)

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

BUS = "org.freedesktop.DBus"
BUS_PATH = "/org/freedesktop/DBus"
TIMEOUT_S = 30.0
LINE_MAX = 4096


class CallError(HostError):
    """A method call was answered by an error; `name` is the D-Bus name of it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Connection:
    """A bus to call objects on. Close it when done."""

    __slots__ = ("_deadline", "_serial", "_signals", "_socket", "_timeout_s")

    def __init__(self, addresses: str, timeout_s: float = TIMEOUT_S) -> None:
        """Connect to the first address that works. Raises HostError, naming each that does not.

        `timeout_s` bounds each call and each wait for a signal.
        """
        self._timeout_s = timeout_s
        self._serial = 0
        self._signals: list[Message] = []
        self._start_clock()
        self._socket = _connect(addresses)
        try:
            self._authenticate()
            self.call(BUS, BUS_PATH, BUS, "Hello")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the bus."""
        self._socket.close()

    def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
    ) -> tuple[Any, ...]:
        """Call a method and give what it returns. Raises CallError for its error, HostError when there is no answer."""
        self._serial += 1
        fields = {PATH: path, INTERFACE: interface, MEMBER: member, DESTINATION: destination}
        self._start_clock()
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(encode_message(Message(METHOD_CALL, self._serial, fields, signature, body)))
            while True:
                message = self._receive()
                if message.kind == SIGNAL:
                    self._signals.append(message)
                elif message.fields.get(REPLY_SERIAL) == self._serial:
                    break
        except (OSError, DBusError) as error:
            raise HostError(f"cannot call {interface}.{member} over D-Bus: {_reason(error)}") from error
        if message.kind == METHOD_RETURN:
            return message.body
        name = str(message.fields.get(ERROR_NAME, "")) if message.kind == ERROR else ""
        text = message.body[0] if message.signature[:1] == "s" else name
        raise CallError(name, f"{interface}.{member}: {text}")

    def subscribe(self, rule: str) -> None:
        """Have the signals delivered that fit a match rule."""
        self.call(BUS, BUS_PATH, BUS, "AddMatch", "s", (rule,))

    def wait_for_signal(self, wanted: Callable[[Message], bool], words: str) -> Message:
        """Give the first signal that is wanted, also one that came during a call. `words` say what for, in errors."""
        self._start_clock()
        while True:
            while self._signals:
                message = self._signals.pop(0)
                if wanted(message):
                    return message
            try:
                message = self._receive()
            except (OSError, DBusError) as error:
                raise HostError(f"cannot wait for {words}: {_reason(error)}") from error
            if message.kind == SIGNAL:
                self._signals.append(message)

    def _authenticate(self) -> None:
        try:
            self._socket.sendall(b"\0AUTH EXTERNAL\r\n")
            line = self._line()
            if line == b"DATA":
                self._socket.sendall(b"DATA\r\n")
                line = self._line()
            if not line.startswith(b"OK "):
                raise HostError(f"the D-Bus daemon refused us: {line.decode('utf-8', 'backslashreplace')}")
            self._socket.sendall(b"BEGIN\r\n")
        except OSError as error:
            raise HostError(f"the D-Bus daemon refused us: {_reason(error)}") from error

    def _line(self) -> bytes:
        """Take a line, byte by byte: what follows is not ours to buffer."""
        line = b""
        while not line.endswith(b"\r\n"):
            line += self._exactly(1)
            if len(line) > LINE_MAX:
                raise HostError("what listens on the D-Bus socket does not speak D-Bus")
        return line[:-2]

    def _receive(self) -> Message:
        preamble = self._exactly(PREAMBLE_SIZE)
        return decode_message(preamble + self._exactly(message_size(preamble) - PREAMBLE_SIZE))

    def _exactly(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            self._socket.settimeout(self._left())
            chunk = self._socket.recv(size - len(content))
            if not chunk:
                raise ConnectionResetError("the D-Bus daemon closed the connection")
            content += chunk
        return content

    def _start_clock(self) -> None:
        self._deadline = time.monotonic() + self._timeout_s

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


def parse_addresses(text: str) -> list[str]:
    """Give the unix socket addresses of a D-Bus address list; an abstract one begins with NUL. Others are left out."""
    found = []
    for address in text.split(";"):
        transport, _, rest = address.partition(":")
        members = {}
        for member in rest.split(","):
            name, _, value = member.partition("=")
            members[name] = _unescape(value)
        if transport != "unix":
            continue
        if "path" in members:
            found.append(members["path"])
        elif "abstract" in members:
            found.append("\0" + members["abstract"])
    return found


def _connect(addresses: str) -> _socket.socket:
    tried = []
    for address in parse_addresses(addresses):
        client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            client.connect(address)
        except (OSError, ValueError) as error:
            client.close()
            tried.append(f"{address.replace(chr(0), '@')}: {_reason(error)}")
        else:
            return client
    raise HostError(f"cannot connect to the D-Bus daemon: {'; '.join(tried) or f'no unix socket in {addresses!r}'}")


def _unescape(value: str) -> str:
    head, *rest = value.encode("utf-8", "surrogateescape").split(b"%")
    out = head
    for part in rest:
        try:
            out += bytes([int(part[:2], 16)]) + part[2:]
        except ValueError:
            out += b"%" + part
    return out.decode("utf-8", "surrogateescape")


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
