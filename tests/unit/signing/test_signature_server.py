"""`runectl signature-server`: what it answers, whom, and what it does with those who misbehave."""

from __future__ import annotations

import base64
import concurrent.futures
import http.client
import json
import os
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from inclavare.cli.runectl import main
from tests.unit.signing.conftest import TOKEN, Authority, Running, Start, private_file

BASE = "/api/v1/signature"
PLAIN = "text/plain; charset=utf-8"


def ask(
    server: Running,
    method: str,
    path: str,
    body: bytes | None = None,
    tls: ssl.SSLContext | None = None,
    authorization: str | None = None,
) -> tuple[int, str, bytes]:
    """Return status, type and body."""
    connection = (
        http.client.HTTPSConnection("127.0.0.1", server.port, context=tls, timeout=20)
        if tls
        else http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    )
    connection.request(method, path, body, {"Authorization": authorization} if authorization is not None else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers["Content-Type"], content


def audited(server: Running) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.audit.read_text().splitlines()]


def openssl(*words: str | Path) -> bytes:
    return subprocess.run(["openssl", *words], capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/ping", (200, PLAIN, b"ping")),
        ("GET", "/healthz", (200, PLAIN, b"ok")),
        ("HEAD", "/", (200, PLAIN, b"")),
        ("GET", "/", (404, "text/plain", b"404 page not found")),
        ("GET", f"{BASE}/pkcs1", (404, "text/plain", b"404 page not found")),
        ("PUT", "/ping", (404, "text/plain", b"404 page not found")),
    ],
)
def test_the_small_routes_answer_as_the_originals(start: Start, method: str, path: str, expected: object) -> None:
    assert ask(start(), method, path) == expected


def test_signature_and_public_key_are_those_that_openssl_makes(start: Start, key_file: Path, material: bytes) -> None:
    (key_file.parent / "material").write_bytes(material)
    signature = openssl("dgst", "-sha256", "-sign", key_file, key_file.parent / "material")
    public = openssl("rsa", "-in", key_file, "-pubout")
    server = start()
    assert ask(server, "GET", f"{BASE}/public-key") == (200, PLAIN, public)
    status, kind, body = ask(server, "POST", f"{BASE}/pkcs1", material)
    assert (status, kind) == (200, "application/json; charset=utf-8")
    # As the original's encoder writes it, byte for byte.
    key = public.decode().replace("\n", "\\n")
    assert body == f'{{"signature":"{base64.b64encode(signature).decode()}","publicKey":"{key}"}}'.encode()


def test_the_audit_log_tells_what_was_signed_and_what_was_not(
    start: Start, tokens: Path, material: bytes, tmp_path: Path
) -> None:
    server = start("--tokens", tokens)
    bearer = f"Bearer {TOKEN}"
    assert ask(server, "POST", f"{BASE}/pkcs1", material, authorization=bearer)[0] == 200
    assert ask(server, "POST", f"{BASE}/pkcs1", b"rm -rf /", authorization=bearer)[0] == 400
    assert ask(server, "POST", f"{BASE}/pkcs1", material)[0] == 401
    assert ask(server, "GET", f"{BASE}/public-key", authorization=bearer)[0] == 200
    given, refused, unknown = audited(server)
    (tmp_path / "material").write_bytes(material)
    digest = openssl("dgst", "-sha256", "-r", tmp_path / "material").decode().split()[0]
    assert str(given["client"]).startswith("127.0.0.1:")
    assert str(given["time"]).endswith("Z")
    assert {name: given[name] for name in given if name not in ("time", "client")} == {
        "certificate": None,
        "token": "builder",
        "answer": 200,
        "size": 256,
        "sha256": digest,
        "mrenclave": bytes(range(32)).hex(),
        "isvprodid": 7,
        "isvsvn": 3,
        "debug": True,
        "attributes": "0x6",
        "attributes_mask": "0x6",
        "date": "2026-01-31",
    }
    assert (refused["answer"], refused["size"], refused["token"]) == (400, 8, "builder")
    assert "found 8 bytes" in str(refused["reason"])
    assert (unknown["answer"], unknown["token"]) == (401, None)
    assert "sha256" not in unknown  # what strangers send is not read
    assert server.audit.stat().st_mode & 0o777 == 0o600
    assert TOKEN not in server.audit.read_text() + "".join(server.lines)


