"""A PCCS for the software platform and its client, and servers that lie."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import inclavare
from inclavare.cli.runectl import main
from inclavare.errors import AttestationError, HostError, InclavareError, UsageError
from inclavare.pcs.client import BODY_MAX, Pccs, collateral_for
from inclavare.pcs.routes import BASE, Answer, Material, answer
from inclavare.sgx.arch import TargetInfo
from inclavare.sgx.collateral import parse_collateral
from inclavare.sgx.softkeys import ArchitecturalEnclave, SoftKeys
from inclavare.sgx.softpki import FMSPC
from inclavare.sgx.softquote import Certified, SoftPlatform, p256_key

SOURCE = str(Path(inclavare.__file__).parents[1])
FMSPC_QUERY = f"tcb?fmspc={FMSPC.hex()}"


@pytest.fixture
def platform(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    directory = tmp_path / "platform"
    assert main(["platform", "init", "--platform", str(directory)]) == 0
    capsys.readouterr()
    return directory


@pytest.fixture
def quote(platform: Path) -> bytes:
    keys = SoftKeys((platform / "seed").read_bytes())
    soft = SoftPlatform(keys, Certified(p256_key(keys.secret("pck")), (platform / "pck.pem").read_bytes()))
    enclave = ArchitecturalEnclave(b"e" * 32, b"m" * 32, 5, 3, 7, 2)
    return soft.quote(keys.report(enclave, TargetInfo.from_bytes(soft.qe_target_info()), bytes(64)).to_bytes())


@pytest.fixture
def material(platform: Path) -> Material:
    return Material.of((platform / "pck.pem").read_bytes(), (platform / "collateral.json").read_bytes())


@pytest.fixture
def server(platform: Path) -> Iterator[str]:
    """The address of `runectl pccs`."""
    with subprocess.Popen(
        [sys.executable, "-m", "inclavare.cli.runectl", "pccs", "--platform", platform, "--listen", "127.0.0.1:0"],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stderr=subprocess.PIPE,
        text=True,
    ) as daemon:
        assert daemon.stderr is not None
        found = re.search(r"127\.0\.0\.1:\d+", daemon.stderr.readline())
        assert found is not None
        threading.Thread(target=daemon.stderr.read).start()
        yield found[0]
        daemon.terminate()
        assert daemon.wait(10) == 0


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("pckcrl?ca=processor", "application/x-pem-file"),
        ("pckcrl?ca=processor&encoding=der", "application/pkix-crl"),
        (FMSPC_QUERY, "application/json"),
        (FMSPC_QUERY.upper().replace("TCB?FMSPC", "tcb?fmspc") + "&update=early", "application/json"),
        ("qe/identity", "application/json"),
        ("qe/identity?update=standard", "application/json"),
        ("rootcacrl", "text/plain"),
        (f"pckcert?cpusvn={'01' * 16}&pcesvn=0100&pceid=0000&encrypted_ppid=00", "application/x-pem-file"),
    ],
)
def test_every_route_answers_and_says_that_it_is_simulated(material: Material, target: str, kind: str) -> None:
    made = answer(material, "GET", BASE + target)
    headers = dict(made.headers)
    assert (made.status, headers["Content-Type"]) == (200, kind)
    assert headers["X-Simulated"]
    assert int(headers["Content-Length"]) == len(made.body) > 0


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("POST", BASE + "qe/identity", 405),
        ("GET", "/", 404),
        ("GET", BASE + "nope", 404),
        ("GET", "/sgx/certification/v3/qe/identity", 404),
        ("GET", BASE + "tcb", 400),
        ("GET", BASE + "tcb?fmspc=xyz", 400),
        ("GET", BASE + "tcb?fmspc=00906ED50000", 404),
        ("GET", BASE + FMSPC_QUERY + "&update=late", 400),
        ("GET", BASE + FMSPC_QUERY + "&fmspc=00", 400),
        ("GET", BASE + FMSPC_QUERY + "&x=1", 400),
        ("GET", BASE + "pckcrl", 400),
        ("GET", BASE + "pckcrl?ca=root", 400),
        ("GET", BASE + "pckcrl?ca=processor&encoding=hex", 400),
        ("GET", BASE + "pckcrl?ca=platform", 404),
        ("GET", BASE + "pckcert?pceid=0000", 400),
        ("GET", BASE + f"pckcert?cpusvn={'01' * 16}&pcesvn=0100&pceid=0001", 404),
        ("GET", BASE + "rootcacrl?" + "&".join(f"{number}=" for number in range(17)), 400),
        ("GET", "http://[", 400),
    ],
)
def test_what_cannot_be_answered_is_said_why(material: Material, method: str, target: str, status: int) -> None:
    made = answer(material, method, target)
    assert (made.status, made.body[-1:]) == (status, b"\n")


def test_the_server_gives_dcap_qvl_all_that_it_needs(server: str, platform: Path, quote: bytes) -> None:
    dcap_qvl = pytest.importorskip("dcap_qvl", reason="needs dcap-qvl, of the extra dev")
    import asyncio  # noqa: PLC0415

    async def fetch() -> object:
        return await dcap_qvl.get_collateral(f"http://{server}", quote)

    collateral = asyncio.run(fetch())
    root = x509.load_pem_x509_certificate((platform / "root.pem").read_bytes()).public_bytes(Encoding.DER)
    assert dcap_qvl.verify_with_root_ca(quote, collateral, root, int(time.time())).status == "UpToDate"


def test_a_quote_is_verified_with_what_the_client_gets(
    server: str, platform: Path, quote: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "quote").write_bytes(quote)
    words = ["--quote", str(tmp_path / "quote"), "--pccs", f"http://{server}", "--cache", str(tmp_path / "cache")]
    root = ["--root", str(platform / "root.pem"), "--allow-emulated"]
    assert main(["verify-quote", *words, *root]) == 0
    assert capsys.readouterr().out.startswith("SIMULATED")
    assert main(["get-collateral", *words]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got == json.loads((platform / "collateral.json").read_text())
    output = platform / "got.json"
    assert main(["get-collateral", *words, "--output", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"collateral": str(output)}
    assert json.loads(output.read_text()) == got


def test_it_serves_slow_and_malformed_clients_beside_others(server: str, platform: Path) -> None:
    host, port = server.split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(20)]
    for connection in slow:
        connection.send(b"GET /sgx")
    for rubbish in (b"\0\xff\n\n", b"GET " + b"x" * 70000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=15) as connection:
            connection.sendall(rubbish)
            while connection.recv(4096):  # an answer, and the end
                pass
    client = http.client.HTTPConnection(host, int(port), timeout=10)
    client.request("GET", BASE + "rootcacrl")
    assert client.getresponse().read().decode() == json.loads((platform / "collateral.json").read_text())["root_ca_crl"]
    client.close()
    for connection in slow:
        connection.close()


Serve = Callable[[Callable[[str], Answer]], str]


@pytest.fixture
def liar() -> Iterator[Serve]:
    """Return a function that serves what a function says, and gives the URL."""
    servers: list[HTTPServer] = []

    def serve(says: Callable[[str], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                made = says(self.path)
                self.send_response(made.status)
                for name, value in made.headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(made.body)

            def log_message(self, format: str, *values: object) -> None:  # noqa: A002
                del format, values

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def change(material: Material, route: str, **changes: object) -> Callable[[str], Answer]:
    def says(path: str) -> Answer:
        made = answer(material, "GET", path)
        return made._replace(**changes) if route in path else made  # type: ignore[arg-type]

    return says


@pytest.mark.parametrize(
    ("route", "changes", "complaint"),
    [
        ("tcb", {"body": b"{}"}, "expected an object with tcbInfo"),
        ("tcb", {"body": b'{"tcbInfo":{},"signature":5}'}, "expected an object with tcbInfo"),
        ("tcb", {"body": b'{"tcbInfo":{},"signature":"00"}'}, "tcb_info"),
        ("tcb", {"body": b'{"tcbInfo":' + b"[" * 100_000}, "expected an object with tcbInfo"),
        ("tcb", {"headers": ()}, "found none"),
        ("qe/identity", {"body": b"\xff"}, "expected an object with enclaveIdentity"),
        (
            "pckcrl",
            {"body": bytes(BODY_MAX + 1), "headers": (("SGX-PCK-CRL-Issuer-Chain", "BEGIN CERTIFICATE"),)},
            "more",
        ),
        ("pckcrl", {"body": b""}, "pck_crl"),
        ("rootcacrl", {"status": 404}, "answers 404"),
        ("rootcacrl", {"status": 302, "headers": (("Location", "http://127.0.0.1:1/"),)}, "answers 302"),
    ],
)
def test_a_server_that_lies_is_not_believed(
    liar: Serve,
    material: Material,
    quote: bytes,
    tmp_path: Path,
    route: str,
    changes: dict[str, object],
    complaint: str,
) -> None:
    pccs = Pccs(liar(change(material, route, **changes)))
    with pytest.raises(InclavareError, match=re.escape(complaint)):
        collateral_for(quote, pccs, str(tmp_path / "cache"), int(time.time()))
    assert not list((tmp_path / "cache").glob("*"))


def test_collateral_is_kept_until_it_is_no_longer_valid(
    liar: Serve, material: Material, quote: bytes, tmp_path: Path
) -> None:
    asked: list[str] = []

    def says(path: str) -> Answer:
        asked.append(path)
        return answer(material, "GET", path)

    pccs, cache, now = Pccs(liar(says)), str(tmp_path / "cache"), int(time.time())
    first = collateral_for(quote, pccs, cache, now)
    parse_collateral(first)
    assert len(asked) == 4
    assert collateral_for(quote, pccs, cache, now) == first
    assert len(asked) == 4
    assert collateral_for(quote, pccs, cache, now, refresh=True) == first
    assert len(asked) == 8
    collateral_for(quote, pccs, cache, now + 31 * 86400)
    assert len(asked) == 12
    (kept,) = Path(cache).iterdir()
    kept.write_bytes(b"damaged")
    collateral_for(quote, pccs, cache, now)
    assert len(asked) == 16


@pytest.mark.parametrize(
    "url", ["", "localhost:8081", "ftp://localhost", "http://192.0.2.1", "https://h/?x=1", "https://"]
)
def test_a_url_that_will_not_do_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        Pccs(url)


def test_a_server_that_is_not_there_is_named(quote: bytes, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(HostError, match=re.escape(url)):
            collateral_for(quote, Pccs(url), str(tmp_path), int(time.time()))


def test_a_quote_that_is_none_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(AttestationError):
        collateral_for(b"x", Pccs("https://localhost:1"), str(tmp_path), 0)


def test_a_server_without_a_platform_does_not_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pccs", "--platform", str(tmp_path)]) == 1
    assert "pck.pem" in capsys.readouterr().err
    (tmp_path / "pck.pem").write_text("x")
    (tmp_path / "collateral.json").write_text("{}")
    assert main(["pccs", "--platform", str(tmp_path)]) == 1
    assert "damaged" in capsys.readouterr().err
