"""`runectl signature-server`: signs enclaves for other machines, with a key that never leaves this one.

The routes are the original project's. It stays in the foreground, writes log lines to stderr and the audit log to
stdout or a file, tells systemd when it is ready, and ends with SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from inclavare.cli.runectl_notify import notify
from inclavare.cli.runectl_times import seconds
from inclavare.errors import UsageError
from inclavare.log import LEVELS, Log

if TYPE_CHECKING:
    import socket

    from inclavare.signing.daemon import Daemon

PRIVATE_KEY = "/etc/signature/pki/privatekey.pem"
LISTEN = "127.0.0.1:9080"
TIMEOUT_S = 10.0


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "signature-server",
        help="sign enclaves for others, with a key that stays here",
        description="Sign the signing material of enclaves that comes by http, with a key that stays here. Stays in the"
        " foreground. Listens for other machines only with TLS, and with tokens or certificates of clients.",
        allow_abbrev=False,
    )
    parser.add_argument("--listen", metavar="ADDRESS:PORT", default=LISTEN, help=f"where to listen (default {LISTEN})")
    parser.add_argument(
        "--private-key",
        metavar="FILE",
        default=PRIVATE_KEY,
        help=f"PEM: RSA-3072 with exponent 3, for nobody else to read (default {PRIVATE_KEY})",
    )
    parser.add_argument("--public-key", metavar="FILE", default="", help="its public key, to be served as it is")
    who = parser.add_argument_group("who may ask")
    who.add_argument("--tls-certificate", metavar="FILE", default="", help="PEM: certificate and those above it")
    who.add_argument("--tls-key", metavar="FILE", default="", help="PEM: the certificate's key")
    who.add_argument(
        "--client-ca", metavar="FILE", default="", help="only clients with a certificate by this authority"
    )
    who.add_argument("--tokens", metavar="FILE", default="", help="only who has a token: lines NAME:SHA256 of it")
    who.add_argument("--insecure", action="store_true", help="whoever reaches --listen, wherever that is")
    what = parser.add_argument_group("what is signed and written down")
    what.add_argument("--any-material", action="store_true", help="sign whatever comes, not signing material only")
    what.add_argument("--audit", metavar="FILE", default="-", help="a JSON line for each request (default: stdout)")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=TIMEOUT_S,
        help=f"for a whole request (default {TIMEOUT_S:g})",
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--log-level", choices=LEVELS, default="info", metavar="LEVEL", help="info by default")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal says to stop."""
    # What only a server needs takes longer to load than runectl as a whole.
    from inclavare.signing.audit import AuditLog  # noqa: PLC0415
    from inclavare.signing.daemon import Daemon  # noqa: PLC0415
    from inclavare.signing.keystore import FileKeyStore  # noqa: PLC0415
    from inclavare.signing.listener import opened, server_tls  # noqa: PLC0415
    from inclavare.signing.server import Service  # noqa: PLC0415
    from inclavare.signing.tokens import read_tokens  # noqa: PLC0415

    _check_usage(arguments)
    log = Log(sys.stderr.fileno(), json=arguments.log_format == "json", level=arguments.log_level)
    tls = None
    if arguments.tls_certificate:
        tls = server_tls(arguments.tls_certificate, arguments.tls_key, arguments.client_ca)
    service = Service(
        FileKeyStore(arguments.private_key, arguments.public_key),
        AuditLog(arguments.audit),
        read_tokens(arguments.tokens) if arguments.tokens else None,
        any_material=arguments.any_material,
    )
    guarded = arguments.insecure or (tls is not None and bool(arguments.tokens or arguments.client_ca))
    with opened(arguments.listen, guarded=guarded) as listener:
        _serve(Daemon(service, listener, log, tls, arguments.timeout), listener, log, "https" if tls else "http")
    return 0


def _check_usage(arguments: argparse.Namespace) -> None:
    hint = "runectl signature-server --help"
    if bool(arguments.tls_certificate) != bool(arguments.tls_key):
        raise UsageError("--tls-certificate and --tls-key belong together", hint)
    if arguments.client_ca and not arguments.tls_certificate:
        raise UsageError("--client-ca needs --tls-certificate and --tls-key", hint)


def _serve(daemon: Daemon, listener: socket.socket, log: Log, scheme: str) -> None:
    import asyncio  # noqa: PLC0415  # 30 ms that only a server is to pay
    import signal  # noqa: PLC0415

    async def until_told() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        host, port = listener.getsockname()[:2]
        log.info(f"signs on {scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        notify("READY=1")
        await daemon.run(stop)
        notify("STOPPING=1")
        log.info("stopped")

    asyncio.run(until_told())
