"""Pausing: every process of a container stops where it is, and goes on as if no time had passed."""

from __future__ import annotations

import os
import time

from inclavare.container.lifecycle import status
from inclavare.errors import HostError, StateError
from inclavare.linux import cgroups
from inclavare.linux.files import read_file

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.store import Record

TIMEOUT_S = 10


def pause(record: Record) -> None:
    """Stop a container's processes. Raises HostError when they do not stop in time; then they go on."""
    now = status(record)
    if now not in ("created", "running"):
        raise StateError(f"container not running: {record.id} is {now}")
    if now == "created" and cgroups.is_frozen(record.cgroups):
        raise StateError(f"container not running: {record.id} is paused")
    _freeze(record, "pause")


def resume(record: Record) -> None:
    """Let a paused container's processes go on."""
    if status(record) == "stopped" or not cgroups.is_frozen(record.cgroups):
        raise StateError(f"container not paused: {record.id} is {status(record)}")
    cgroups.thaw(record.cgroups)


def signal_crowd(record: Record, number: int, known: set[int]) -> None:
    """Send a signal to all but the `known`, who fork so fast that a list of them is old before its last is reached.

    Raises HostError where they cannot be stopped for that.
    """
    _freeze(record, "signal the processes of")
    try:
        for pid in cgroups.processes(record.cgroups):
            if pid not in known:
                os.kill(pid, number)
    finally:
        cgroups.thaw(record.cgroups)


def _freeze(record: Record, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    cgroups.freeze(record.cgroups)
    while not _has_stopped(record.cgroups):
        if time.monotonic() > deadline:
            cgroups.thaw(record.cgroups)
            raise HostError(
                f"cannot {what} container {record.id}: its processes did not stop within {TIMEOUT_S} s",
                "A process that waits for a device or a file system cannot stop.",
            )
        time.sleep(0.002)
        cgroups.freeze(record.cgroups)  # v1 forgets those that were forked in between


def _has_stopped(paths: dict[str, str]) -> bool:
    if cgroups.UNIFIED in paths:
        return b"frozen 1" in read_file(f"{paths[cgroups.UNIFIED]}/cgroup.events")
    return read_file(f"{cgroups.path_of(paths, 'freezer')}/freezer.state") == b"FROZEN\n"
