"""linux.timeOffsets: the clocks of a new time namespace (config-linux.md "Offset for Time Namespace")."""

from __future__ import annotations

from inclavare.oci.reader import INT64_MAX, INT64_MIN, Members

CLOCKS = ("monotonic", "boottime")
NANOSECONDS_MAX = 999_999_999


class TimeOffset:
    """`clock` (a name out of CLOCKS) is ahead of the host's by `secs` and `nanosecs`; negative seconds lag behind."""

    __slots__ = ("clock", "nanosecs", "secs")

    def __init__(self, members: Members, clock: str) -> None:
        self.clock = clock
        self.secs: int = members.number("secs", INT64_MIN, INT64_MAX) or 0
        self.nanosecs: int = members.number("nanosecs", 0, NANOSECONDS_MAX) or 0
        members.end()


def parse(members: Members) -> list[TimeOffset]:
    """Give the offsets. A clock that no time namespace has is an error: its offset would be ignored."""
    offsets = [TimeOffset(child, clock) for clock in CLOCKS if (child := members.optional_child(clock)) is not None]
    unknown = members.names()
    if unknown:
        raise members.error(unknown[0], f"a time namespace has no such clock, only {' and '.join(CLOCKS)}")
    return offsets
