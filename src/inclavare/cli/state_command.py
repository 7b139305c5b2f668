"""`rune state`: print a container's state."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from inclavare.container import lifecycle, store
from inclavare.oci import jsontext

if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation


def run(invocation: Invocation) -> int:
    """Carry out the command."""
    record = store.load(invocation.root, invocation.arguments[0])
    os.write(1, jsontext.dumps(lifecycle.document(record), "  ").encode())
    return 0
