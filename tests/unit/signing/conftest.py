"""Keys and certificates made for the tests, and a signature server that runs."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import inclavare
from inclavare.sgx.sign import SigningParameters, generate_key, unsigned
from inclavare.sgx.sigstruct import to_be_signed

SOURCE = str(Path(inclavare.__file__).parents[1])
TOKEN = "0f4c9d-the-builders"  # noqa: S105  # of these tests
NOW = datetime.now(UTC)


def private_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.fixture(scope="session")
def key_pem() -> bytes:
    return generate_key()


@pytest.fixture
def key_file(tmp_path: Path, key_pem: bytes) -> Path:
    return private_file(tmp_path / "privatekey.pem", key_pem)


@pytest.fixture
def material() -> bytes:
    return to_be_signed(unsigned(bytes(range(32)), SigningParameters(isvprodid=7, isvsvn=3, date=0x20260131)))


class Authority:
    """A certificate authority: `ca.pem` and what it issues are in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
        whole = self._builder(self._name, self._key, 365).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.file = directory / "ca.pem"
        self.file.write_bytes(whole.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, name: str, days: int = 1, *addresses: str) -> tuple[Path, Path]:
        """Return certificate and key for `name`, valid until `days` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address)) for address in addresses])
        builder = self._builder(subject, key, days)
        builder = builder.add_extension(names, critical=False) if addresses else builder
        certificate = self.directory / f"{name}.pem"
        certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate, private_file(self.directory / f"{name}.key", pem)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=400))
            .not_valid_after(NOW + timedelta(days=days))
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """The server's file of tokens; TOKEN is `builder`'s."""
    digests = {"builder": TOKEN, "other": "another-token"}
    lines = [f"{name}:{hashlib.sha256(token.encode()).hexdigest()}\n" for name, token in digests.items()]
    return private_file(tmp_path / "tokens", ("# who may ask\n\n" + "".join(lines)).encode())


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return private_file(tmp_path / "token", TOKEN.encode() + b"\n")


class Running:
    """A `runectl signature-server` of its own, its URL, its audit log and its log lines."""

    def __init__(self, process: subprocess.Popen[str], audit: Path) -> None:
        assert process.stderr is not None
        self.process = process
        self.audit = audit
        self.lines: list[str] = []
        first = process.stderr.readline()
        found = re.search(r"(https?)://([0-9.]+|\[[0-9a-f:]+\]):(\d+)", first)
        assert found is not None, first + process.stderr.read()
        self.url, self.host, self.port = found[0], found[2], int(found[3])
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        assert self.process.wait(10) == 0, self.lines
        self._reader.join()
        assert self.lines[-1].rstrip().endswith('msg="stopped"')
        assert not [line for line in self.lines if "internal error" in line or "Traceback" in line]


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path, key_file: Path) -> Iterator[Start]:
    """Return a function that starts a server with more options."""
    started: list[Running] = []

    def run(*options: str | Path) -> Running:
        audit = tmp_path / f"audit-{len(started)}.jsonl"
        words = ["signature-server", "--listen", "127.0.0.1:0", "--private-key", key_file, "--audit", audit, *options]
        process = subprocess.Popen(
            [sys.executable, "-m", "inclavare.cli.runectl", *words],
            env={**os.environ, "PYTHONPATH": SOURCE},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(Running(process, audit))
        return started[-1]

    yield run
    for server in started:
        server.stop()
        assert server.process.stderr is not None
        server.process.stderr.close()
