"""One thread, one epoll, and coroutines: asyncio's idea in the size that a resident process can afford (decision 0017).

A task waits for futures only. What would block is done by children (operation), whose ends the loop reaps.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums: 4 ms
import os
import select
import time
from heapq import heapify, heappop, heappush

from inclavare.errors import InclavareError
from inclavare.shim.log import describe

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from typing import Any

    from inclavare.log import Log

IN, OUT = select.EPOLLIN, select.EPOLLOUT
TIMERS_KEPT = 64
REST_S = 1.0


class CancelledError(BaseException):
    """The task shall end. As with asyncio's it is no Exception, so that nobody takes it for a failure."""


class Future:
    """A value that is not there yet. `await` gives it, or raises what it failed with."""

    __slots__ = ("_callbacks", "done", "error", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []

    def set(self, value: object = None) -> None:
        """Give the value. Only the first counts."""
        if not self.done:
            self.value = value
            self._finish()

    def fail(self, error: BaseException) -> None:
        """Raise `error` where it is waited for. Only the first counts."""
        if not self.done:
            self.error = error
            self._finish()

    def then(self, callback: Callable[[], None]) -> None:
        """Call back when it is done."""
        if self.done:
            callback()
        else:
            self._callbacks.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call back."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def __await__(self) -> Generator[Future, None, Any]:
        if not self.done:
            yield self
        if isinstance(self.error, CancelledError):
            raise CancelledError  # see Task
        if self.error is not None:
            raise self.error
        return self.value

    def _finish(self) -> None:
        self.done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class Task(Future):
    """A coroutine under way; as a future it is its result."""

    __slots__ = ("_cancelled", "_coroutine", "_loop", "_waiting")

    def __init__(self, loop: Loop, coroutine: Coroutine[Future, None, Any]) -> None:
        super().__init__()
        self._loop = loop
        self._coroutine = coroutine
        self._waiting: Future | None = None
        self._cancelled = False
        self._step()

    def cancel(self) -> None:
        """Raise CancelledError where the coroutine waits, soon; once, so that it can wait until all is undone."""
        waiting = self._waiting
        if waiting is not None and not self._cancelled:
            self._cancelled = True
            waiting.forget(self._step)
            self._waiting = None
            self._loop.soon(self._throw)

    def _throw(self) -> None:
        self._run(lambda: self._coroutine.throw(CancelledError()))

    def _step(self) -> None:
        self._waiting = None
        self._run(lambda: self._coroutine.send(None))

    def _run(self, advance: Callable[[], Future]) -> None:
        try:
            waiting = advance()
        except StopIteration as end:
            self.set(end.value)
        except CancelledError:
            self.fail(CancelledError())  # without the frames of the one that was caught, which have us: a cycle
        except Exception as error:  # noqa: BLE001  # it is raised where the task is waited for
            self.fail(error)
        else:
            self._waiting = waiting
            waiting.then(self._step)


class Timer:
    """A time at which to call back, unless it is cancelled before."""

    __slots__ = ("_loop", "callback", "due")

    def __init__(self, loop: Loop, due: float, callback: Callable[[], None]) -> None:
        self._loop = loop
        self.due = due
        self.callback: Callable[[], None] = callback

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due

    def cancel(self) -> None:
        """Do not call back."""
        if self.callback is not _no_more:
            self.callback = _no_more
            self._loop.drop_cancelled()


class Lock:
    """Lets one task after the other pass, in the order in which they came."""

    __slots__ = ("_held", "_waiting")

    def __init__(self) -> None:
        self._held = False
        self._waiting: list[Future] = []

    async def __aenter__(self) -> None:
        if self._held:
            turn = Future()
            self._waiting.append(turn)
            try:
                await turn
            except CancelledError:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                else:
                    self._pass_on()
                raise
        self._held = True

    async def __aexit__(self, *_error: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.pop(0).set()  # it stays held
        else:
            self._held = False


class Loop:
    """Calls back for files, times and ends of children, until `stop`."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._epoll = select.epoll()
        self._files: dict[int, Callable[[int], None]] = {}
        self._times: list[Timer] = []
        self._cancelled = 0
        self._soon: list[Callable[[], None]] = []
        self._stopped = False
        self._children: dict[int, Callable[[int], None]] = {}
        self._strangers: dict[int, int] = {}
        self.at_rest: Callable[[int, int], None] = _go_on  # called with the epoll's fd, and for how long (ms)
        self.expected = 0  # of children whose pids are about to be told: the ends of strangers are kept meanwhile
        self._wake, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.signal(_signal.SIGCHLD, _nothing)
        _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
        _signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self.watch(self._wake, IN, self._reap)

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call back with the events of epoll(7) each time that there are some."""
        if fd in self._files:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._files[fd] = callback

    def forget(self, fd: int) -> None:
        """Watch a file no more; to be called before it is closed."""
        if self._files.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back once, when the time has passed."""
        timer = Timer(self, time.monotonic() + seconds, callback)
        heappush(self._times, timer)
        return timer

    def drop_cancelled(self) -> None:
        """Forget cancelled timers, once they are many: most calls of containerd end before their time."""
        self._cancelled += 1
        if self._cancelled > len(self._times) // 2 and self._cancelled > TIMERS_KEPT:
            self._times = [timer for timer in self._times if timer.callback is not _no_more]
            heapify(self._times)
            self._cancelled = 0

    def soon(self, callback: Callable[[], None]) -> None:
        """Call back once, when what is going on has been done."""
        self._soon.append(callback)

    def task(self, coroutine: Coroutine[Future, None, Any]) -> Task:
        """Let a coroutine run, up to where it waits."""
        return Task(self, coroutine)

    def start(self, coroutine: Coroutine[Future, None, Any]) -> None:
        """Let a coroutine run that nobody waits for."""
        task = Task(self, coroutine)

        def complain() -> None:
            if task.error is not None:
                self._log.error(describe(task.error))

        task.then(complain)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        due = Future()
        self.later(seconds, due.set)
        await due

    async def until(self, fd: int, events: int) -> None:
        """Wait until a file has one of the events. It must not be watched by others."""
        ready = Future()
        self.watch(fd, events, ready.set)
        try:
            await ready
        finally:
            self.forget(fd)

    def on_exit(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call back with the exit code (128 + the signal's number) of a child, also if it has ended already."""
        code = self._strangers.pop(pid, None)
        if code is None:
            self._children[pid] = callback
        else:
            callback(code)

    def has_children(self) -> bool:
        """Tell whether the end of any child is waited for."""
        return bool(self._children)

    def end_expectation(self) -> None:
        """Say that a pid is known now, or will never be."""
        self.expected -= 1
        if not self.expected:
            self._strangers.clear()

    def stop(self) -> None:
        """Let run() return."""
        self._stopped = True

    def run(self) -> None:
        """Go on until stopped."""
        worked = True
        while not self._stopped:
            while self._soon:
                callbacks, self._soon = self._soon, []
                for callback in callbacks:
                    self._call(callback)
            timeout = max(0.0, self._times[0].due - time.monotonic()) if self._times else -1
            rests = worked and not self._stopped and not 0 <= timeout < REST_S
            ready = self._epoll.poll(0 if self._stopped else REST_S if rests else timeout)
            if rests and not ready:
                worked = False
                self._call(self.at_rest, self._epoll.fileno(), int((timeout - REST_S) * 1000) if timeout > 0 else -1)
            for fd, events in ready:
                worked = True
                watcher = self._files.get(fd)
                if watcher is not None:
                    self._call(watcher, events)
            while self._times and self._times[0].due <= time.monotonic():
                timer = heappop(self._times)
                callback, timer.callback = timer.callback, _no_more
                self._call(callback)

    def _call(self, callback: Callable[..., None], *arguments: int) -> None:
        try:
            callback(*arguments)
        except (InclavareError, OSError) as error:  # one file's trouble is not the others'
            self._log.error(f"{callback!r}: {error}")
        except Exception as error:  # noqa: BLE001  # nor is a fault of ours
            self._log.error(describe(error))

    def _reap(self, _events: int) -> None:
        self._drain()
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code
            callback = self._children.pop(pid, None)
            if callback is not None:
                self._call(callback, code)
            elif self.expected:
                self._strangers[pid] = code

    def _drain(self) -> None:
        try:
            os.read(self._wake, 4096)
        except BlockingIOError:
            return


def _no_more() -> None:
    """Be the callback of a timer that is done."""


def _go_on(_fd: int, _milliseconds: int) -> None:
    """Have nothing to do at rest."""


def _nothing(_number: int, _frame: object) -> None:
    """Be there: only signals with a handler wake the loop."""
