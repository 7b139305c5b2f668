"""The foreground: stays with a process to its end, passes on signals, and moves a terminal's bytes.

Without a terminal it only waits for signals, SIGCHLD among them. Hot path.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums: 4 ms
import os
import select

from inclavare.container.executor import SIGNALS
from inclavare.container.interrupt import TERMINATING

# Not for the container: our own faults, and job control of our own terminal.
OWN_SIGNALS = frozenset(
    (
        _signal.SIGKILL,
        _signal.SIGSTOP,
        _signal.SIGURG,
        _signal.SIGPIPE,
        _signal.SIGILL,
        _signal.SIGTRAP,
        _signal.SIGBUS,
        _signal.SIGFPE,
        _signal.SIGSEGV,
        _signal.SIGTSTP,
        _signal.SIGTTIN,
        _signal.SIGTTOU,
        _signal.SIGCONT,
        _signal.SIGSYS,
    )
)
FORWARDED = [number for number in SIGNALS if number not in OWN_SIGNALS]  # and SIGCHLD, which tells of the end
CHUNK = 1 << 16


class Foreground:
    """Holds signals back from its making on, so that none is lost before `wait`."""

    __slots__ = ("_saved",)

    def __init__(self) -> None:
        """Hold back all but the signals that end a command: those may still stop the building."""
        _signal.pthread_sigmask(_signal.SIG_BLOCK, [number for number in FORWARDED if number not in TERMINATING])
        self._saved: bytes | None = None

    def wait(self, pid: int, master: int = -1) -> int:
        """Stay until process `pid` (our child) ends and give its exit code, 128 + n for a signal.

        `master` is a terminal's master: its bytes go between it and our stdio, which becomes raw. Taken over.
        """
        _signal.pthread_sigmask(_signal.SIG_BLOCK, FORWARDED)
        if master < 0:
            status = None
            while status is None:
                status = _pass_on(_signal.sigwaitinfo(FORWARDED).si_signo, pid, -1)
        else:
            self._enter_raw_mode()
            try:
                status = _move_bytes(pid, master)
            finally:
                self._leave_raw_mode()
                os.close(master)
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)

    def _enter_raw_mode(self) -> None:
        if os.isatty(0):
            from inclavare.linux import terminal  # noqa: PLC0415  # only terminals need it

            self._saved = terminal.get(0)
            terminal.set_now(0, terminal.raw(self._saved))

    def _leave_raw_mode(self) -> None:
        if self._saved is not None:
            from inclavare.linux import terminal  # noqa: PLC0415  # only terminals need it

            terminal.set_now(0, self._saved)
            self._saved = None


def _pass_on(number: int, pid: int, master: int) -> int | None:
    """Deal with one signal; give the wait status once the process has ended."""
    if number == _signal.SIGCHLD:
        done, status = os.waitpid(pid, os.WNOHANG)
        return status if done else None
    if number == _signal.SIGWINCH and master >= 0:
        from inclavare.linux import terminal  # noqa: PLC0415  # only terminals need it

        terminal.copy_size(0, master)
    else:
        os.kill(pid, number)
    return None


def _move_bytes(pid: int, master: int) -> int:
    """Serve the terminal; signals arrive through a wake-up pipe. Gives the wait status."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in FORWARDED:
        _signal.signal(number, _ignore)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, FORWARDED)
    poll = select.poll()
    for fd in (reader, master, 0):
        poll.register(fd, select.POLLIN)
    status: int | None = None
    while status is None:
        for fd, _ in poll.poll():
            if fd == reader:
                for number in os.read(reader, 512):
                    ended = _pass_on(number, pid, master)
                    status = ended if ended is not None else status
            elif fd == master and not _copy(master, 1):
                poll.unregister(master)
            elif fd == 0 and not _copy(0, master):
                poll.unregister(0)
    _drain(master)
    return status


def _ignore(_number: int, _frame: object) -> None:
    """Let the wake-up pipe tell."""


def _copy(source: int, target: int) -> bool:
    """Move what is there. False at the end of the source: a terminal without slave reads as EIO."""
    try:
        data = os.read(source, CHUNK)
    except OSError:
        return False
    while data:
        try:
            data = data[os.write(target, data) :]
        except OSError:
            return False
        if not data:
            return True
    return False


def _drain(master: int) -> None:
    """Move the last words of a process that has ended."""
    poll = select.poll()
    poll.register(master, select.POLLIN)
    while any(events & select.POLLIN for _, events in poll.poll(0)):
        if not _copy(master, 1):
            return
