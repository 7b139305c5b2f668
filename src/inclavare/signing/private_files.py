"""Files with secrets: read only where nobody but their owner can, so that no mistake in their mode goes unnoticed."""

from __future__ import annotations

import os
import stat

from inclavare.errors import HostError

SIZE_MAX = 1 << 20


def read_private(path: str, what: str, forbidden: int = 0o077) -> bytes:
    """Return the content of `path`, a regular file of root or of this process's user, at most 1 MiB.

    `what` is it, for errors. Raises HostError when it cannot be read, belongs to another user, or has one of the
    permissions `forbidden`.
    """
    try:
        # O_NONBLOCK: a FIFO in its place shall not stop us.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(f"cannot read {what} {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise HostError(f"cannot use {what} {path}: it is not a regular file")
        if found.st_uid not in (0, os.geteuid()):
            raise HostError(
                f"cannot use {what} {path}: it belongs to user {found.st_uid}, who could exchange it",
                f"chown root {path}",
            )
        if found.st_mode & forbidden:
            mode = stat.S_IMODE(found.st_mode)
            raise HostError(
                f"cannot use {what} {path}: its mode {mode:04o} lets others read or write it",
                f"chmod {mode & ~forbidden:04o} {path}",
            )
        content = file.read(SIZE_MAX + 1)
    if len(content) > SIZE_MAX:
        raise HostError(f"cannot use {what} {path}: it has more than {SIZE_MAX} bytes")
    return content
