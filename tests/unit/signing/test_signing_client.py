"""The client of signature servers: against ours, and against servers that lie, stall and fail."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from inclavare.errors import EnclaveError, HostError
from inclavare.sgx.sign import SigningParameters, combine, generate_key, load_private_key, load_public_modulus, unsigned
from inclavare.signing import throwaway
from inclavare.signing.client import Credentials, public_key, sign, sign_with
from inclavare.signing.keystore import public_pem
from tests.unit.signing.conftest import TOKEN, Authority, Start, private_file

Serve = Callable[[bytes], str]
Says = Callable[..., bytes]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that answers one connection with some bytes, and gives the URL."""
    threads: list[threading.Thread] = []

    def once(answer: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            with listener, listener.accept()[0] as connection:
                connection.settimeout(5)
                received = connection.recv(65536)
                while b"\r\n\r\n" not in received or (received.startswith(b"POST") and len(received) < 256):
                    received += connection.recv(65536)
                connection.sendall(answer)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield once
    for thread in threads:
        thread.join(10)


def answer_of(body: bytes | str, status: str = "200 OK") -> bytes:
    content = body.encode() if isinstance(body, str) else body
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def signed(key: RSAPrivateKey, material: bytes) -> bytes:
    return key.sign(material, padding.PKCS1v15(), hashes.SHA256())


def payload(signature: bytes, public: bytes) -> str:
    return json.dumps({"signature": base64.b64encode(signature).decode(), "publicKey": public.decode()})


@pytest.fixture(scope="session")
def key(key_pem: bytes) -> RSAPrivateKey:
    return load_private_key(key_pem)


@pytest.fixture(scope="session")
def another_key() -> RSAPrivateKey:
    return load_private_key(generate_key())


@pytest.mark.parametrize("suffix", ["", "/", "/api/v1/signature", "/api/v1/signature/"])
def test_a_signature_and_its_public_key_come_from_the_server(
    start: Start, material: bytes, key: RSAPrivateKey, suffix: str
) -> None:
    server = start().url + suffix
    public = public_pem(key.public_key())
    assert public_key(server) == public
    assert sign(server, material) == (signed(key, material), public)


def test_https_with_an_authority_a_token_and_a_certificate_of_the_client(
    start: Start, authority: Authority, tokens: Path, token_file: Path, material: bytes, key: RSAPrivateKey
) -> None:
    certificate, tls_key = authority.issue("server", 1, "127.0.0.1")
    tls = ("--tls-certificate", certificate, "--tls-key", tls_key)
    server = start(*tls, "--tokens", tokens).url
    authorities, token = str(authority.file), str(token_file)
    assert sign(server, material, ca_file=authorities, token_file=token)[0] == signed(key, material)
    assert public_key(server, ca_file=authorities, token_file=token) == public_pem(key.public_key())
    mutual = start(*tls, "--client-ca", authority.file).url
    mine = [str(path) for path in authority.issue("builder")]
    assert sign_with(mutual, material, Credentials(str(authority.file), "", *mine))[0] == signed(key, material)
    with pytest.raises(HostError, match=f"cannot ask the signature server for {mutual}/api/v1/signature/pkcs1: "):
        sign_with(mutual, material, Credentials(str(authority.file)))


@pytest.mark.parametrize("token", [None, "wrong"])
def test_without_the_right_token_the_servers_refusal_is_told(
    start: Start, tokens: Path, tmp_path: Path, material: bytes, token: str | None
) -> None:
    file = str(private_file(tmp_path / "wrong", token.encode())) if token else ""
    server = start("--tokens", tokens).url
    with pytest.raises(HostError, match='answers 401 Unauthorized and says "no token that is known here"') as caught:
        sign(server, material, token_file=file)
    assert caught.value.message.startswith(f"{server}/api/v1/signature/pkcs1: ")
    assert "token_file" in caught.value.hint
    with pytest.raises(HostError, match="401"):
        public_key(server, token_file=file)


@pytest.mark.parametrize(
    ("days", "addresses", "trusted", "reason"),
    [
        (-1, ("127.0.0.1",), True, "certificate has expired"),
        (1, ("127.0.0.2",), True, "IP address mismatch"),
        (1, ("127.0.0.1",), False, "unable to get local issuer certificate"),
    ],
)
def test_a_certificate_that_is_not_right_is_refused(
    start: Start,
    authority: Authority,
    material: bytes,
    days: int,
    addresses: tuple[str, ...],
    trusted: bool,
    reason: str,
) -> None:
    certificate, key = authority.issue("server", days, *addresses)
    server = start("--tls-certificate", certificate, "--tls-key", key)
    with pytest.raises(HostError, match=f"its certificate is not accepted: .*{reason}") as caught:
        sign(server.url, material, ca_file=str(authority.file) if trusted else "")
    assert "ca_file" in caught.value.hint
    assert not server.audit.read_bytes()


def test_http_to_https_and_https_to_http_are_told(start: Start, authority: Authority, material: bytes) -> None:
    certificate, key = authority.issue("server", 1, "127.0.0.1")
    with pytest.raises(HostError, match="no answer of HTTP") as caught:
        sign(start("--tls-certificate", certificate, "--tls-key", key).url.replace("https", "http"), material)
    assert "https only" in caught.value.hint
    begun = time.monotonic()
    with pytest.raises(HostError, match="no TLS: ") as caught:
        sign(start().url.replace("http", "https"), material)
    assert "Does it speak https" in caught.value.hint
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("server", ["http://127.0.0.1:1", "https://127.0.0.1:1"])
def test_a_server_that_is_not_there_is_told(server: str, material: bytes) -> None:
    with pytest.raises(HostError, match=f"for {server}/api/v1/signature/pkcs1: connection refused"):
        sign(server, material)
    with pytest.raises(HostError, match=f"for {server}/api/v1/signature/public-key: connection refused"):
        public_key(server)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        ("500 Internal Server Error", "the key cannot be used\n", 'answers 500 .* and says "the key cannot be used"'),
        ("500 Internal Server Error", "", "answers 500 .* and says nothing"),
        ("400 Bad Request", "\x1b[2Jno\0pe", r'answers 400 Bad Request and says " \[2Jno pe"'),
        ("302 Found", "<html>", 'answers 302 Found and says "<html>"'),
        ("204 No Content", "", "answers 204"),
        ("502 Bad Gateway", "x" * 9999, r'answers 502 Bad Gateway and says "x{300}\.\.\."'),
    ],
)
def test_every_answer_but_200_is_an_error_with_the_servers_words(
    serve: Serve, material: bytes, status: str, body: str, words: str
) -> None:
    server = serve(answer_of(body, status))
    with pytest.raises(HostError, match=f"^{server}/api/v1/signature/pkcs1: the signature server {words}"):
        sign(server, material)
    with pytest.raises(HostError, match=words):
        public_key(serve(answer_of(body, status)))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>",
        "[]",
        "null",
        "{}",
        '{"signature":"","publicKey":3}',
        '{"signature":7,"publicKey":""}',
        '{"signature":"*","publicKey":""}',
        "[" * 50000,
        b"\xff\xfe",
    ],
)
def test_an_answer_that_is_no_such_json_is_refused(serve: Serve, material: bytes, body: bytes | str) -> None:
    with pytest.raises(HostError, match="/api/v1/signature/pkcs1: "):
        sign(serve(answer_of(body)), material)


