"""SHA-256 without the module hashlib, which takes 3 ms to import. Hot path."""

from __future__ import annotations


def sha256(data: bytes) -> bytes:
    """Give the 32 bytes of the hash."""
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]  # noqa: PLC0415  # Python 3.11
    except ImportError:
        from _sha2 import sha256  # type: ignore[import-not-found]  # noqa: PLC0415  # Python 3.12
    digest: bytes = sha256(data).digest()
    return digest
