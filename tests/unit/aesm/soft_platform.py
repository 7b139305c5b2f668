"""A software platform with certificates of a test's own authority."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from inclavare.sgx.softkeys import SoftKeys
from inclavare.sgx.softquote import Certified, SoftPlatform, p256_key

SEED = bytes(range(32))
BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def pck_chain(keys: SoftKeys) -> bytes:
    """Return PEM: the PCK's certificate, then that of the authority."""
    root = p256_key(keys.secret("root"))
    pck = p256_key(keys.secret("pck"))
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        for name in ("SIMULATED SGX PCK Certificate", "SIMULATED SGX Root CA")
    ]

    def certificate(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> bytes:
        builder = x509.CertificateBuilder(names[1], name, key.public_key(), 1, BEGIN, BEGIN.replace(year=2049))
        return builder.sign(root, hashes.SHA256()).public_bytes(Encoding.PEM)

    return certificate(names[0], pck) + certificate(names[1], root)


def soft_platform() -> SoftPlatform:
    keys = SoftKeys(SEED)
    return SoftPlatform(keys, Certified(p256_key(keys.secret("pck")), pck_chain(keys)))


def write_platform(directory: Path, *, certified: bool = True) -> Path:
    """Write the platform's files as `runectl aesmd` reads them."""
    directory.mkdir()
    (directory / "seed").write_bytes(SEED)
    (directory / "seed").chmod(0o600)
    if certified:
        (directory / "pck.pem").write_bytes(pck_chain(SoftKeys(SEED)))
    return directory
