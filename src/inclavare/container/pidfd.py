"""Names a new process to whoever listens on --pidfd-socket, by a pidfd: no later process can be taken for it."""

from __future__ import annotations

import _socket
import os

from inclavare.errors import HostError


def send(path: str, pid: int, words: str) -> None:
    """Send a pidfd of `pid` (our child, so the number is not reused) to the unix socket at `path`, with `words`.

    The words are runc's: "standard" for a container's first process, "setns" for one of exec. Raises HostError.
    """
    pidfd = os.pidfd_open(pid)
    way = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        way.connect(path)
        way.sendmsg([words.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pidfd.to_bytes(4, "little"))])
    except OSError as error:
        raise HostError(f"cannot send the pidfd to the socket {path}: {error.strerror or error}") from error
    finally:
        way.close()
        os.close(pidfd)
