"""The terminal of a process: its master is ours, and what goes through it is copied.

Its input is the client's FIFO; its output goes to one, too, or to a file or a logging program (see stdio).
"""

from __future__ import annotations

import fcntl
import os
from _struct import Struct

from inclavare.errors import HostError
from inclavare.linux.terminal import TIOCSWINSZ
from inclavare.shim.loop import IN, OUT, Future
from inclavare.shim.stdio import open_fifo, open_file, until_ready

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.shim.logger import Logger
    from inclavare.shim.loop import Loop, Task

CHUNK = 1 << 16
WINDOW = Struct("4H")  # struct winsize: rows, columns, and two that nobody uses


class Console:
    """A terminal's master at work. `drained` is done when all that was written to the terminal has been passed on."""

    __slots__ = ("_input", "_loop", "_master", "_output", "_tasks", "_writer", "drained")

    def __init__(self, loop: Loop, master: int, output: tuple[int, ...]) -> None:
        """Take the master, and what open_output() gave."""
        self._loop = loop
        self._master = master
        self._input = self._writer = -1
        self._output = output
        self._tasks: list[Task] = []
        self.drained = Future()
        os.set_blocking(master, False)
        self._tasks.append(loop.task(self._pass_output()))

    def feed(self, stdin: str, *, closed: bool) -> None:
        """Let the client's input through. `closed`: it has said CloseIO already."""
        if not stdin:
            return
        try:
            source = os.open(stdin, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # the client has gone and taken it away
            return
        if not closed:
            self._writer = os.open(stdin, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._input = os.dup(self._master)  # the loop watches a file for one reason only
        self._tasks.append(self._loop.task(self._pass_input(source)))

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window, in characters."""
        if self._master >= 0:
            fcntl.ioctl(self._master, TIOCSWINSZ, WINDOW.pack(height & 0xFFFF, width & 0xFFFF, 0, 0))

    def close_stdin(self) -> None:
        """Hold the client's FIFO open no longer."""
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def close(self) -> None:
        """Close all; what is in the terminal is lost."""
        self.close_stdin()
        for task in self._tasks:
            task.cancel()

    async def _pass_output(self) -> None:
        try:
            while True:
                await self._loop.until(self._master, IN)
                try:
                    data = os.read(self._master, CHUNK)
                except BlockingIOError:
                    continue
                if not data:
                    return
                if self._output:
                    await self._pass_on(data)
        except OSError:  # EIO: nobody has the terminal open any more
            return
        finally:
            for fd in (self._master, *self._output):
                os.close(fd)
            self._master = -1
            self.drained.set()

    async def _pass_on(self, data: bytes) -> None:
        try:
            await _write(self._loop, self._output[0], data)
        except BrokenPipeError:  # a logging program has ended; the terminal goes on
            return

    async def _pass_input(self, source: int) -> None:
        try:
            while True:
                await until_ready(self._loop, source, IN)
                try:
                    data = os.read(source, CHUNK)
                except BlockingIOError:
                    continue
                if not data:
                    return
                await _write(self._loop, self._input, data)
        except OSError:  # the terminal has gone
            return
        finally:
            os.close(source)
            os.close(self._input)


async def open_output(loop: Loop, stdout: str, logger: Logger | None) -> tuple[int, ...]:
    """Open what a terminal's output goes to: an end to write to, then what keeps that open. Raises HostError.

    Without any, the output goes nowhere.
    """
    if logger is not None:
        os.close(logger.stderr)  # a terminal has one output
        os.set_blocking(logger.stdout, False)
        return (logger.stdout,)
    try:
        if stdout.startswith("file://"):
            return (open_file(stdout.removeprefix("file://")),)
        return await open_fifo(loop, stdout.removeprefix("fifo://")) if stdout else ()
    except OSError as error:
        raise HostError(f"cannot open the terminal's output {error.filename}: {error.strerror}") from error


async def _write(loop: Loop, fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            await loop.until(fd, OUT)
