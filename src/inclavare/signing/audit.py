"""The audit log of a signature server: a JSON object a line for each request to sign, given or refused.

It is written before the signature is given away, and where it cannot be, no signature is given. A file is opened for
each line, so it may be moved away at any time (logrotate(8)).
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime

from inclavare.errors import HostError

STDOUT = "-"


class AuditLog:
    """Writes to the file `path`, made with mode 0600 where it is not there, or to standard output for `-`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._write(b"")  # a server that cannot tell does not start

    def tell(self, now: float, **said: object) -> None:
        """Write a line: `time`, which `now` is in seconds since 1970, and `said`. Raises HostError."""
        time = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._write(json.dumps({"time": time, **said}).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        try:
            if self._path == STDOUT:
                _write_all(sys.stdout.fileno(), line)
                return
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o600)
            try:
                _write_all(descriptor, line)
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise HostError(f"cannot write the audit log {self._path}: {error.strerror}") from error


def _write_all(descriptor: int, line: bytes) -> None:
    """One write, so that lines of several threads stay whole; a full disk may take it in parts."""
    while line:
        line = line[os.write(descriptor, line) :]