def test_a_signature_of_something_else_or_by_another_is_refused(
    serve: Serve, material: bytes, key: RSAPrivateKey, another_key: RSAPrivateKey
) -> None:
    mine = public_pem(key.public_key())
    for signature in (
        signed(key, material + b"\0"),
        signed(another_key, material),
        signed(key, material)[:-1],
        bytes(384),
        b"\xff" * 384,
        (int.from_bytes(signed(key, material), "big") + key.public_key().public_numbers().n).to_bytes(385, "big"),
        b"",
    ):
        with pytest.raises(HostError, match="no signature of this material by its key"):
            sign(serve(answer_of(payload(signature, mine))), material)


@pytest.mark.parametrize("command", ["genrsa -3 2048", "genrsa 3072"])
def test_a_key_that_sgx_does_not_take_is_refused(serve: Serve, material: bytes, command: str) -> None:
    made = subprocess.run(["openssl", *command.split()], capture_output=True, check=True).stdout
    key = load_pem_private_key(made, None)
    assert isinstance(key, RSAPrivateKey)
    public = public_pem(key.public_key())
    with pytest.raises(HostError, match="the server's public key will not do: "):
        sign(serve(answer_of(payload(signed(key, material), public))), material)
    with pytest.raises(HostError, match="expected a public key, found "):
        public_key(serve(answer_of(public)))


