"""A key for one signature, forgotten at once: for platforms that protect nothing, where nobody asks who the signer is.

Whether that is allowed is the caller's decision.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from inclavare.sgx.sign import generate_key, load_private_key
from inclavare.signing.keystore import public_pem


def sign(material: bytes) -> tuple[bytes, bytes]:
    """Return the signature of `material` (384 bytes, big endian) by a key made for it, and that public key in PEM."""
    key = load_private_key(generate_key())
    return key.sign(material, padding.PKCS1v15(), hashes.SHA256()), public_pem(key.public_key())
