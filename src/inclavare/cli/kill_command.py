"""`rune kill`: send a signal to a container."""

from __future__ import annotations

from inclavare.container import lifecycle, store
from inclavare.linux.process import signal_number

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation


def run(invocation: Invocation) -> int:
    """Carry out the command."""
    container_id, *signal = invocation.arguments
    number = signal_number(signal[0] if signal else "TERM")
    record = store.load(invocation.root, container_id)
    lifecycle.kill(record, number, everyone=invocation.options.flag("all"))
    return 0
