"""Starts the executor on a plan and follows it to its end.

The executor runs from a sealed memfd, and so does its plan: nothing of the host can be overwritten through
/proc/self/exe of the container (CVE-2019-5736). It is started by posix_spawn, reports over a SOCK_SEQPACKET socket
(messages: native/include/plan.h), and clones the container's process as our own child.

This module turns (op, errno) into sentences. It knows nothing of specs. Hot path.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os

from inclavare import installed
from inclavare.container.plan import (
    CALL_BASE,
    MSG,
    MSG_ERROR,
    MSG_LISTENER,
    MSG_LOG,
    MSG_MAX,
    MSG_PID,
    MSG_SYNC,
    Plan,
    call_name,
)
from inclavare.container.steps import SYNC_LISTENER
from inclavare.errors import HostError, PlanError
from inclavare.linux.files import read_file
from inclavare.log import Log

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MFD_EXEC = 0x10  # linux/memfd.h, Linux 6.3
F_ADD_SEALS = 1033
F_SEAL_ALL = 0xF  # SEAL | SHRINK | GROW | WRITE
SIGNALS = (*range(1, 32), *range(34, 65))  # 32 and 33 belong to libc


def sealed_memfd(name: str, content: bytes, *, executable: bool = False) -> int:
    """Make an anonymous file with this content that nobody can change. The caller owns the fd (CLOEXEC)."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | MFD_EXEC if executable else flags)
    except OSError as error:
        if error.errno != errno.EINVAL or not executable:
            raise
        fd = os.memfd_create(name, flags)  # before Linux 6.3 every memfd is executable
    try:
        os.write(fd, content)
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_ALL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def sealed_program(name: str) -> int:
    """Copy the native program `name` into a sealed memfd. Raises HostError when it is not installed."""
    path = installed(f"_native/{name}")
    try:
        content = read_file(path)
    except OSError as error:
        raise HostError(
            f"cannot read {path}: {error.strerror}", "The native parts are missing: run `make`, or install again."
        ) from error
    return sealed_memfd(f"rune-{name}", content, executable=True)


def open_fds(count: int, log: Log) -> list[int]:
    """Give those of the `count` fds from 3 on that are open: --preserve-fds may name more than there are.

    To be called before rune opens anything but its log: numbers that are free now will be those of its own fds.
    """
    fds = []
    for fd in range(3, 3 + count):
        if fd == log.fd:
            continue
        try:
            os.fstat(fd)
        except OSError:
            continue
        fds.append(fd)
    return fds


