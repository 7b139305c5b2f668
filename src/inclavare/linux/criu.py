"""Talks to CRIU: `criu swrk FD` is started for one request and answers over a socket.

While it works it notifies us of what it has reached, by name; the answer to a notification lets it go on. The protocol
is in criu_messages; who starts the process for a restore is container.restore.
"""

from __future__ import annotations

import _socket
import os

from inclavare.errors import HostError
from inclavare.linux import criu_messages as m

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    # Name of what was reached, pid of the container's process, fd that came with it or -1.
    Notified = Callable[[str, int, int], None]

MINIMUM = (3, 15, 0)  # external pid namespaces; tells by a notification that lazy pages can be fetched
MESSAGE_MAX = 1 << 16
DECISIVE_LINES = 3


class RefusedError(Exception):
    """CRIU said no, or died; its log knows why."""


def find() -> str:
    """Give the path of criu. Raises HostError when there is none in $PATH."""
    for directory in os.getenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").split(":"):
        path = f"{directory or '.'}/criu"
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise HostError("cannot find criu in $PATH", "Install CRIU: the Debian package criu.")


def pair() -> tuple[_socket.socket, _socket.socket]:
    """Make the two ends of a conversation: ours and CRIU's."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)


def ask(program: str, request: dict[str, object], fds: tuple[int, ...], notified: Notified) -> dict[str, object]:
    """Start CRIU with these fds for one request, and give its answer. Raises RefusedError."""
    ours, theirs = pair()
    try:
        pid = os.posix_spawn(
            program,
            [program, "swrk", str(theirs.fileno())],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, fd) for fd in (theirs.fileno(), *fds)],
        )
    except OSError as error:
        ours.close()
        raise HostError(f"cannot start {program}: {error.strerror}") from error
    finally:
        theirs.close()
    return converse(ours, pid, request, notified)


def converse(ours: _socket.socket, pid: int, request: dict[str, object], notified: Notified) -> dict[str, object]:
    """Send a request to CRIU (our child `pid`), answer its notifications, and wait for its end.

    Raises RefusedError, and whatever `notified` raises; CRIU then takes back what it has done.
    """
    try:
        answer = _talk(ours, request, notified)
    finally:
        ours.close()  # CRIU takes this for a no, or for the end
        os.waitpid(pid, 0)
    if not answer.get("success"):
        raise RefusedError(answer.get("cr_errmsg") or f"error {answer.get('cr_errno', 'unknown')}")
    return answer


def version(program: str) -> tuple[int, int, int]:
    """Give CRIU's version. Raises HostError when it is older than rune can use."""
    try:
        told = ask(program, {"type": m.VERSION}, (), _ignore).get("version")
    except RefusedError as error:
        raise HostError(f"{program} does not tell its version: {error}") from error
    numbers = told if isinstance(told, dict) else {}
    major, minor, sublevel = (int(numbers.get(name, 0)) for name in ("major_number", "minor_number", "sublevel"))
    if (major, minor, sublevel) < MINIMUM:
        raise HostError(
            f"{program} is CRIU {dotted((major, minor, sublevel))}, and rune needs {dotted(MINIMUM)}",
            "Install a newer one.",
        )
    return major, minor, sublevel


def has(program: str, feature: str) -> bool:
    """Tell whether CRIU and the kernel can do this: mem_track or lazy_pages."""
    try:
        found = ask(program, {"type": m.FEATURE_CHECK, "features": {feature: True}}, (), _ignore).get("features")
    except RefusedError:
        return False
    return isinstance(found, dict) and bool(found.get(feature))


def failure(attempt: str, error: RefusedError, path: str, found: tuple[int, int, int]) -> HostError:
    """Make one sentence of a failure: the decisive lines of CRIU's log, its path, and what may help."""
    try:
        with open(path, "rb") as file:
            log = file.read().decode("utf-8", "replace")
    except OSError:
        log = ""
    lines = [line.partition("Error ")[2] for line in log.splitlines() if "Error (" in line]
    lines = [line for line in lines if "FAILED" not in line][-DECISIVE_LINES:]  # each is the reason of the next
    why = "; ".join(lines) or str(error)
    where = f" (the log is {path})" if log else f" (it wrote no log {path})"
    return HostError(
        f"cannot {attempt}: CRIU {dotted(found)} failed: {why}{where}",
        f"Should CRIU {dotted(found)} be too old for this kernel, Linux {os.uname().release}: install a newer one.",
    )


def dotted(numbers: tuple[int, int, int]) -> str:
    """Write a version as CRIU does."""
    return ".".join([str(number) for number in numbers]).removesuffix(".0")


def _talk(ours: _socket.socket, request: dict[str, object], notified: Notified) -> dict[str, object]:
    message = m.encode(m.REQUEST, request)
    while True:
        try:
            ours.send(message)
            raw, ancillary, _, _ = ours.recvmsg(MESSAGE_MAX, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        except (BrokenPipeError, ConnectionResetError):
            raw, ancillary = b"", []
        if not raw:
            raise RefusedError("it died")
        answer = m.decode(m.RESPONSE, raw)
        if answer.get("type") != m.NOTIFY or not answer.get("success"):
            return answer
        fd = int.from_bytes(ancillary[0][2][:4], "little") if ancillary else -1
        notice = answer.get("notify")
        known = notice if isinstance(notice, dict) else {}
        try:
            notified(str(known.get("script", "")), int(known.get("pid", 0)), fd)
        finally:
            if fd >= 0:
                os.close(fd)
        message = m.encode(m.REQUEST, {"type": m.NOTIFY, "notify_success": True})


def _ignore(_name: str, _pid: int, _fd: int) -> None:
    """Nothing is notified while CRIU only tells of itself."""
