"""Who signs an enclave: the signature server, or on the software platform a key that is made for this one enclave."""

from __future__ import annotations

import importlib
from types import ModuleType

from inclavare.carriers.job import Job
from inclavare.errors import EnclaveError, HostError
from inclavare.signing import throwaway

CONFIGURATION = "/etc/inclavare-containers/config.toml"
TIMEOUT_S = 10.0


def require_signer(job: Job) -> None:
    """Refuse, before anything is built, when nobody can sign. Raises EnclaveError."""
    settings = job.settings
    if settings.signature_server:
        return
    if not settings.signature_throw_away_key:
        raise EnclaveError(
            "nobody signs enclaves on this host: no signature server is configured",
            f"Set server_address under [signature] of {CONFIGURATION}, or signature_method = "
            '"client" under [enclave_runtime] for images that hold a signed enclave.',
        )
    if settings.platform != "emulated":
        raise EnclaveError(
            f"a throw-away key signs for the software platform only, and sgx.platform is {settings.platform!r}",
            f"Set server_address under [signature] of {CONFIGURATION}.",
        )


def public_key(job: Job) -> bytes | None:
    """Give the public key (PEM) of who will sign, None for one that is made with the signature. Raises HostError."""
    settings = job.settings
    if not settings.signature_server:
        return None
    key: bytes = _client().public_key(
        settings.signature_server,
        ca_file=settings.signature_ca_file,
        token_file=settings.signature_token_file,
        timeout_s=TIMEOUT_S,
    )
    return key


def sign_material(job: Job, material: bytes, by: bytes | None = None) -> tuple[bytes, bytes]:
    """Have `material` signed, RSA PKCS#1 v1.5 with SHA-256: signature (big endian), public key (PEM).

    `by` is the key that public_key() gave. Raises EnclaveError, HostError.
    """
    require_signer(job)
    settings = job.settings
    if settings.signature_server:
        signature, key = _client().sign(
            settings.signature_server,
            material,
            ca_file=settings.signature_ca_file,
            token_file=settings.signature_token_file,
            timeout_s=TIMEOUT_S,
        )
        if by is not None and key != by:
            raise HostError(
                f"{settings.signature_server} has changed its key while an enclave was prepared", "Try again."
            )
        return signature, key
    job.log.warning(
        f"carrier {job.carrier}: signed with a key of this one enclave, which says nothing about its origin"
    )
    return throwaway.sign(material)


def _client() -> ModuleType:
    """Import the network, for hosts with a server."""
    return importlib.import_module("inclavare.signing.client")
