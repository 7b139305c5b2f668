"""Log lines as engines read them: `--log FILE --log-format text|json`.

One line a message, written at once and unbuffered. JSON lines are runc's: {"level","msg","time"}; the last line of
level error is what Docker, containerd and podman show to their users. The text form is logfmt.

This module does no formatting of its own beyond that and keeps no global logger: a `Log` value is passed to who needs
it. It is on the hot path and imports only builtins.
"""

from __future__ import annotations

import os
import time

LEVELS = ("trace", "debug", "info", "warning", "error", "fatal", "panic", "off")


def json_string(text: str) -> str:
    """`text` as a JSON string, ASCII only."""
    from _json import encode_basestring_ascii  # noqa: PLC0415  # cheap where json costs 7 ms

    return str(encode_basestring_ascii(text.encode("utf-8", "replace").decode()))


class Log:
    """Writes messages of `level` and above to a file descriptor (not owned)."""

    __slots__ = ("_json", "_threshold", "fd")

    def __init__(self, fd: int, *, json: bool = False, level: str = "info") -> None:
        self.fd = fd
        self._json = json
        self._threshold = LEVELS.index(level)

    def debug(self, message: str) -> None:
        """Say what was done; for who looks for a fault."""
        self._write("debug", message)

    def info(self, message: str) -> None:
        """Say what an operator may want to know."""
        self._write("info", message)

    def warning(self, message: str) -> None:
        """Say what is odd but was dealt with."""
        self._write("warning", message)

    def error(self, message: str) -> None:
        """Say why the command failed."""
        self._write("error", message)

    def _write(self, level: str, message: str) -> None:
        if LEVELS.index(level) < self._threshold:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self._json:
            line = f'{{"level":"{level}","msg":{json_string(message)},"time":"{stamp}"}}\n'
        else:
            line = f'time="{stamp}" level={level} msg={json_string(message)}\n'
        os.write(self.fd, line.encode())
