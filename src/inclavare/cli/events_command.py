"""`rune events`: what a container uses, at intervals, and when it runs out of memory. JSON lines, as runc's."""

from __future__ import annotations

import os
import select
import time

from inclavare.container import lifecycle, store
from inclavare.errors import StateError, UsageError
from inclavare.linux.cgroup_stats import read_stats
from inclavare.linux.oom import OutOfMemory
from inclavare.oci import jsontext

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation
    from inclavare.container.store import Record

UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def run(invocation: Invocation) -> int:
    """Carry out the command."""
    record = store.load(invocation.root, invocation.arguments[0])
    interval_s = _duration(invocation.options.value("interval", "5s"))
    now = lifecycle.status(record)
    if now in ("stopped", "creating"):
        raise StateError(f"container not running: {record.id} is {now}")
    if invocation.options.flag("stats"):
        _print_stats(record)
        return 0
    _follow(record, interval_s)
    return 0


def _follow(record: Record, interval_s: float) -> None:
    """Print until the container has ended."""
    process = os.pidfd_open(record.pid)
    memory = OutOfMemory(record.cgroups)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    if memory.fd >= 0:
        poll.register(memory.fd, memory.events)
    due = time.monotonic() + interval_s
    while True:
        ready = dict(poll.poll(max(0, int((due - time.monotonic()) * 1000))))
        # The memory first: its last event tells why the container has ended.
        for _ in range(memory.count() if memory.fd in ready or process in ready else 0):
            _print({"type": "oom", "id": record.id})
        if process in ready:
            return
        if time.monotonic() >= due:
            _print_stats(record)
            due += interval_s


def _print_stats(record: Record) -> None:
    _print({"type": "stats", "id": record.id, "data": read_stats(record.cgroups)})


def _print(event: dict[str, object]) -> None:
    os.write(1, jsontext.dumps(event).encode() + b"\n")


def _duration(text: str) -> float:
    """Go's way to write a time: 500ms, 5s, 1.5m."""
    number = text.rstrip("hms")
    whole, _, part = number.partition(".")
    unit = UNITS_S.get(text[len(number) :])
    if unit is None or not whole.isdecimal() or (part and not part.isdecimal()) or not float(number):
        raise UsageError(f"invalid value for interval: {text!r} is not a time above 0 such as 5s or 500ms")
    return float(number) * unit