class Run:
    """A plan under way: `pid` is the container's process once it is known, `listener` the fd in it at SYNC_LISTENER.

    Either follow() it to its end, or, where others reap all children and nothing may block, detach() it and advance()
    whenever its socket is readable.
    """

    __slots__ = (
        "_executor",
        "_is_detached",
        "_log",
        "_pending",
        "_plan",
        "_reached",
        "_socket",
        "_step",
        "listener",
        "pid",
    )

    def __init__(
        self, plan: Plan, inherit: Iterable[int], log: Log, stdio: tuple[int, int, int] | tuple[()] = ()
    ) -> None:
        """Start the executor. `inherit`: fds that keep their number in it; `stdio`: what it has in place of ours."""
        self._plan = plan
        self._log = log
        self.pid = 0
        self.listener = -1
        self._step = 0
        self._reached = False
        self._is_detached = False
        self._pending: tuple[int, int, int, str] | None = None
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        plan_fd = program_fd = -1
        try:
            plan_fd = sealed_memfd("rune-plan", plan.encode(theirs.fileno()))
            program_fd = sealed_program("executor")
            self._executor = os.posix_spawn(
                f"/proc/self/fd/{program_fd}",
                ["rune:[init]", str(plan_fd)],
                {},
                file_actions=[
                    *((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(stdio)),
                    *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in (theirs.fileno(), plan_fd, *inherit)),
                ],
                setsigmask=(),
                setsigdef=SIGNALS,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for fd in (plan_fd, program_fd):
                if fd >= 0:
                    os.close(fd)
        self._socket = ours

    def follow(self, on_sync: Callable[[int], None], last_sync: int, timeout_s: float | None = None) -> None:
        """Answer the plan's sync points until its socket closes, which it must not before `last_sync`.

        Raises PlanError when a step failed or a process died, and whatever `on_sync` raises; then no process of the
        container is left. `timeout_s` bounds the silence between two messages.
        """
        done = False
        try:
            self._socket.settimeout(timeout_s)
            while self._answer(on_sync, last_sync):
                pass
            done = True
        except TimeoutError:
            step = self._step
            words = self._words(step)
            raise PlanError(
                step, 0, f"the container's process said nothing for {timeout_s:g} s since step {step} ({words})"
            ) from None
        finally:
            if not done:
                self._abandon()
            self._reap_executor()
            self._socket.close()

    def detach(self) -> tuple[int, int]:
        """Be followed by who reaps all children; give the executor's pid and the socket's fd.

        lose_executor() is to be called at the executor's end.
        """
        self._socket.setblocking(False)
        self._is_detached = True
        return self._executor, self._socket.fileno()

    def advance(self, on_sync: Callable[[int], None], last_sync: int) -> bool:
        """Answer what can be answered now; tell whether that was the end. Raises as follow()."""
        try:
            while self._answer(on_sync, last_sync):
                pass
        except BlockingIOError:
            return False
        except BaseException:
            self.end()
            raise
        self._socket.close()
        return True

    def lose_executor(self) -> None:
        """Note that the executor has ended: who is not known by then never will be."""
        self._executor = 0
        if not self.pid and self._socket.fileno() >= 0:
            try:
                self._socket.recv(1, _socket.MSG_PEEK)
            except BlockingIOError:  # nobody would come back to it
                self._socket.shutdown(_socket.SHUT_RDWR)

    def end(self) -> None:
        """End a plan that was detached, and the container's process, once."""
        if self._socket.fileno() < 0:
            return
        if not self.pid:
            self._take_pid()
        if self._executor:
            os.kill(self._executor, 9)
        self.kill()
        self._socket.close()

    def kill(self) -> None:
        """End the container's process and wait for its end, if we are who reaps it."""
        if self.pid:
            try:
                os.kill(self.pid, 9)
                if not self._is_detached:
                    os.waitpid(self.pid, 0)
            except (ChildProcessError, ProcessLookupError):
                pass
            self.pid = 0

    def _answer(self, on_sync: Callable[[int], None], last_sync: int) -> bool:
        """Answer one message; False at the end."""
        message = self._pending or self._receive()
        self._pending = None
        if message is None:
            if not self._reached:
                step, death = self._step, self._death()
                raise PlanError(step, 0, f"{death}; its last sign of life was step {step} ({self._words(step)})")
            return False
        kind, step, value, text = message
        if kind == MSG_ERROR:
            raise self._error(step, value, text)
        if kind in (MSG_SYNC, MSG_LISTENER):
            self._await_pid(message)
            if kind == MSG_LISTENER:
                self.listener, value = value, SYNC_LISTENER
            else:
                self._reached = value == last_sync
            on_sync(value)
            self._send(step, value)
        return True

    def _receive(self) -> tuple[int, int, int, str] | None:
        """Take the next message for the caller: (kind, step, value, text), None at the end."""
        while True:
            try:
                message = self._socket.recv(MSG.size + MSG_MAX)
            except ConnectionResetError:
                return None
            if not message:
                return None
            kind, step, value, size = MSG.unpack_from(message)
            self._step = step
            text = message[MSG.size : MSG.size + size].decode("utf-8", "replace")
            if kind == MSG_PID:
                self.pid = value
            elif kind == MSG_LOG:
                (self._log.debug, self._log.info, self._log.warning)[min(max(value, 0), 2)](text)
            else:
                return kind, step, value, text

    def _send(self, step: int, sync: int) -> None:
        try:
            self._socket.send(MSG.pack(MSG_SYNC, step, sync, 0))
        except OSError:  # it died while we were at work: the end of the stream says so
            return

    def _await_pid(self, message: tuple[int, int, int, str]) -> None:
        """Two processes share the socket, and the container's may be heard before the executor named its pid."""
        self._reap_executor()
        ended = self.pid or self._take_pid()
        if self.pid:
            return
        if self._is_detached and self._executor and not ended:
            self._pending = message
            raise BlockingIOError
        raise PlanError(message[1], 0, "the executor was killed before it named the container's process")

    def _take_pid(self) -> bool:
        """Take the pid if it was named already; tell whether nothing more will come."""
        timeout = self._socket.gettimeout()
        self._socket.settimeout(0)
        ended = False
        try:
            self._pending = self._receive()  # it takes the pid on its way to a message for the caller
            ended = self._pending is None
        except BlockingIOError:
            pass
        self._socket.settimeout(timeout)
        return ended

    def _abandon(self) -> None:
        self._reap_executor()
        self._take_pid()
        self.kill()

    def _death(self) -> str:
        self._reap_executor()
        if not self.pid:
            return "the executor died"
        if self._is_detached:
            return "the container's process died"
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        if os.WIFSIGNALED(status):
            return f"the container's process was killed by signal {os.WTERMSIG(status)}"
        return f"the container's process ended with status {os.WEXITSTATUS(status)}"

    def _reap_executor(self) -> None:
        if self._executor and not self._is_detached:
            os.waitpid(self._executor, 0)
            self._executor = 0

    def _words(self, step: int) -> str:
        return self._plan.ops[step].words

    def _error(self, step: int, number: int, text: str) -> PlanError:
        op = self._plan.ops[step]
        sentence = (op.sentences or {}).get(number)
        if sentence is None:
            what = f"cannot {op.words}: {text or os.strerror(number)}"
            sentence = f"{what} ({call_name(op.call)}, plan step {step})"
        # What a call of the plan answers is not the kernel's word: an enclave runtime may use any errno.
        return PlanError(step, number, sentence, _hint(number) if op.call < CALL_BASE else "")


def _hint(number: int) -> str:
    if number == errno.EPERM:
        return "rune needs the privilege for this step; run as root, or leave the setting out."
    if number == errno.ENOSYS:
        return "The kernel is too old: rune needs Linux 5.12 or later."
    return ""
