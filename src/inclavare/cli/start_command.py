"""`rune start`: let a created container run."""

from __future__ import annotations

from inclavare.container import lifecycle, store

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation


def run(invocation: Invocation) -> int:
    """Carry out the command."""
    lifecycle.start(store.load(invocation.root, invocation.arguments[0]), invocation.log)
    return 0
