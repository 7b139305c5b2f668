"""The software platform's files: `seed` (32 bytes, for root only) and `pck.pem`, the PCK's certificate chain.

The PCK itself comes from the seed. Without `pck.pem` the platform gives launch tokens and target infos, but no quotes.
"""

from __future__ import annotations

import os
import stat

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from inclavare.errors import EnclaveError, HostError
from inclavare.sgx.softkeys import SoftKeys
from inclavare.sgx.softquote import Certified, SoftPlatform, p256_key

_CHAIN_SIZE_MAX = 1 << 16
_CHAIN_HINT = "It is the PEM chain of the PCK that this seed makes, the PCK's certificate first. Without it: no quotes."
_SEED_HINT = "runectl platform init, as root"


def read_platform(directory: str) -> SoftPlatform:
    """Return the platform in `directory`. Raises HostError and EnclaveError for what is missing or damaged."""
    keys = SoftKeys(read_seed(os.path.join(directory, "seed")))
    path = os.path.join(directory, "pck.pem")
    try:
        with open(path, "rb") as file:
            chain = file.read(_CHAIN_SIZE_MAX)
    except FileNotFoundError:
        return SoftPlatform(keys, None)
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error
    pck = p256_key(keys.secret("pck"))
    try:
        leaf = x509.load_pem_x509_certificate(chain)
    except ValueError as error:
        raise EnclaveError(f"{path} does not begin with a certificate: {error}", _CHAIN_HINT) from error
    point = (Encoding.X962, PublicFormat.UncompressedPoint)
    if leaf.public_key().public_bytes(*point) != pck.public_key().public_bytes(*point):
        raise EnclaveError(f"{path} is not for the seed beside it", _CHAIN_HINT)
    return SoftPlatform(keys, Certified(pck, chain))


def read_seed(path: str) -> bytes:
    """Return the seed in the file `path`. Raises HostError, and EnclaveError when others may read it."""
    try:
        with open(path, "rb", buffering=0) as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise EnclaveError(f"{path} can be read by others than its owner", f"chmod 600 {path}")
            return file.read(64)
    except FileNotFoundError as error:
        raise HostError(f"there is no software platform: {path} is missing", _SEED_HINT) from error
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}", "The seed is for root only.") from error
