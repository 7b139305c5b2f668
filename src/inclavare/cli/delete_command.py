"""`rune delete`: remove containers."""

from __future__ import annotations

from inclavare.container import lifecycle, store
from inclavare.errors import InclavareError, StateError

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation


def run(invocation: Invocation) -> int:
    """Carry out the command. Every id is tried; the first failure is the command's."""
    force = invocation.options.flag("force")
    first: InclavareError | None = None
    for container_id in invocation.arguments:
        try:
            record = store.load(invocation.root, container_id)
        except StateError as error:
            if not force:  # with --force, gone is what was asked for
                first = first or error
            continue
        try:
            lifecycle.delete(record, invocation.log, force=force)
        except InclavareError as error:
            first = first or error
    if first is not None:
        raise first
    return 0
