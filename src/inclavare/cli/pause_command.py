"""`rune pause`: stop all processes of a container."""

from __future__ import annotations

from inclavare.container import pause, store

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation


def run(invocation: Invocation) -> int:
    """Carry out the command."""
    pause.pause(store.load(invocation.root, invocation.arguments[0]))
    return 0
