"""Asks a signature server: for the public key, and for the signature of signing material.

A server is believed nothing: the key it names must be one that SGX takes, and its signature must be that key's of the
very material. Https is verified, redirects and proxies are not followed, and plain http is for this machine only: on
the way another could sign with a key of his. Every failure is a HostError that names the URL.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from inclavare.errors import EnclaveError, HostError
from inclavare.sgx.arch import SGX_EXPONENT, SGX_MODULUS_SIZE
from inclavare.sgx.sign import load_public_modulus
from inclavare.sgx.sigstruct import encoded_digest
from inclavare.signing.keystore import public_pem
from inclavare.signing.server import BASE
from inclavare.signing.tokens import read_token

TIMEOUT_S = 10.0
ANSWER_MAX = 1 << 16
_WORDS_MAX = 300  # of what a server says to its error
_SERVER_HINT = "It looks like https://HOST:9080: [signature] server_address in config.toml."


@dataclass(frozen=True, slots=True)
class Credentials:
    """How the client proves who it is, and whom it trusts: all are paths of files, "" for none.

    `ca_file`: the authorities (PEM) in place of the system's. `token_file`: a bearer token. `certificate_file` and
    `key_file`: a certificate of its own, for mutual TLS.
    """

    ca_file: str = ""
    token_file: str = ""
    certificate_file: str = ""
    key_file: str = ""


def sign(
    server: str, material: bytes, *, ca_file: str = "", token_file: str = "", timeout_s: float = TIMEOUT_S
) -> tuple[bytes, bytes]:
    """Return the signature of `material` (384 bytes, big endian) by `server`, and its public key in PEM format.

    `timeout_s` is for all of it together. Raises HostError, also for an answer that is not such a signature.
    """
    return sign_with(server, material, Credentials(ca_file, token_file), timeout_s)


def public_key(server: str, *, ca_file: str = "", token_file: str = "", timeout_s: float = TIMEOUT_S) -> bytes:
    """Return the public key of `server` in PEM format. Raises HostError as `sign`."""
    return public_key_with(server, Credentials(ca_file, token_file), timeout_s)


def sign_with(
    server: str, material: bytes, credentials: Credentials, timeout_s: float = TIMEOUT_S
) -> tuple[bytes, bytes]:
    """Do as `sign`, with all kinds of credentials."""
    exchange = _Exchange(server, "pkcs1", credentials, timeout_s)
    body = exchange.ask("POST", material)
    try:
        document = json.loads(body)
        signature = base64.b64decode(document["signature"], validate=True)
        key, modulus = _key(document["publicKey"].encode())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise HostError(
            f"{exchange.url}: expected a signature and a public key in JSON, found {_shown(body)}"
        ) from error
    except EnclaveError as error:
        raise HostError(f"{exchange.url}: the server's public key will not do: {error.message}", error.hint) from error
    number = int.from_bytes(signature, "big")
    if (
        len(signature) != SGX_MODULUS_SIZE
        or number >= modulus
        or pow(number, SGX_EXPONENT, modulus) != encoded_digest(material)
    ):
        raise HostError(
            f"{exchange.url}: what the server gives is no signature of this material by its key",
            "Are --private-key and --public-key of the server a pair?",
        )
    return signature, key


def public_key_with(server: str, credentials: Credentials, timeout_s: float = TIMEOUT_S) -> bytes:
    """Do as `public_key`, with all kinds of credentials."""
    exchange = _Exchange(server, "public-key", credentials, timeout_s)
    body = exchange.ask("GET")
    try:
        return _key(body)[0]
    except EnclaveError as error:
        raise HostError(
            f"{exchange.url}: expected a public key, found {_shown(body)}: {error.message}", error.hint
        ) from error


def _key(pem: bytes) -> tuple[bytes, int]:
    """Return a public key in one PEM form, whatever it was, and its modulus. Raises EnclaveError."""
    modulus = load_public_modulus(pem)
    key = load_pem_public_key(pem)
    assert isinstance(key, RSAPublicKey)  # noqa: S101  # load_public_modulus has seen to it
    return public_pem(key), modulus


class _Exchange:
    """One request and its answer, on a connection of their own."""

    def __init__(self, server: str, route: str, credentials: Credentials, timeout_s: float) -> None:
        parts, host, port = _parse(server)
        path = parts.path.rstrip("/").removesuffix(BASE)
        self.url = f"{parts.scheme}://{parts.netloc}{path}{BASE}/{route}"
        self._target = f"{path}{BASE}/{route}"
        self._context = _tls(credentials) if parts.scheme == "https" else None
        self._host, self._port = host, port
        self._headers = {"Accept": "*/*", "Content-Type": "text/plain", "Connection": "close"}
        if credentials.token_file:
            self._headers["Authorization"] = f"Bearer {read_token(credentials.token_file)}"
        self._timeout_s = timeout_s

    def ask(self, method: str, body: bytes | None = None) -> bytes:
        """Return the body of the answer 200. Raises HostError for any other, and for none."""
        deadline = time.monotonic() + self._timeout_s
        connection = http.client.HTTPConnection(self._host, self._port)
        late = threading.Event()
        try:
            connected: socket.socket = socket.create_connection((self._host, self._port), self._timeout_s)
            if self._context is not None:
                connected = self._context.wrap_socket(
                    connected, server_hostname=self._host, do_handshake_on_connect=False
                )
            connection.sock = connected
            # Time-outs of sockets begin anew with each byte; this one does not.
            timer = threading.Timer(max(0.0, deadline - time.monotonic()), _break, (connected, late))
            timer.daemon = True
            timer.start()
            try:
                if isinstance(connected, ssl.SSLSocket):
                    connected.do_handshake()
                connection.request(method, self._target, body, self._headers)
                answer = connection.getresponse()
                content = answer.read(ANSWER_MAX + 1)
            finally:
                timer.cancel()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failed(error, late=late.is_set()) from error
        finally:
            connection.close()
        if late.is_set():
            raise self._failed(TimeoutError(), late=True)
        if answer.status != 200:
            said = _shown(content) if content.strip() else "nothing"
            raise HostError(
                f"{self.url}: the signature server answers {answer.status} {answer.reason} and says {said}",
                "Set token_file to a file with a token that the server knows." if answer.status == 401 else "",
            )
        if len(content) > ANSWER_MAX:
            raise HostError(f"{self.url}: expected an answer of at most {ANSWER_MAX} bytes, found more")
        return content

    def _failed(self, error: Exception, *, late: bool) -> HostError:
        hint = "Does it run? runectl signature-server is one."
        reason = str(error) or type(error).__name__
        if late or isinstance(error, TimeoutError):
            reason, hint = f"no whole answer within {self._timeout_s:g} s", ""
        elif isinstance(error, ssl.SSLCertVerificationError):
            reason = f"its certificate is not accepted: {error.verify_message}"
            hint = "Set ca_file to the authority of its certificate."
        elif isinstance(error, ssl.SSLError):
            reason = f"no TLS: {error.reason or error}"
            hint = "Does it speak https? Does it want a certificate of its clients?"
        elif isinstance(error, ConnectionRefusedError):
            reason = "connection refused"
        elif isinstance(error, (ConnectionError, http.client.HTTPException)):
            reason = f"no answer of HTTP ({reason})"
            hint = "Does it speak https only?" if self._context is None else ""
        return HostError(f"cannot ask the signature server for {self.url}: {reason}", hint)


def _parse(server: str) -> tuple[SplitResult, str, int]:
    try:
        parts = urlsplit(server)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise HostError(f"{server} is not the URL of a signature server: {error}", _SERVER_HINT) from error
    if (
        parts.scheme not in ("http", "https")
        or not host
        or parts.query
        or parts.fragment
        or parts.username is not None
        or not all("!" <= letter <= "~" for letter in server)
    ):
        raise HostError(f"{server} is not the URL of a signature server", _SERVER_HINT)
    if parts.scheme == "http" and not _is_here(host):
        raise HostError(f"{server}: plain http is for this machine only", "Use https, or a tunnel to localhost.")
    return parts, host, port or (443 if parts.scheme == "https" else 80)


def _tls(credentials: Credentials) -> ssl.SSLContext:
    reading = credentials.ca_file
    try:
        context = ssl.create_default_context(cafile=credentials.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if credentials.certificate_file:
            reading = credentials.certificate_file
            context.load_cert_chain(credentials.certificate_file, credentials.key_file or None, password="")
    except OSError as error:  # SSLError is one
        raise HostError(f"cannot use {reading} for TLS: {error.strerror or error}") from error
    return context


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _break(connected: socket.socket, late: threading.Event) -> None:
    """Wake up whoever waits for `connected`. Not SSLSocket's own shutdown, which only forgets about TLS."""
    late.set()
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


def _shown(body: bytes) -> str:
    """What a server said, for an error: no more than a line's worth, and nothing that moves a terminal's cursor."""
    text = body[: _WORDS_MAX * 4].decode("utf-8", "replace").strip()
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return json.dumps(text if len(text) <= _WORDS_MAX else f"{text[:_WORDS_MAX]}...", ensure_ascii=False)
