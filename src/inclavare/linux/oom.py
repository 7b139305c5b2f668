"""Hears of it when a container runs out of memory.

In v1 an eventfd is told (cgroup-v1/memory.rst "OOM Control"), in v2 the file memory.events changes (cgroup-v2.rst).
"""

from __future__ import annotations

import os
import select

from inclavare.linux.cgroups import UNIFIED, path_of
from inclavare.linux.files import read_file

UINT64_SIZE = 8


class OutOfMemory:
    """Counts the times since it was last asked. `fd` is ready for `events` of poll(2) when there may be one more.

    `fd` is -1 where memory is not controlled.
    """

    __slots__ = ("_events_file", "_killed", "events", "fd")

    def __init__(self, paths: dict[str, str]) -> None:
        self.fd = -1
        self.events = select.POLLIN
        self._events_file = ""
        self._killed = 0
        path = path_of(paths, "memory")
        if UNIFIED in paths:
            self._events_file = f"{path}/memory.events"
            if os.path.exists(self._events_file):
                self.fd = os.open(self._events_file, os.O_RDONLY | os.O_CLOEXEC)
                self.events = select.POLLPRI
                self._killed = self._read_killed()
        elif path is not None:
            self.fd = _register(path)

    def count(self) -> int:
        """Give the number of times that are new."""
        if self._events_file:
            before, self._killed = self._killed, self._read_killed()
            return self._killed - before
        try:
            times = int.from_bytes(os.read(self.fd, UINT64_SIZE), "little") if self.fd >= 0 else 0
        except BlockingIOError:
            return 0
        return times if times < 1 << 32 else 0

    def _read_killed(self) -> int:
        try:
            os.lseek(self.fd, 0, os.SEEK_SET)
            os.read(self.fd, 4096)  # what was polled must be read to be polled again
            lines = read_file(self._events_file).decode().splitlines()
        except OSError:  # the group has gone
            return self._killed
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _register(path: str) -> int:
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    control = os.open(f"{path}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(f"{path}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(target, f"{event} {control}".encode())
        finally:
            os.close(target)
    finally:
        os.close(control)
    return event
