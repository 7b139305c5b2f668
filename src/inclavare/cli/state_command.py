"""`rune state`: print a container's state."""

from __future__ import annotations

import os

from inclavare.container import lifecycle, store
from inclavare.oci import jsontext

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation


def run(invocation: Invocation) -> int:
    """Carry out the command."""
    record = store.load(invocation.root, invocation.arguments[0])
    document = lifecycle.document(record, lifecycle.settled_status(record))
    os.write(1, jsontext.dumps(document, "  ").encode())
    return 0
