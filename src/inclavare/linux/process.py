"""Processes: told apart by pid and start time, signalled through pidfds, signals by name. Hot path."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums: 4 ms
import os
from _json import encode_basestring_ascii

from inclavare.errors import UsageError
from inclavare.linux.files import read_file

SIGRTMIN = 34  # as libc counts, behind the two it keeps
SIGRTMAX = 64
PF_EXITING = 0x4  # of include/linux/sched.h, stat field 9


def start_time(pid: int) -> int | None:
    """Give when a process started, in clock ticks since boot; None when there is none (proc(5), stat field 22)."""
    fields = _fields(pid)
    return int(fields[19]) if fields else None


def is_same(pid: int, started: int) -> bool:
    """Tell whether process `pid` lives, is no zombie, and is the one that started then."""
    fields = _fields(pid)
    return bool(fields) and fields[0] not in (b"Z", b"X") and int(fields[19]) == started


def is_ending(pid: int) -> bool:
    """Tell whether a process has ended, or will without another step of its program; its files may be closed then."""
    fields = _fields(pid)
    return not fields or fields[0] in (b"Z", b"X") or int(fields[6]) & PF_EXITING != 0


def send_signal(pid: int, started: int, number: int) -> bool:
    """Signal exactly the process that started then. False when it has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not is_same(pid, started):
            return False
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def signal_number(text: str) -> int:
    """Read a signal: `15`, `TERM`, `SIGTERM`, `RTMIN+1`, in any case. Raises UsageError."""
    if text.isascii() and text.isdigit() and int(text) <= SIGRTMAX:
        return int(text)
    name = text.upper().removeprefix("SIG")
    for base, first in (("RTMIN", SIGRTMIN), ("RTMAX", SIGRTMAX)):
        offset = name.removeprefix(base)
        if name.startswith(base) and (not offset or (offset[0] in "+-" and offset[1:].isdigit())):
            number = first + int(offset or 0)
            if SIGRTMIN <= number <= SIGRTMAX:
                return number
    found = getattr(_signal, f"SIG{name}", None) if name.isalnum() and not name.startswith("RT") else None
    if not isinstance(found, int):
        raise UsageError(f"unknown signal {encode_basestring_ascii(text)}", "Use a number or a name such as TERM.")
    return found


def _fields(pid: int) -> list[bytes]:
    """Fields of /proc/PID/stat from the state on: the name before it may hold blanks and parentheses."""
    try:
        return read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def in_same_namespace(pid: int) -> list[int]:
    """Give the processes in the pid namespace of `pid`, for a container without cgroups. Only those we may look at."""
    found = []
    try:
        wanted = os.stat(f"/proc/{pid}/ns/pid")
    except OSError:
        return []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                status = os.stat(f"/proc/{name}/ns/pid")
            except OSError:
                continue
            if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                found.append(int(name))
    return sorted(found)