def test_without_a_known_token_nothing_is_told_but_that_it_is_there(start: Start, tokens: Path) -> None:
    server = start("--tokens", tokens)
    for wrong in (None, "", "Bearer nope", "Bearer ", f"Basic {TOKEN}", TOKEN):
        assert ask(server, "GET", f"{BASE}/public-key", authorization=wrong)[0] == 401
    assert ask(server, "GET", f"{BASE}/public-key", authorization=f"bearer {TOKEN}")[0] == 200
    assert ask(server, "GET", "/healthz")[0] == 200


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda material: material[:-1], "found 255 bytes"),
        (lambda material: material + b"\0", "found 257 bytes"),
        (lambda material: b"\7" + material[1:], "header: expected"),
        (lambda material: material[:16] + b"\1" + material[17:], "vendor: expected"),
        (lambda material: material[:20] + b"\x32\x13\x26\x20" + material[24:], "date: expected 0xYYYYMMDD"),
        (lambda material: material[:24] + b"\2" + material[25:], "header2: expected"),
        (lambda material: material[:44] + b"\1" + material[45:], "reserved: expected"),
        (lambda material: material[:220] + b"\1" + material[221:], "reserved: expected"),
    ],
)
def test_what_is_no_signing_material_is_signed_only_when_told_so(
    start: Start, material: bytes, change: object, reason: str
) -> None:
    assert callable(change)
    other = change(material)
    status, _, body = ask(start(), "POST", f"{BASE}/pkcs1", other)
    assert status == 400
    assert reason in body.decode()
    lax = start("--any-material")
    assert ask(lax, "POST", f"{BASE}/pkcs1", other)[0] == 200
    (line,) = audited(lax)
    assert (line["size"], "mrenclave" in line) == (len(other), False)


def test_the_public_keys_file_is_served_as_it_is(start: Start, key_file: Path, tmp_path: Path) -> None:
    public = tmp_path / "public.pem"
    public.write_bytes(b"ours\n" + openssl("rsa", "-in", key_file, "-RSAPublicKey_out"))
    assert ask(start("--public-key", public), "GET", f"{BASE}/public-key")[2] == public.read_bytes()


def test_two_hundred_requests_at_once_are_all_answered(start: Start, material: bytes) -> None:
    server = start()
    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        answers = set(pool.map(lambda _: ask(server, "POST", f"{BASE}/pkcs1", material), range(200)))
    assert [status for status, _, _ in answers] == [200]
    assert len(audited(server)) == 200


def test_a_body_that_is_too_large_is_refused_before_it_is_read(start: Start) -> None:
    server = start("--any-material")
    assert ask(server, "POST", f"{BASE}/pkcs1", bytes(1 << 16))[0] == 200
    status, _, body = ask(server, "POST", f"{BASE}/pkcs1", bytes((1 << 16) + 1))
    assert (status, body) == (413, b"expected at most 65536 bytes, found 65537\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(f"POST {BASE}/pkcs1 HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /ping HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\nContent-Length: +1\r\n\r\n", 400),
        (b"GET /ping HTTP/1.1\r\nX: 1\r\n folded\r\n\r\n", 400),
        (b"GET /ping HTTP/2.0\r\n\r\n", 400),
        (b"GET http://[/ping HTTP/1.1\r\n\r\n", 400),
        (b"GET  /ping HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\0\xff\n\n", 400),
        (b"POST /api/v1/signature/pkcs1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"GET /ping HTTP/1.1\r\nX: " + b"x" * 20000 + b"\r\n\r\n", 431),
        (b"GET http://127.0.0.1/ping?now HTTP/1.0\r\n\r\n", 200),
    ],
)
def test_what_is_no_clear_request_is_refused(start: Start, head: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", start().port), timeout=5) as connection:
        connection.sendall(head)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 %d " % status)


def test_a_client_that_waits_to_be_told_to_go_on_is(start: Start, material: bytes) -> None:
    with socket.create_connection(("127.0.0.1", start().port), timeout=5) as connection:
        head = f"POST {BASE}/pkcs1 HTTP/1.1\r\nContent-Length: 256\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(material)
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_slow_clients_delay_nobody_and_are_closed(start: Start, material: bytes) -> None:
    server = start("--timeout", "2")
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=15) for _ in range(100)]
    for connection in slow:
        connection.send(b"POST /api")
    begun = time.monotonic()
    assert ask(server, "POST", f"{BASE}/pkcs1", material)[0] == 200
    assert time.monotonic() - begun < 1.5
    for connection in slow:  # a byte now and then does not help
        connection.send(b"/")
    for connection in slow:
        assert connection.recv(1) == b""
        connection.close()
    assert time.monotonic() - begun < 6


