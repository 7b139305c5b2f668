"""One signing key and one image for all tests of this folder."""

from __future__ import annotations

import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from inclavare.sgx.sign import generate_key, load_private_key


@pytest.fixture(scope="session")
def key_pem() -> bytes:
    return generate_key()


@pytest.fixture(scope="session")
def key(key_pem: bytes) -> rsa.RSAPrivateKey:
    return load_private_key(key_pem)


@pytest.fixture(scope="session")
def image() -> bytes:
    """Return image T of the expected values: a TCS, a page of 0x90, and metadata that are all zero."""
    tcs = bytearray(4096)
    struct.pack_into("<I", tcs, 28, 1)
    struct.pack_into("<Q", tcs, 32, 0x1000)
    tcs[64:72] = b"\xff" * 8
    return bytes(tcs) + b"\x90" * 4096 + bytes(17)
