"""Small files, read whole with three system calls: open() makes eight of it. Hot path."""

from __future__ import annotations

import os

from inclavare.errors import HostError

CHUNK = 1 << 16


def read_file(path: str) -> bytes:
    """Give a file's content. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while chunk := os.read(fd, CHUNK):  # procfs gives at most a page at a time
            content += chunk
        return content
    finally:
        os.close(fd)


def write_pid_file(path: str, pid: int) -> None:
    """Write a pid so that a reader never sees a part of it."""
    directory, _, name = path.rpartition("/")
    temporary = f"{directory}/.{name}" if directory else f".{name}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # the directory may be one where others put links
        try:
            fd = os.open(temporary, flags, 0o666)
        except FileExistsError:
            os.unlink(temporary)
            fd = os.open(temporary, flags, 0o666)
        try:
            os.write(fd, str(pid).encode())
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        raise HostError(f"cannot write the pid file {path}: {error.strerror}") from error
