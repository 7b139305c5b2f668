"""The foreground: stays with a process to its end, passes on signals, and moves a terminal's bytes.

One loop over poll(2); signals arrive through a wake-up pipe. Hot path.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums: 4 ms
import fcntl
import os
import select

# Not for the container: our children's ends, our own faults, and job control of our own terminal.
OWN_SIGNALS = frozenset(
    (
        _signal.SIGKILL,
        _signal.SIGSTOP,
        _signal.SIGCHLD,
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
CHUNK = 1 << 16
TIOCGWINSZ = 0x5413  # asm-generic/ioctls.h
TIOCSWINSZ = 0x5414


class Foreground:
    """Catches signals from its making on, so that none is lost before `wait`."""

    __slots__ = ("_reader", "_saved", "_writer")

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in range(1, _signal.NSIG):
            if number not in OWN_SIGNALS and number not in (32, 33):
                _signal.signal(number, _ignore)
        _signal.signal(_signal.SIGCHLD, _ignore)
        self._saved: list[object] | None = None

    def wait(self, pid: int, master: int = -1) -> int:
        """Stay until process `pid` (our child) ends and give its exit code, 128 + n for a signal.

        `master` is a terminal's master: its bytes go between it and our stdio, which becomes raw. Taken over.
        """
        if master >= 0:
            self._enter_raw_mode(master)
        try:
            return self._loop(pid, master)
        finally:
            self._leave_raw_mode()
            if master >= 0:
                os.close(master)

    def _loop(self, pid: int, master: int) -> int:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if master >= 0:
            poll.register(master, select.POLLIN)
            poll.register(0, select.POLLIN)
        status: int | None = None
        while status is None:
            for fd, _ in poll.poll():
                if fd == self._reader:
                    status = self._signals(pid, master)
                elif fd == master and not _copy(master, 1):
                    poll.unregister(master)
                elif fd == 0 and not _copy(0, master):
                    poll.unregister(0)
        if master >= 0:
            _drain(master)
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)

    def _signals(self, pid: int, master: int) -> int | None:
        for number in os.read(self._reader, 512):
            if number == _signal.SIGCHLD:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    return status
            elif number == _signal.SIGWINCH and master >= 0:
                _copy_size(master)
            else:
                os.kill(pid, number)
        return None

    def _enter_raw_mode(self, master: int) -> None:
        import termios  # noqa: PLC0415  # half a millisecond that only terminals need

        attributes = termios.tcgetattr(master)
        attributes[1] &= ~termios.ONLCR  # our own terminal does that already
        termios.tcsetattr(master, termios.TCSANOW, attributes)
        _copy_size(master)
        if not os.isatty(0):
            return
        self._saved = termios.tcgetattr(0)
        raw = termios.tcgetattr(0)
        raw[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
        raw[1] |= termios.OPOST | termios.ONLCR
        raw[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
        termios.tcsetattr(0, termios.TCSANOW, raw)

    def _leave_raw_mode(self) -> None:
        if self._saved is not None:
            import termios  # noqa: PLC0415

            termios.tcsetattr(0, termios.TCSANOW, self._saved)  # type: ignore[arg-type]
            self._saved = None


def _ignore(_number: int, _frame: object) -> None:
    """Let the wake-up pipe tell."""


def _copy_size(master: int) -> None:
    try:
        size = fcntl.ioctl(0, TIOCGWINSZ, bytes(8))
    except OSError:
        return
    fcntl.ioctl(master, TIOCSWINSZ, size)


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
