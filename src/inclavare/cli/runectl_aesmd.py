"""`runectl aesmd`: a daemon that speaks Intel's AESM protocol, with the software platform behind it.

It takes the socket that systemd has opened for it, or makes its own. It stays in the foreground, writes log lines to
stderr, tells systemd when it is ready, and ends with SIGTERM or SIGINT. Intel's switches --no-daemon and --no-syslog
say just that and are taken.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket
import sys
from typing import TYPE_CHECKING

from inclavare.cli.runectl_notify import notify
from inclavare.log import LEVELS, Log

if TYPE_CHECKING:
    from inclavare.aesm.server import Service

PLATFORM = "/var/lib/inclavare/platform"
SOCKET = "/run/aesmd/aesm.socket"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "aesmd",
        help="serve tokens and quotes of the software platform",
        description="Speak the protocol of Intel's AESM daemon with the software platform behind it, which protects"
        " nothing. Stays in the foreground. Uses the socket that systemd passes, else makes its own.",
        allow_abbrev=False,
    )
    parser.add_argument("--socket", metavar="PATH", default=SOCKET, help=f"where to listen (default {SOCKET})")
    parser.add_argument(
        "--platform", metavar="DIR", default=PLATFORM, help=f"the software platform (default {PLATFORM})"
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--log-level", choices=LEVELS, default="info", metavar="LEVEL", help="info by default")
    parser.add_argument("--no-daemon", action="store_true", help="as it is anyway")
    parser.add_argument("--no-syslog", action="store_true", help="as it is anyway")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal says to stop."""
    # What only a daemon needs takes longer to load than runectl as a whole.
    from inclavare.aesm.listener import inherited, opened, remove  # noqa: PLC0415
    from inclavare.aesm.server import Service  # noqa: PLC0415
    from inclavare.cli.runectl_platform_files import read_platform  # noqa: PLC0415

    log = Log(sys.stderr.fileno(), json=arguments.log_format == "json", level=arguments.log_level)
    service = Service(read_platform(arguments.platform))
    _raise_limit_of_files()
    passed = inherited(os.environ, os.getpid())
    if passed is not None:
        with passed:
            _serve(service, passed, log, "systemd's socket")
        return 0
    listener = opened(arguments.socket)
    inode = os.lstat(arguments.socket).st_ino
    try:
        _serve(service, listener, log, arguments.socket)
    finally:
        remove(listener, arguments.socket, inode)
    return 0


def _serve(service: Service, listener: socket.socket, log: Log, where: str) -> None:
    import asyncio  # noqa: PLC0415  # 30 ms that only a daemon is to pay
    import signal  # noqa: PLC0415

    from inclavare.aesm.daemon import Daemon  # noqa: PLC0415

    async def until_told() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        log.info(f"the software platform, which protects nothing, serves AESM on {where}")
        notify("READY=1")
        await Daemon(service, listener, log).run(stop)
        notify("STOPPING=1")
        log.info("stopped")

    asyncio.run(until_told())


def _raise_limit_of_files() -> None:
    """Have as many open files as we may: each client is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
