"""The resident shim: serves the tasks of one container or pod until containerd says Shutdown."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums: 4 ms
import gc
import os
import sys

from inclavare.linux.files import read_file
from inclavare.linux.syscall import become_subreaper, wait_small
from inclavare.shim.connection import Server
from inclavare.shim.log import ShimLog
from inclavare.shim.loop import Loop
from inclavare.shim.publisher import Publisher
from inclavare.shim.service import TaskService

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    import _socket

    from inclavare.shim.bootstrap import Invocation

LAST_EVENTS_S = 10  # that a shim without tasks waits for containerd to take them
COLLECT_AFTER = 10_000  # new objects; what was there at the start is not looked at again


def detach(score: int | None) -> int:
    """Become a process of its own, in the bundle's directory; give the fd of the log."""
    os.setsid()
    log = _open_log()
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)
    os.chdir("/")
    if score is not None:
        _set_oom_score(score)
    return log


def run(invocation: Invocation, listener: _socket.socket, path: str, log: ShimLog) -> None:
    """Serve the socket, which is at `path`, until there is nothing left to serve. Does not return."""
    become_subreaper()
    _close_inherited(keep=(listener.fileno(), log.fd))
    loop = Loop(log)
    loop.at_rest = wait_small
    publisher = Publisher(loop, invocation.ttrpc_address, invocation.namespace, log)

    async def leave() -> None:
        _unlink(path)
        timer = loop.later(LAST_EVENTS_S, publisher.empty.set)
        await publisher.empty
        timer.cancel()
        while any(not connection.is_idle() for connection in server.connections):
            await loop.sleep(0.01)
        loop.stop()

    def end() -> None:
        loop.soon(lambda: loop.start(leave()))

    platform = os.getenv("RUNE_SGX_PLATFORM", "")
    service = TaskService(loop, invocation.namespace, publisher, log, platform=platform, leave=end)
    server = Server(loop, listener, service.call, log)
    for number in (_signal.SIGTERM, _signal.SIGINT):
        _signal.signal(number, lambda number, _frame: _stop(loop, path, log, number))
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)
    gc.enable()
    try:
        loop.run()
    finally:
        sys.stderr.flush()
        os._exit(0)


def oom_score() -> int | None:
    """Give the score that the shim shall have: one more than containerd's, which is our parent's (proc(5))."""
    try:
        return min(int(read_file(f"/proc/{os.getppid()}/oom_score_adj")) + 1, 1000)
    except (OSError, ValueError):
        return None


def _set_oom_score(score: int) -> None:
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, str(score).encode())
    except OSError:  # only who may make processes survive others may set it below what it was
        return
    finally:
        os.close(fd)


def _stop(loop: Loop, path: str, log: ShimLog, number: int) -> None:
    log.warning(f"signal {number}: the shim ends, its containers stay")
    _unlink(path)
    loop.stop()


def _open_log() -> int:
    try:
        return os.open("log", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # nobody reads it
        return os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)


def _close_inherited(keep: tuple[int, int]) -> None:
    first = 3
    for fd in sorted(keep):
        os.closerange(first, fd)
        first = fd + 1
    os.closerange(first, 1 << 30)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
