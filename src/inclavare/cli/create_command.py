"""`rune create`: make a container whose program waits for `rune start`."""

from __future__ import annotations

import os

from inclavare.container import create
from inclavare.container.executor import open_fds
from inclavare.container.interrupt import undo_on_signals
from inclavare.container.plan import describe

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation
    from inclavare.container.notify import Notifier


def run(invocation: Invocation) -> int:
    """Carry out the command."""
    options = creation_options(invocation)
    options.wait = True
    options.notifier = notifier()
    prepared = create.Prepared(
        invocation.arguments[0], invocation.options.value("bundle", "."), options, invocation.log
    )
    if invocation.options.flag("dry-run"):
        os.write(1, describe(create.dry_run(prepared)).encode())
        return 0
    undo_on_signals()
    create.build(prepared, invocation.log)
    return 0


def creation_options(invocation: Invocation) -> create.Options:
    """Give the options that create and run share."""
    given = invocation.options
    options = create.Options(invocation.root)
    options.cgroup_manager = invocation.cgroup_manager
    options.rootless = invocation.rootless
    options.config = given.value("config")
    options.console_socket = given.value("console-socket")
    options.pid_file = given.value("pid-file")
    options.pidfd_socket = given.value("pidfd-socket")
    options.listen_fds = _listen_fds()
    options.preserve_fds = open_fds(given.number("preserve-fds") + options.listen_fds, invocation.log)
    options.new_keyring = not given.flag("no-new-keyring")
    options.no_pivot = given.flag("no-pivot")
    options.sgx_platform = invocation.sgx_platform
    return options


def notifier() -> Notifier | None:
    """Give the way to the service manager that wants to know when the container is ready, if there is one."""
    host = os.getenv("NOTIFY_SOCKET", "")
    if not host:
        return None
    from inclavare.container.notify import Notifier  # noqa: PLC0415  # only in some services

    return Notifier(host)


def _listen_fds() -> int:
    """Give the number of sockets that came from who starts rune (sd_listen_fds(3)): the fds from 3 on."""
    count = os.getenv("LISTEN_FDS", "")
    ours = os.getenv("LISTEN_PID", "") in ("", str(os.getpid()))
    return int(count) if ours and count.isascii() and count.isdecimal() else 0
