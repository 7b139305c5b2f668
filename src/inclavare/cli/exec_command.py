"""`rune exec`: run another process in a container."""

from __future__ import annotations

import os

from inclavare.container import exec as execution
from inclavare.container import store
from inclavare.container.executor import open_fds
from inclavare.container.interrupt import undo_on_signals
from inclavare.container.plan import describe
from inclavare.errors import HostError, UsageError
from inclavare.linux.capabilities import NUMBERS
from inclavare.linux.files import read_file
from inclavare.oci import jsontext, spec

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation
    from inclavare.oci.process import Process
    from inclavare.oci.spec import Spec


def run(invocation: Invocation) -> int:
    """Carry out the command; the status is the program's."""
    given, log = invocation.options, invocation.log
    preserve_fds = open_fds(given.number("preserve-fds"), log)
    record = store.load(invocation.root, invocation.arguments[0])
    document = execution.container_spec(record, ignore_paused=given.flag("ignore-paused"))
    process = _process(invocation, document)
    options = execution.Options()
    options.console_socket = given.value("console-socket")
    options.pid_file = given.value("pid-file")
    options.pidfd_socket = given.value("pidfd-socket")
    options.preserve_fds = preserve_fds
    options.cgroup = given.value("cgroup")
    options.terminal = not given.flag("detach") and not options.console_socket
    if process.terminal and given.flag("detach") and not options.console_socket:
        raise UsageError("cannot allocate tty if rune will detach without setting console socket")
    request = execution.make_request(record, document, process)
    undo_on_signals()
    if given.flag("dry-run"):
        os.write(1, describe(execution.plan_exec(request)).encode())
        return 0
    if given.flag("detach"):
        execution.execute(record, request, options, log)
        return 0
    from inclavare.container.supervise import Foreground  # noqa: PLC0415  # only the foreground pays for it

    foreground = Foreground()
    executed = execution.execute(record, request, options, log)
    return foreground.wait(executed.pid, executed.master)


def _process(invocation: Invocation, document: Spec) -> Process:
    given, arguments = invocation.options, invocation.arguments
    path = given.value("process")
    if path:
        try:
            process = spec.parse_process(jsontext.loads(read_file(path), path))
        except OSError as error:
            raise HostError(f"cannot read {path}: {error.strerror}") from error
        return process
    if len(arguments) < 2:
        raise UsageError("process args cannot be empty", "Name a command behind the id, or use --process.")
    process = document.process
    process.args = arguments[1:]
    process.env += _variables(given.values("env"))
    process.cwd = _directory(given.value("cwd", process.cwd))
    process.terminal = given.flag("tty")
    process.console_size = None
    if given.values("no-new-privs"):
        process.no_new_privileges = given.flag("no-new-privs")
    process.apparmor_profile = given.value("apparmor") or process.apparmor_profile
    process.selinux_label = given.value("process-label") or process.selinux_label
    _set_user(process, given.value("user"), given.values("additional-gids"))
    capabilities = process.capabilities
    for name in given.values("cap"):
        if capabilities is None:
            raise UsageError("--cap needs a container with process.capabilities")
        if name not in NUMBERS:
            raise UsageError(f"--cap: {name!r} is no capability", "Names are as in capabilities(7): CAP_NET_ADMIN.")
        for names in (capabilities.bounding, capabilities.effective, capabilities.permitted):
            names.append(name)
    return process


def _variables(entries: list[str]) -> list[str]:
    for entry in entries:
        if entry.find("=") < 1:
            raise UsageError(f"--env: {entry!r} is no variable", "Variables are NAME=VALUE.")
    return entries


def _directory(path: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"--cwd: {path!r} is no absolute path")
    return path


def _set_user(process: Process, user: str, groups: list[str]) -> None:
    numbers = [*user.split(":"), *groups] if user else groups
    for number in numbers:
        if not (number.isascii() and number.isdigit()) or int(number) > 0xFFFF_FFFE:
            raise UsageError(f"{number!r} is no user or group id", "--user wants UID[:GID] in numbers.")
    if user:
        uid, _, gid = user.partition(":")
        process.user.uid = int(uid)
        process.user.gid = int(gid) if gid else process.user.gid
    process.user.additional_gids += [int(group) for group in groups]
