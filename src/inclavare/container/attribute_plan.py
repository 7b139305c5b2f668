"""Plans what few containers ask for: the clocks of a time namespace. Pure; imported only when one asks."""

from __future__ import annotations

from inclavare.container.plan import CALL_WRITE_FILE
from inclavare.linux import headers as k
from inclavare.linux.calls import SYS_UNSHARE

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.plan import Plan
    from inclavare.oci.time_offsets import TimeOffset


def set_clocks(plan: Plan, offsets: list[TimeOffset]) -> None:
    """Plan a time namespace for the child. Its clocks can be set only as long as no process is in it."""
    plan.add(SYS_UNSHARE, k.CLONE_NEWTIME, words="make a time namespace")
    lines = "".join([f"{offset.clock} {offset.secs} {offset.nanosecs}\n" for offset in offsets])
    told = ", ".join([f"{offset.clock} {offset.secs} s {offset.nanosecs} ns" for offset in offsets])
    plan.add(
        CALL_WRITE_FILE,
        plan.string("/proc/self/timens_offsets"),
        plan.string(lines),
        len(lines),
        words=f"set the clocks of the time namespace: {told}",
    )
