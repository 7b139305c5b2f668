"""`rune checkpoint`: write a running container to an image."""

from __future__ import annotations

import os

from inclavare.container import checkpoint, store
from inclavare.errors import UsageError
from inclavare.linux.criu_messages import CGROUP_MODES

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation

# Options that are CRIU's own, by their names with "_".
FLAGS = ("tcp-established", "ext-unix-sk", "shell-job", "file-locks", "lazy-pages", "auto-dedup")
PORT_MAX = 0xFFFF


def run(invocation: Invocation) -> int:
    """Carry out the command."""
    given = invocation.options
    choices = image_choices(invocation, (*FLAGS, "leave-running", "tcp-skip-in-flight", "link-remap"))
    choices.pre_dump = given.flag("pre-dump")
    choices.parent_path = given.value("parent-path")
    if os.path.isabs(choices.parent_path):
        raise UsageError("--parent-path must be relative", "It is seen from --image-path.")
    if given.value("page-server"):
        choices.page_server = _page_server(given.value("page-server"))
    if given.value("status-fd"):
        choices.status_fd = given.number("status-fd")
    checkpoint.checkpoint(store.load(invocation.root, invocation.arguments[0]), choices, invocation.log)
    return 0


def image_choices(invocation: Invocation, flags: tuple[str, ...]) -> checkpoint.Choices:
    """Give what checkpoint and restore share."""
    given = invocation.options
    chosen: dict[str, object] = {name.replace("-", "_"): True for name in flags if given.flag(name)}
    choices = checkpoint.Choices(given.value("image-path"), chosen)
    choices.work_path = os.path.abspath(given.value("work-path")) if given.value("work-path") else ""
    choices.manage_cgroups_mode = given.value("manage-cgroups-mode")
    if choices.manage_cgroups_mode not in CGROUP_MODES:
        raise UsageError(
            f"invalid manage-cgroups-mode: {choices.manage_cgroups_mode!r}", "It is soft, full, strict or ignore."
        )
    for name in given.values("empty-ns"):
        if name != "network":  # which has always been so: what is in it is the engine's
            raise UsageError(f"--empty-ns: namespace {name!r} is not supported", "It is network.")
    return choices


def _page_server(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    if not address or not port.isascii() or not port.isdigit() or not 0 < int(port) <= PORT_MAX:
        raise UsageError(f"--page-server wants ADDRESS:PORT, not {text!r}")
    return address.removeprefix("[").removesuffix("]"), int(port)
