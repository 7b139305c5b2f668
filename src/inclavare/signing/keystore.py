"""Who holds the signing key. A server knows no more of it than `KeyStore`.

Here is one, which reads a file. A key in an HSM is another class with the same three members: its `sign` asks the
module (C_Sign with CKM_SHA256_RSA_PKCS) and may take its time, since the server calls it in threads.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from inclavare.errors import EnclaveError, HostError
from inclavare.sgx.sign import load_private_key, load_public_modulus
from inclavare.signing.private_files import read_private


class KeyStore(Protocol):
    """One RSA-3072 key with exponent 3."""

    name: str  # for the log: where the key is

    def public_key(self) -> bytes:
        """Return the public key in PEM format, as it is served."""

    def sign(self, material: bytes) -> bytes:
        """Return the signature of `material`, RSA PKCS#1 v1.5 with SHA-256: 384 bytes, big endian.

        May be called by several threads at once. Raises HostError when the key cannot be used now.
        """


class FileKeyStore:
    """A key in a PEM file without encryption, read once. Raises HostError for a file that others can read, EnclaveError
    for a key that SGX does not take, or a public key that is another's.
    """  # noqa: D205  # one sentence more

    def __init__(self, path: str, public_path: str = "") -> None:
        self.name = path
        pem = read_private(path, "the private key")
        try:
            self._key = load_private_key(pem)
        except EnclaveError as error:
            raise EnclaveError(f"{path}: {error.message}", error.hint) from error
        self._public_pem = public_pem(self._key.public_key())
        if public_path:
            self._public_pem = self._read_public(public_path)

    def _read_public(self, path: str) -> bytes:
        try:
            with open(path, "rb") as file:
                pem = file.read()
        except OSError as error:
            raise HostError(f"cannot read the public key {path}: {error.strerror}") from error
        if load_public_modulus(pem) != self._key.public_key().public_numbers().n or not pem.isascii():
            raise EnclaveError(
                f"{path} is not the public key of {self.name}",
                f"openssl rsa -in {self.name} -pubout -out {path}, or leave --public-key out",
            )
        return pem

    def public_key(self) -> bytes:
        """Return the public key in PEM format: the file's, or SubjectPublicKeyInfo as openssl writes it."""
        return self._public_pem

    def sign(self, material: bytes) -> bytes:
        """Return the signature of `material`."""
        return self._key.sign(material, padding.PKCS1v15(), hashes.SHA256())


def public_pem(key: rsa.RSAPublicKey) -> bytes:
    """Return `key` as SubjectPublicKeyInfo in PEM format."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
