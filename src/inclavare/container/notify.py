"""Readiness: a service manager's $NOTIFY_SOCKET is not for the container; it has one of its own, and READY=1 goes on.

What comes from a container is not passed on as it is: MAINPID=, FDSTORE= and their like would be orders to the service
manager. As with runc, only the line READY= is, with the container's process as MAINPID where rune does not stay; the
socket then goes away. `create` makes its directory, whose mount is read-only, and `start` or `run` the socket in it.

sd_notify(3), systemd.exec(5). Imported only where rune is told of a socket.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums: 4 ms
import _socket
import _thread
import os
import select

from inclavare.container import lifecycle
from inclavare.container.executor import SIGNALS
from inclavare.errors import UsageError
from inclavare.oci.process import last_of_each
from inclavare.oci.reader import Members
from inclavare.oci.spec import Mount

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.create import Prepared
    from inclavare.container.store import Record
    from inclavare.log import Log

DIRECTORY = "notify"  # in the state directory
SOCKET = "notify.sock"
INSIDE = "/run/notify"
MESSAGE_MAX = 4096  # PIPE_BUF, as the service manager takes them
BARRIER_TIMEOUT_MS = 5000


class Notifier:
    """The way from a container's socket to the service manager's."""

    __slots__ = ("_address", "_directory", "_host", "_ours")

    def __init__(self, host: str) -> None:
        """`host` is the value of $NOTIFY_SOCKET. Raises UsageError for one that no unix socket can have."""
        if host[:1] not in ("/", "@"):
            raise UsageError(f"NOTIFY_SOCKET is {host!r}", "It is an absolute path, or @ and an abstract name.")
        self._host = host
        self._address = host.encode("utf-8", "surrogateescape")
        if host.startswith("@"):
            self._address = b"\0" + self._address[1:]
        self._ours: _socket.socket | None = None
        self._directory = ""

    def show(self, prepared: Prepared) -> None:
        """Add the socket to the configuration of a container that is to be made."""
        source = f"{prepared.options.root}/{prepared.id}/{DIRECTORY}"
        options = ["bind", "nosuid", "noexec", "nodev", "ro"]
        prepared.spec.mounts.append(
            Mount(Members({"destination": INSIDE, "type": "bind", "source": source, "options": options}))
        )
        prepared.facts.sources[os.path.normpath(source)] = True  # that is what it will be
        process = prepared.spec.process
        process.env = last_of_each([*process.env, f"NOTIFY_SOCKET={INSIDE}/{SOCKET}"])

    def make(self, record: Record, *, listen: bool) -> None:
        """Make the directory that is shown, and the socket if the program may run at once."""
        path = record.path(DIRECTORY)
        os.chmod(record.directory, 0o711)  # root of a user namespace is nobody's on the way to what it mounts
        os.mkdir(path, 0o755)
        os.chmod(path, 0o755)
        if listen:
            self.listen(record)

    def listen(self, record: Record) -> None:
        """Make the socket. Every user of the container may write to it."""
        self._directory = record.path(DIRECTORY)
        # Bound through the directory's fd: the path may be longer than an address can be.
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._ours = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
            self._ours.bind(f"/proc/self/fd/{directory}/{SOCKET}")
            os.chmod(f"{self._directory}/{SOCKET}", 0o777)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Listen no more: who writes then is refused, and does not wait for a reader."""
        if self._ours is not None:
            self._ours.close()
            self._ours = None
            try:
                os.unlink(f"{self._directory}/{SOCKET}")
            except FileNotFoundError:  # the container was deleted meanwhile
                return

    def pass_on(self, record: Record, log: Log, *, stays: bool) -> None:
        """Wait until the container is ready or has ended, and say so to the service manager.

        Unless rune `stays`, the container's process is named as the service's, and the message has been dealt with
        when this returns: it counts only as long as its sender lives. What cannot be said is logged.
        """
        theirs = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            theirs.connect(self._address)
            ready = self._await(record)
            if ready and stays:
                theirs.send(ready)
            elif ready:
                theirs.send(b"%s\nMAINPID=%d" % (ready, record.pid))
                _await_barrier(theirs)
        except OSError as error:
            log.warning(f"cannot tell {self._host} that {record.id} is ready: {error.strerror or error}")
        finally:
            theirs.close()
            self.close()

    def pass_on_aside(self, record: Record, log: Log) -> None:
        """Do that beside the foreground, in the same process: service managers ask who the sender is."""
        saved = _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)  # signals are for the foreground
        try:
            _thread.start_new_thread(lambda: self.pass_on(record, log, stays=True), ())
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, saved)

    def _await(self, record: Record) -> bytes:
        """Give the line of readiness, or nothing if the container ends without one."""
        if self._ours is None:
            return b""
        try:
            pidfd = os.pidfd_open(record.pid)
        except ProcessLookupError:
            return b""
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.register(self._ours, select.POLLIN)
            while True:
                events = poll.poll()
                if all(fd == pidfd for fd, _ in events):
                    return b""
                for line in self._ours.recv(MESSAGE_MAX).split(b"\n"):
                    if line.startswith(b"READY="):
                        return line
        finally:
            os.close(pidfd)


def start(record: Record, host: str, log: Log) -> None:
    """Start a created container as `lifecycle.start`, and wait until it is ready."""
    shown = os.path.isdir(record.path(DIRECTORY))
    if not shown or lifecycle.status(record) != "created":
        lifecycle.start(record, log)
        if not shown:
            log.warning(f"{record.id} was created without NOTIFY_SOCKET: it cannot say when it is ready")
        return
    notifier = Notifier(host)
    notifier.listen(record)
    try:
        lifecycle.start(record, log)
        notifier.pass_on(record, log, stays=False)
    finally:
        notifier.close()


def _await_barrier(theirs: _socket.socket) -> None:
    """Wait until the service manager has dealt with what it was sent: then it closes the fd that comes behind."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, writer.to_bytes(4, "little"))
        try:
            theirs.sendmsg([b"BARRIER=1"], [rights])
        finally:
            os.close(writer)
        poll = select.poll()
        poll.register(reader, 0)
        poll.poll(BARRIER_TIMEOUT_MS)
    finally:
        os.close(reader)
