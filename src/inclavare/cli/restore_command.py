"""`rune restore`: make a container of an image, and stay with it to its end (unless --detach)."""

from __future__ import annotations

from inclavare.cli.checkpoint_command import FLAGS, image_choices
from inclavare.cli.create_command import creation_options
from inclavare.container import create, lifecycle, restore
from inclavare.container.interrupt import undo_on_signals
from inclavare.container.supervise import Foreground

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation


def run(invocation: Invocation) -> int:
    """Carry out the command; the status is the program's."""
    given, log = invocation.options, invocation.log
    options = creation_options(invocation)
    options.terminal = not given.flag("detach")
    choices = image_choices(invocation, (*FLAGS, "tcp-close"))
    choices.lsm_profile = given.value("lsm-profile")
    choices.lsm_mount_context = given.value("lsm-mount-context")
    prepared = create.Prepared(invocation.arguments[0], given.value("bundle", "."), options, log)
    undo_on_signals()
    if given.flag("detach"):
        restore.restore(prepared, choices, log)
        return 0
    foreground = Foreground()
    built = restore.restore(prepared, choices, log)
    try:
        return foreground.wait(built.pid, built.master)
    finally:
        lifecycle.delete(built.record, log, force=True)
