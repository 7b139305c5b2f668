"""`rune start`: let a created container run."""

from __future__ import annotations

import os

from inclavare.container import lifecycle, store

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation


def run(invocation: Invocation) -> int:
    """Carry out the command."""
    record = store.load(invocation.root, invocation.arguments[0])
    host = os.getenv("NOTIFY_SOCKET", "")
    if host:
        from inclavare.container import notify  # noqa: PLC0415  # only in some services

        notify.start(record, host, invocation.log)
    else:
        lifecycle.start(record, invocation.log)
    return 0
