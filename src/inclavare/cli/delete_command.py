"""`rune delete`: remove containers."""

from __future__ import annotations

from inclavare.container import lifecycle, store
from inclavare.errors import InclavareError, StateError, UsageError

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation


def run(invocation: Invocation) -> int:
    """Carry out the command. Every id is tried; the first failure is the command's."""
    force = invocation.options.flag("force")
    first: InclavareError | None = None
    ids = invocation.arguments
    if invocation.options.flag("regex"):
        ids = _matching(invocation.arguments, store.ids(invocation.root))
    for container_id in ids:
        try:
            record = store.load(invocation.root, container_id)
        except StateError as error:
            if not force:  # with --force, gone is what was asked for
                first = first or error
            continue
        except InclavareError as error:
            if not force or not isinstance(error, store.DamagedError):
                first = first or error
                continue
            from inclavare.container import damaged  # noqa: PLC0415  # never, if all goes well

            damaged.delete(invocation.root, container_id, invocation.log)
            continue
        try:
            lifecycle.delete(record, invocation.log, force=force)
        except InclavareError as error:
            first = first or error
    if first is not None:
        raise first
    return 0


def _matching(expressions: list[str], ids: list[str]) -> list[str]:
    import re  # noqa: PLC0415  # 5 ms that only this option pays

    found = []
    for expression in expressions:
        try:
            pattern = re.compile(expression)
        except re.error as error:
            raise UsageError(f"--regex: {expression!r} is no regular expression: {error}") from error
        found += [name for name in ids if pattern.search(name) and name not in found]
    return found
