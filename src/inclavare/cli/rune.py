"""`rune`: an OCI runtime, command for command as runc, that can host an enclave in a container.

main() parses the global options, runs the command's module (one file a command, imported when it is used) and is the
only place that turns errors into text and exit codes: 1, or 255 from exec, as runc.
"""

from __future__ import annotations

import os
import sys

from inclavare import __version__, installed
from inclavare.cli.arguments import Values, parse_command, parse_options, render_options, usage
from inclavare.cli.table import COMMANDS, GLOBAL_OPTIONS, command_named
from inclavare.errors import HostError, InclavareError, InterruptError, UsageError
from inclavare.log import LEVELS, Log

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


class Invocation:
    """One command as it was called: its options and arguments, the state root, the log."""

    __slots__ = ("arguments", "cgroup_manager", "log", "options", "root", "rootless", "sgx_platform")

    def __init__(
        self,
        options: Values,
        arguments: list[str],
        root: str,
        log: Log,
        sgx_platform: str,
        cgroup_manager: str,
        *,
        rootless: bool,
    ) -> None:
        self.options = options
        self.arguments = arguments
        self.root = root
        self.log = log
        self.sgx_platform = sgx_platform
        self.cgroup_manager = cgroup_manager
        self.rootless = rootless


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with its status."""
    if "_launcher" not in sys.modules:
        from inclavare.linux.inherited import guard_fds  # noqa: PLC0415  # the launcher has done it

        guard_fds()
    words = list(sys.argv[1:] if argv is None else argv)
    status, log = 1, None
    rest: list[str] = []
    options = Values()
    try:
        options, rest = parse_options(words, GLOBAL_OPTIONS, mixed=False)
        log = _open_log(options)
        status = _run(options, rest, log)
    except InterruptError as error:
        _complain(error, log, to_file=log is not None and bool(options.value("log")))
        status = 128 + error.number
    except InclavareError as error:
        _complain(error, log, to_file=log is not None and bool(options.value("log")))
        status = 255 if "exec" in rest[:1] else 1
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 141
    except OSError as error:
        where = error.filename or f"cannot {' '.join(rest[:1])}"
        _complain(HostError(f"{where}: {error.strerror}"), log, to_file=log is not None and bool(options.value("log")))
        status = 255 if "exec" in rest[:1] else 1
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = status or 141
    except OSError as error:
        if not status:
            status = 1
            os.write(2, f"rune: cannot write the output: {error.strerror}\n".encode())
    os._exit(status)


def _run(options: Values, rest: list[str], log: Log) -> int:
    if options.flag("version"):
        _print_version()
        return 0
    if options.flag("help") or not rest or rest[0] == "help":
        print(_help(), end="")
        return 0
    command = command_named(rest[0])
    if command is None:
        raise UsageError(f"no such command: {rest[0]}", "`rune --help` lists the commands.")
    values, arguments = parse_command(command, rest[1:])
    if values.flag("help"):
        print(f"Usage: {usage(command)}\n\n{command.help}\n\n{render_options(command.options)}", end="")
        return 0
    root = options.value("root") or _default_root()
    platform = options.value("sgx-platform") or os.getenv("RUNE_SGX_PLATFORM", "")
    manager = _cgroup_manager(options)
    rootless = _is_rootless(options)
    module = __import__(f"inclavare.cli.{command.name}_command", fromlist=["run"])
    invocation = Invocation(values, arguments, os.path.abspath(root), log, platform, manager, rootless=rootless)
    return int(module.run(invocation))


def _print_version() -> None:
    """Print it in runc's lines, which engines read. The commit is known of what `make install` installed."""
    from inclavare.linux.files import read_file  # noqa: PLC0415  # not needed by others
    from inclavare.oci.state import SPEC_VERSION  # noqa: PLC0415  # not needed by others

    try:
        commit = f"commit: {read_file(installed('_native/commit')).decode().strip()}\n"
    except OSError:
        commit = ""
    print(f"rune version {__version__}\n{commit}spec: {SPEC_VERSION}")


def _is_rootless(options: Values) -> bool:
    value = options.value("rootless", "auto").lower()
    if value not in ("auto", "true", "1", "false", "0"):
        raise UsageError(f"invalid --rootless: {value!r}", "It is auto, true or false.")
    return os.geteuid() != 0 if value == "auto" else value in ("true", "1")


def _cgroup_manager(options: Values) -> str:
    manager = options.value("cgroup-manager", "systemd" if options.flag("systemd-cgroup") else "cgroupfs")
    if manager not in ("cgroupfs", "systemd", "disabled"):
        raise UsageError(f"invalid cgroup-manager: {manager!r}", "It is cgroupfs, systemd or disabled.")
    if options.flag("systemd-cgroup") and manager != "systemd":
        raise UsageError(f"--systemd-cgroup and --cgroup-manager={manager} contradict each other")
    return manager


def _default_root() -> str:
    runtime = os.getenv("XDG_RUNTIME_DIR")
    if not os.geteuid():
        return "/run/rune"
    if not runtime:
        raise UsageError("there is no place for the state: XDG_RUNTIME_DIR is not set", "Name one with --root.")
    return f"{runtime}/rune"


def _open_log(options: Values) -> Log:
    form = options.value("log-format", "text")
    if form not in ("text", "json"):
        raise UsageError(f"invalid log-format: {form!r}", "It is text or json.")
    level = "debug" if options.flag("debug") else options.value("log-level", "info")
    if level not in LEVELS:
        raise UsageError(f"invalid log-level: {level!r}", f"It is one of {', '.join(LEVELS)}.")
    path = options.value("log")
    if not path:
        return Log(2, json=form == "json", level=level)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(f"cannot open the log file {path}: {error.strerror}") from error
    return Log(fd, json=form == "json", level=level)


def _complain(error: InclavareError, log: Log | None, *, to_file: bool) -> None:
    if to_file and log is not None:
        # Engines show nothing but this line: the hint must be in it.
        log.error(error.text())
    hint = f"hint: {error.hint}\n" if error.hint else ""
    os.write(2, f"rune: {error.message}\n{hint}".encode("utf-8", "backslashreplace"))


def _help() -> str:
    commands = "".join(f"  {command.name:10} {command.help}\n" for command in COMMANDS)
    return (
        "Usage: rune [GLOBAL OPTION...] COMMAND [OPTION...] [ARGUMENT...]\n\n"
        "An OCI container runtime that can host an SGX enclave in a container.\n\n"
        f"Commands:\n{commands}\nGlobal options:\n{render_options(GLOBAL_OPTIONS)}\n"
        "`rune COMMAND --help` tells the options of a command.\n"
    )
