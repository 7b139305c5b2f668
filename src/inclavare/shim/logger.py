"""Logging programs: stdout is `binary://PATH?key=value`, and PATH reads what the process writes.

The program gets stdout as fd 3, stderr as fd 4, and says on fd 5 that it is ready: by closing it, or in version 2 by a
byte (containerd's runtime/v2/README.md "Logging"). Its environment is CONTAINER_ID and CONTAINER_NAMESPACE alone.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums: 4 ms
import fcntl
import os

from inclavare.errors import HostError
from inclavare.linux import process
from inclavare.shim.loop import IN, Future

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.shim.loop import Loop

READY_TIMEOUT_S = 10
LAST_WORDS_S = 1  # from the end of what it reads to SIGTERM
TERM_TIMEOUT_S = 12
RESET = (*range(1, 32), *range(34, 65))


class Logger:
    """A logging program. `stdout` and `stderr` are the ends that the process writes to; who takes them owns them."""

    __slots__ = ("_closed", "_loop", "_pid", "_ready", "ended", "stderr", "stdout")

    def __init__(self, loop: Loop, uri: str, container_id: str, namespace: str) -> None:
        """Start the program. Raises HostError."""
        self._loop = loop
        self._closed = False
        self.ended = Future()
        path, _, query = uri.partition("://")[2].partition("?")
        words = [_unquote(path)]
        for pair in query.split("&") if query else []:
            key, _, value = pair.partition("=")
            words += [_unquote(key), *([_unquote(value)] if value else [])]
        environment = {"CONTAINER_ID": container_id, "CONTAINER_NAMESPACE": namespace}
        out, self.stdout = os.pipe2(os.O_CLOEXEC)
        error, self.stderr = os.pipe2(os.O_CLOEXEC)
        self._ready, ready = os.pipe2(os.O_CLOEXEC)
        above = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 6) for fd in (out, error, ready)]  # not where they go to
        try:
            self._pid = os.posix_spawn(
                words[0],
                words,
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    *((os.POSIX_SPAWN_DUP2, fd, 3 + at) for at, fd in enumerate(above)),
                ],
                setsigdef=RESET,
            )
        except OSError as failure:
            for fd in (self.stdout, self.stderr, self._ready):
                os.close(fd)
            raise HostError(f"cannot start the logging program {words[0]}: {failure.strerror}") from failure
        finally:
            for fd in (out, error, ready, *above):
                os.close(fd)
        loop.on_exit(self._pid, self.ended.set)

    async def ready(self) -> None:
        """Wait until it reads. Raises HostError when it ends, or says nothing for too long."""
        late = Future()
        self._loop.later(READY_TIMEOUT_S, late.set)
        told = Future()
        self._loop.watch(self._ready, IN, told.set)
        first = Future()
        for event in (late, told, self.ended):
            event.then(first.set)
        try:
            await first
        finally:
            self._loop.forget(self._ready)
            os.close(self._ready)
        if told.done and process.is_ending(self._pid):  # the pipe ended with it: its end is about to be heard of
            await self.ended
        if self.ended.done:
            raise HostError(f"the logging program ended with status {self.ended.value} before it was ready")
        if not told.done:
            _signal_if_there(self._pid, _signal.SIGKILL)
            raise HostError(f"the logging program was not ready after {READY_TIMEOUT_S} s")

    def close(self) -> None:
        """Let it read to the end, then ask it to end, then make it."""
        if not self._closed:
            self._closed = True
            self._loop.start(self._end())

    async def _end(self) -> None:
        for seconds, number in ((LAST_WORDS_S, _signal.SIGTERM), (TERM_TIMEOUT_S, _signal.SIGKILL)):
            late = Future()
            self._loop.later(seconds, late.set)
            first = Future()
            for event in (late, self.ended):
                event.then(first.set)
            await first
            if self.ended.done:
                return
            _signal_if_there(self._pid, number)


def _signal_if_there(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _unquote(text: str) -> str:
    """Undo the percent encoding of a URL; "+" is a blank in a query, and in no path that containerd writes."""
    parts = os.fsencode(text).split(b"%")
    out = parts[0]
    for part in parts[1:]:
        try:
            out += bytes((int(part[:2], 16),)) + part[2:]
        except ValueError:
            out += b"%" + part
    return os.fsdecode(out)
