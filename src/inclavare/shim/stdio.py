"""The stdio of a process without a terminal, as containerd names it: FIFOs, files, logging programs, or nothing.

The process gets the client's FIFOs themselves, so its output is not copied. We keep a reading end of each open: whoever
writes must not be killed by SIGPIPE while containerd restarts. Its input is a pipe that we fill (splice(2)) from the
client's FIFO, and that only from its start on: a client that has written all says CloseIO at once, and containerd,
which does not know the task before Create has answered, would not hear it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from inclavare.errors import HostError
from inclavare.shim.loop import IN, OUT, CancelledError

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.shim.logger import Logger
    from inclavare.shim.loop import Loop, Task

CHUNK = 1 << 16
PIPE_SIZE = 1 << 18
READER_TIMEOUT_S = 10
READER_POLL_S = 0.002
LOGGERS = ("binary://", "binary-v2://")


class Stdio:
    """The files of one process. `logger` is the program that reads its output, if it is one."""

    __slots__ = ("_closed", "_feeding", "_input", "_keepers", "_loop", "_stdin", "_theirs", "_writer", "logger")

    def __init__(self, loop: Loop, stdin: str) -> None:
        self._loop = loop
        self._stdin = stdin
        self._theirs: dict[int, int] = {}  # by number in the process
        self._keepers: list[int] = []
        self._input = -1  # our end of its stdin
        self._writer = -1  # holds the client's FIFO open until CloseIO
        self._closed = False
        self._feeding: Task | None = None
        self.logger: Logger | None = None

    async def open(self, stdout: str, stderr: str, owner: tuple[int, int]) -> None:
        """Open all but a logging program. `owner`: uid and gid of pipes, 0 for as they are. Raises HostError."""
        try:
            if stdout.startswith(LOGGERS) and self.logger is not None:
                self._theirs[1], self._theirs[2] = self.logger.stdout, self.logger.stderr
            elif stdout.startswith("file://"):
                self._theirs[1] = self._theirs[2] = open_file(stdout.removeprefix("file://"))
            else:
                for number, path in ((1, stdout), (2, stderr)):
                    if path:
                        self._theirs[number] = await self._open_output(path.removeprefix("fifo://"), owner)
            if self._stdin:
                self._theirs[0], self._input = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(self._input, False)
                if owner != (0, 0):
                    os.fchown(self._theirs[0], *owner)
            if len(self._theirs) < 3:
                null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
                for number in range(3):
                    self._theirs.setdefault(number, null)
        except CancelledError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise HostError(f"cannot open the stdio {error.filename}: {error.strerror}") from error

    def fds(self) -> tuple[int, int, int]:
        """Give what the process has as 0, 1 and 2."""
        return self._theirs[0], self._theirs[1], self._theirs[2]

    def hand_over(self) -> None:
        """Close what the process has of its own now."""
        for fd in set(self._theirs.values()):
            os.close(fd)
        self._theirs = {}

    def feed(self) -> None:
        """Let the client's input through, now that the process runs."""
        if self._input < 0 or self._feeding is not None:
            return
        try:
            source = os.open(self._stdin, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # the client has gone and taken it away
            self._close_input()
            return
        if not self._closed:
            self._writer = _open_writer(self._stdin)
        self._feeding = self._loop.task(self._splice(source))

    def close_stdin(self) -> None:
        """Let the process see the end of its input, once it has read what is there."""
        self._closed = True
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def close(self) -> None:
        """Close all."""
        self.hand_over()
        self.close_stdin()
        if self._feeding is not None:
            self._feeding.cancel()
        else:
            self._close_input()
        for fd in self._keepers:
            os.close(fd)
        self._keepers = []
        if self.logger is not None:
            self.logger.close()

    async def _open_output(self, path: str, owner: tuple[int, int]) -> int:
        try:
            fifo = stat.S_ISFIFO(os.stat(path).st_mode)
        except FileNotFoundError:
            fifo = False
        if not fifo:
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fd, keeper = await open_fifo(self._loop, path)
        self._keepers.append(keeper)
        try:
            os.set_blocking(fd, True)
            _enlarge(fd)
            if owner != (0, 0):
                os.fchown(fd, *owner)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _close_input(self) -> None:
        if self._input >= 0:
            os.close(self._input)
            self._input = -1

    async def _splice(self, source: int) -> None:
        try:
            while True:
                await until_ready(self._loop, source, IN)
                try:
                    if not os.splice(source, self._input, CHUNK, flags=os.SPLICE_F_NONBLOCK):
                        return
                except BlockingIOError:
                    await self._loop.until(self._input, OUT)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EBADF):  # it reads no more
                raise
        finally:
            os.close(source)
            self._close_input()


def _enlarge(fd: int) -> None:
    """Let writer and reader wait for each other less often; memory is taken only for what nobody has read yet."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except OSError:  # the user has too many as large as that
        return


async def until_ready(loop: Loop, fd: int, events: int) -> None:
    """Wait for a file; one that epoll(7) does not take is always ready."""
    try:
        await loop.until(fd, events)
    except PermissionError:
        return


async def open_fifo(loop: Loop, path: str) -> tuple[int, int]:
    """Open a client's FIFO for its output: an end to write to, which does not block, and the end that keeps it open.

    Not before the client reads, which may come to it later than a short process to its end: then the output would go
    with the last end of the FIFO. A client that does not come is not waited for for ever. Raises OSError.
    """
    deadline = time.monotonic() + READER_TIMEOUT_S
    while True:
        try:
            writer = _open_writer(path)
            break
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        if time.monotonic() > deadline:
            keeper = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            return _open_writer(path), keeper
        await loop.sleep(READER_POLL_S)
    try:
        return writer, os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except BaseException:
        os.close(writer)
        raise


def _open_writer(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def open_file(path: str) -> int:
    """Open a file for output at its end, and make the directories that it lacks."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