@pytest.mark.parametrize("body", ["", "<html>nope</html>", '"-----BEGIN PUBLIC KEY-----"', b"\xff"])
def test_what_is_no_public_key_is_refused(serve: Serve, body: bytes | str) -> None:
    with pytest.raises(HostError, match="/public-key: expected a public key, found "):
        public_key(serve(answer_of(body)))


def test_a_public_key_comes_in_one_form_whatever_the_servers_is(serve: Serve, key: RSAPrivateKey) -> None:
    text = b"words\n" + key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1) + b"more\n"
    assert public_key(serve(answer_of(text))) == public_pem(key.public_key())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"SSH-2.0-OpenSSH\r\n",
        b"\0" * 100,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * ((1 << 16) + 1),
    ],
)
def test_what_is_no_answer_of_http_is_told(serve: Serve, material: bytes, answer: bytes) -> None:
    with pytest.raises(HostError, match="/api/v1/signature/pkcs1: "):
        sign(serve(answer), material)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("drip", [b"", b"H", b"\x16"])
def test_a_server_that_stalls_or_drips_is_left_in_time(scheme: str, drip: bytes, material: bytes) -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                while not stop.wait(0.2):
                    try:
                        connection.send(drip)
                    except OSError:
                        return

        thread = threading.Thread(target=run)
        thread.start()
        begun = time.monotonic()
        with pytest.raises(HostError, match=r"no whole answer within 0\.8 s|no TLS"):
            sign(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", material, timeout_s=0.8)
        assert time.monotonic() - begun < 3
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("", "is not the URL"),
        ("127.0.0.1:9080", "is not the URL"),
        ("ftp://127.0.0.1", "is not the URL"),
        ("https://", "is not the URL"),
        ("https://host:port", "is not the URL"),
        ("https://[::1", "is not the URL"),
        ("https://user:word@host", "is not the URL"),
        ("https://host/?a", "is not the URL"),
        ("https://host/a\r\nX: y", "is not the URL"),
        ("http://192.0.2.1:9080", "plain http is for this machine only"),
        ("http://signature.example", "plain http is for this machine only"),
    ],
)
def test_an_address_that_will_not_do_is_refused(server: str, reason: str, material: bytes) -> None:
    with pytest.raises(HostError, match=reason):
        sign(server, material)


def test_files_that_will_not_do_are_named(tmp_path: Path, material: bytes, token_file: Path) -> None:
    with pytest.raises(HostError, match="cannot use /nonexistent for TLS"):
        sign("https://127.0.0.1:1", material, ca_file="/nonexistent")
    with pytest.raises(HostError, match=r"cannot read the token .*/nonexistent: No such file"):
        sign("https://127.0.0.1:1", material, token_file=str(tmp_path / "nonexistent"))
    with pytest.raises(HostError, match="has no token"):
        sign("https://127.0.0.1:1", material, token_file=str(private_file(tmp_path / "two", b"a\nX-Other: b")))
    token_file.chmod(0o644)
    with pytest.raises(HostError, match="its mode 0644 lets others read") as caught:
        sign("https://127.0.0.1:1", material, token_file=str(token_file))
    assert TOKEN not in caught.value.message


def test_a_throw_away_key_signs_once_and_is_another_each_time(material: bytes) -> None:
    unsigned_ = unsigned(bytes(range(32)), SigningParameters(isvprodid=7, isvsvn=3, date=0x20260131))
    signature, public = throwaway.sign(material)
    combine(unsigned_, load_public_modulus(public), signature)
    assert throwaway.sign(material)[1] != public
    with pytest.raises(EnclaveError):
        combine(unsigned(bytes(32), SigningParameters()), load_public_modulus(public), signature)
