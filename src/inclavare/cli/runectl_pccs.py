"""`runectl pccs`: serve the software platform's certificates and collateral by Intel's PCS API version 4."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from inclavare.cli.runectl_files import read_file
from inclavare.errors import EnclaveError, HostError, UsageError
from inclavare.log import Log

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler

PLATFORM = "/var/lib/inclavare/platform"
LISTEN = "127.0.0.1:8081"
CONNECTIONS = 64
TIMEOUT_S = 10


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "pccs",
        help="serve certificates and collateral of the software platform",
        description="Serve the software platform, which protects nothing, by Intel's PCS API version 4 (http), for"
        " tools that speak to a PCCS. Stays in the foreground. Files are read anew for each request.",
        allow_abbrev=False,
    )
    parser.add_argument("--listen", metavar="ADDRESS:PORT", default=LISTEN, help=f"where to listen (default {LISTEN})")
    parser.add_argument(
        "--platform", metavar="DIR", default=PLATFORM, help=f"the software platform (default {PLATFORM})"
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal says to stop."""
    import signal  # noqa: PLC0415  # what only a server needs
    import threading  # noqa: PLC0415
    from http.server import ThreadingHTTPServer  # noqa: PLC0415

    _material(arguments.platform)  # a server that has nothing to serve does not start
    log = Log(sys.stderr.fileno(), json=arguments.log_format == "json", level="info")
    host, _, port = arguments.listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 0xFFFF:
        raise UsageError(f"--listen {arguments.listen}: expected ADDRESS:PORT")
    try:
        server = ThreadingHTTPServer((host.strip("[]"), int(port)), _handler(arguments.platform, log))
    except OSError as error:
        raise HostError(f"cannot listen on {arguments.listen}: {error.strerror}") from error
    server.daemon_threads = True
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for the loop below, which is this thread's.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    address = server.server_address
    log.info(f"the software platform, which protects nothing, serves PCS on {address[0]!s}:{address[1]}")
    with server:
        server.serve_forever()
    log.info("stopped")
    return 0


def _material(directory: str) -> object:
    from inclavare.pcs.routes import Material  # noqa: PLC0415

    try:
        return Material.of(read_file(f"{directory}/pck.pem"), read_file(f"{directory}/collateral.json"))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise EnclaveError(f"the files in {directory} are damaged: {error}", "runectl platform rotate") from error


def _handler(directory: str, log: Log) -> type[BaseHTTPRequestHandler]:
    import threading  # noqa: PLC0415
    from http.server import BaseHTTPRequestHandler  # noqa: PLC0415

    from inclavare.errors import InclavareError  # noqa: PLC0415
    from inclavare.pcs.routes import Material, answer  # noqa: PLC0415

    free = threading.BoundedSemaphore(CONNECTIONS)

    class Handler(BaseHTTPRequestHandler):
        """One connection, one request: the answer is `routes.answer`'s."""

        server_version = "inclavare-pccs"
        sys_version = ""
        timeout = TIMEOUT_S

        def handle(self) -> None:
            """Serve it, unless there are too many."""
            if free.acquire(blocking=False):
                try:
                    super().handle()
                finally:
                    free.release()

        def do_GET(self) -> None:
            """Answer."""
            try:
                material = _material(directory)
            except InclavareError as error:
                log.error(error.message)  # noqa: TRY400  # no traceback
                self.send_error(500, "the platform's files cannot be read")
                return
            assert isinstance(material, Material)  # noqa: S101
            made = answer(material, self.command, self.path)
            self.send_response(made.status)
            for name, value in made.headers:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(made.body)

        do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, format: str, *values: object) -> None:  # noqa: A002
            """Write a line of ours."""
            text = format % values
            log.info(f"{self.client_address[0]} {''.join(c if c.isprintable() else '?' for c in text)}")

    return Handler