def test_tls_serves_who_has_certificate_and_token_and_tells_who_it_was(
    start: Start, authority: Authority, tokens: Path, material: bytes
) -> None:
    certificate, key = authority.issue("server", 1, "127.0.0.1")
    server = start(
        *("--tls-certificate", certificate, "--tls-key", key, "--client-ca", authority.file, "--tokens", tokens)
    )
    context = ssl.create_default_context(cafile=authority.file)
    context.load_cert_chain(*authority.issue("builder-7"))
    assert ask(server, "POST", f"{BASE}/pkcs1", material, context, authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(server, "POST", f"{BASE}/pkcs1", material, context)[0] == 401
    assert [line["certificate"] for line in audited(server)] == ["commonName=builder-7"] * 2
    stranger = ssl.create_default_context(cafile=authority.file)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(server, "GET", "/ping", None, stranger)
    old = ssl.create_default_context(cafile=authority.file)
    old.load_cert_chain(*authority.issue("expired", -1))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(server, "GET", "/ping", None, old)


def test_plain_http_and_old_tls_get_nothing_from_a_server_with_tls(start: Start, authority: Authority) -> None:
    certificate, key = authority.issue("server", 1, "127.0.0.1")
    server = start("--tls-certificate", certificate, "--tls-key", key)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(server, "GET", "/ping")
    old = ssl.create_default_context(cafile=authority.file)
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(server, "GET", "/ping", None, old)
    assert ask(server, "GET", "/ping", None, ssl.create_default_context(cafile=authority.file))[2] == b"ping"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_other_machines_are_not_served_unless_guarded_or_told_so(
    start: Start, listen: str, key_file: Path, tokens: Path, authority: Authority, capfd: pytest.CaptureFixture[str]
) -> None:
    certificate, key = authority.issue("server", 1, "127.0.0.1")
    tls = ["--tls-certificate", str(certificate), "--tls-key", str(key)]
    for options in ([], ["--tokens", str(tokens)], tls):
        words = ["signature-server", "--listen", listen, "--private-key", str(key_file), *options]
        assert main(words) == 2
        assert "other machines reach this" in capfd.readouterr().err
    if listen.startswith("["):
        return
    for allowed in (["--insecure"], [*tls, "--tokens", tokens], [*tls, "--client-ca", authority.file]):
        start("--listen", listen, *allowed)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--listen", "9080"], "expected ADDRESS:PORT"),
        (["--listen", "127.0.0.1:65536"], "expected ADDRESS:PORT"),
        (["--tls-certificate", "x"], "belong together"),
        (["--tls-key", "x"], "belong together"),
        (["--client-ca", "x"], "needs --tls-certificate"),
        (["--tokens", "/nonexistent"], "cannot read the tokens /nonexistent: No such file"),
        (["--audit", "/nonexistent/audit"], "cannot write the audit log"),
        (["--private-key", "/nonexistent"], "cannot read the private key"),
        (["--private-key", "/dev/null"], "not a regular file"),
        (["--public-key", "/dev/null"], "cannot read the public key"),
    ],
)
def test_a_server_that_is_told_nonsense_does_not_start(
    key_file: Path, words: list[str], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    given = ["--listen", "127.0.0.1:0", "--private-key", str(key_file), *words]
    assert main(["signature-server", *given]) in (1, 2)
    assert expected in capfd.readouterr().err


def test_a_key_that_others_can_read_is_refused(key_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    key_file.chmod(0o640)
    assert main(["signature-server", "--listen", "127.0.0.1:0", "--private-key", str(key_file)]) == 1
    told = capfd.readouterr().err
    assert "its mode 0640 lets others" in told
    assert f"chmod 0600 {key_file}" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_key_that_belongs_to_another_is_refused(key_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.chown(key_file, 12345, 0)
    assert main(["signature-server", "--listen", "127.0.0.1:0", "--private-key", str(key_file)]) == 1
    assert "belongs to user 12345" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("genrsa -3 2048", "Invalid key size"),
        ("genrsa 3072", "Exponent must be"),
        ("ecparam -genkey -name prime256v1", "RSA"),
    ],
)
def test_a_key_that_sgx_does_not_take_is_refused(
    tmp_path: Path, command: str, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    key = private_file(tmp_path / "key.pem", openssl(*command.split()))
    assert main(["signature-server", "--listen", "127.0.0.1:0", "--private-key", str(key)]) == 1
    assert expected in capfd.readouterr().err


def test_a_public_key_of_another_is_refused(key_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    private_file(tmp_path / "other", openssl("genrsa", "-3", "3072"))
    (tmp_path / "public").write_bytes(openssl("rsa", "-in", tmp_path / "other", "-pubout"))
    words = ["--private-key", str(key_file), "--public-key", str(tmp_path / "public")]
    assert main(["signature-server", "--listen", "127.0.0.1:0", *words]) == 1
    assert "is not the public key of" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has no token"),
        ("builder:0123", ":1: expected NAME:SHA256"),
        (f"# x\nbuil der:{'0' * 64}", ":2: expected NAME:SHA256"),
        (f"a:{'0' * 64}\na:{'1' * 64}", ":2: the name a or its token is there already"),
        (f"a:{'0' * 64}\nb:{'0' * 64}", ":2: the name b or its token is there already"),
    ],
)
def test_a_malformed_file_of_tokens_is_refused(
    key_file: Path, tmp_path: Path, text: str, expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tokens = private_file(tmp_path / "tokens", text.encode())
    words = ["--listen", "127.0.0.1:0", "--private-key", str(key_file), "--tokens", str(tokens)]
    assert main(["signature-server", *words]) == 1
    assert expected in capfd.readouterr().err


def test_an_encrypted_key_of_tls_is_refused_without_asking_anybody(
    key_file: Path, authority: Authority, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    certificate, key = authority.issue("server")
    locked = tmp_path / "locked"
    openssl("pkcs8", "-topk8", "-in", key, "-passout", "pass:word", "-out", locked)
    locked.chmod(0o600)
    words = ["--private-key", str(key_file), "--tls-certificate", str(certificate), "--tls-key", str(locked)]
    assert main(["signature-server", "--listen", "127.0.0.1:0", *words]) == 1
    assert "cannot use TLS with" in capfd.readouterr().err


def test_no_signature_is_given_that_cannot_be_written_down(start: Start, material: bytes) -> None:
    server = start()
    server.audit.unlink()
    server.audit.symlink_to("/nonexistent/elsewhere")
    assert ask(server, "POST", f"{BASE}/pkcs1", material)[::2] == (500, b"the audit log cannot be written\n")
    server.audit.unlink()
    assert ask(server, "POST", f"{BASE}/pkcs1", material)[0] == 200


def test_what_is_under_way_is_answered_at_the_end(start: Start, material: bytes) -> None:
    server = start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(f"POST {BASE}/pkcs1 HTTP/1.1\r\nContent-Length: 256\r\n\r\n".encode() + material[:100])
        assert ask(server, "GET", "/ping")[0] == 200  # by now it has been taken
        server.process.terminate()
        time.sleep(0.3)
        connection.sendall(material[100:])
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_the_signature_is_right_for_any_material(start: Start) -> None:
    server = start("--any-material")
    public = load_pem_public_key(ask(server, "GET", f"{BASE}/public-key")[2])
    assert isinstance(public, RSAPublicKey)
    for body in (b"", b"\0", os.urandom(5000)):
        answer = json.loads(ask(server, "POST", f"{BASE}/pkcs1", body)[2])
        public.verify(base64.b64decode(answer["signature"]), body, padding.PKCS1v15(), hashes.SHA256())
