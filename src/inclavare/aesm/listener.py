"""The socket that a daemon for AESM listens on: one that systemd has opened, or one of its own.

A socket of its own is a file with mode 0777 in a directory with mode 0755, as clients know it. A file that a dead
daemon left is replaced; one behind which a daemon answers is not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Mapping

from inclavare.errors import HostError

BACKLOG = 1024  # as many as the kernel allows, 4096 by default
_FIRST_FD = 3  # of those that systemd passes


def inherited(environment: Mapping[str, str], pid: int) -> socket.socket | None:
    """Return the socket that systemd has opened for this process; None when there is none.

    Raises HostError for something that is no listening stream socket. Source: sd_listen_fds(3).
    """
    if environment.get("LISTEN_PID") != str(pid):
        return None
    if environment.get("LISTEN_FDS") != "1":
        raise HostError(
            f"expected one socket of systemd, found {environment.get('LISTEN_FDS')}", "Name one ListenStream= only."
        )
    os.set_inheritable(_FIRST_FD, False)
    listener = socket.socket(fileno=_FIRST_FD)
    if (
        listener.family != socket.AF_UNIX
        or listener.type != socket.SOCK_STREAM
        or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        raise HostError("systemd's descriptor 3 is not a listening stream socket", "Set ListenStream= to a path.")
    return listener


def opened(path: str) -> socket.socket:
    """Return a socket that listens at `path`. Raises HostError, also when a daemon answers there already."""
    directory = os.path.dirname(os.path.abspath(path))
    try:
        if not os.path.isdir(directory):
            os.makedirs(directory, exist_ok=True)
            os.chmod(directory, 0o755)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"cannot use the directory {directory}: {error.strerror}") from error
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two daemons that start at once shall not both find nobody
        _remove_left_over(path)
        listener.bind(path)
        os.chmod(path, 0o777)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise HostError(f"cannot listen on {path}: {reason}") from error
    except HostError:
        listener.close()
        raise
    finally:
        os.close(lock)
    return listener


def remove(listener: socket.socket, path: str, inode: int) -> None:
    """Close the socket and remove its file, unless it has become another's."""
    listener.close()
    try:
        if os.lstat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        pass


def _remove_left_over(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise HostError(f"cannot listen on {path}: there is something that is no socket", "Choose another --socket.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        result = probe.connect_ex(path)
    if result == errno.ECONNREFUSED:
        os.unlink(path)
    elif result != errno.ENOENT:  # EAGAIN, too: somebody listens, with a full queue
        raise HostError(
            f"cannot listen on {path}: a daemon answers there",
            "Stop it first (systemctl stop aesmd inclavare-aesmd), or choose another --socket.",
        )
