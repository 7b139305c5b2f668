"""`rune run`: create a container, start it, and stay with it to its end (unless --detach)."""

from __future__ import annotations

import os

from inclavare.cli.create_command import creation_options, notifier
from inclavare.container import create, lifecycle
from inclavare.container.interrupt import undo_on_signals
from inclavare.container.plan import describe

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation


def run(invocation: Invocation) -> int:
    """Carry out the command; the status is the program's."""
    given, log = invocation.options, invocation.log
    options = creation_options(invocation)
    options.terminal = not given.flag("detach")
    options.notifier = notifier()
    prepared = create.Prepared(invocation.arguments[0], given.value("bundle", "."), options, log)
    if given.flag("dry-run"):
        os.write(1, describe(create.dry_run(prepared)).encode())
        return 0
    undo_on_signals()
    if given.flag("detach"):
        record = create.build(prepared, log).record
        lifecycle.run_poststart_hooks(record, log, prepared.raw)
        if options.notifier is not None:
            try:
                options.notifier.pass_on(record, log, stays=False)
            except BaseException:
                lifecycle.delete(record, log, force=True)
                raise
        return 0
    from inclavare.container.supervise import Foreground  # noqa: PLC0415  # only the foreground pays for it

    foreground = Foreground()
    built = create.build(prepared, log)
    lifecycle.run_poststart_hooks(built.record, log, prepared.raw)
    if options.notifier is not None:
        options.notifier.pass_on_aside(built.record, log)
    try:
        status = foreground.wait(built.pid, built.master)
    except BaseException:
        lifecycle.delete(built.record, log, force=True)
        raise
    if not given.flag("keep"):
        lifecycle.delete(built.record, log, force=True)
    return status
