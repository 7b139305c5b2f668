"""Who signs an enclave: the signature server, or on the software platform a key that is made for this one enclave."""

from __future__ import annotations

import importlib

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from inclavare.carriers.job import Job
from inclavare.errors import EnclaveError
from inclavare.sgx import sign

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


def sign_material(job: Job, material: bytes) -> tuple[bytes, bytes]:
    """Have `material` signed, RSA PKCS#1 v1.5 with SHA-256: signature (big endian), public key (PEM).

    Raises EnclaveError, HostError.
    """
    require_signer(job)
    settings = job.settings
    if settings.signature_server:
        # The network is for hosts with a server.
        client = importlib.import_module("inclavare.signing.client")

        signature, public_key = client.sign(
            settings.signature_server,
            material,
            ca_file=settings.signature_ca_file,
            token_file=settings.signature_token_file,
            timeout_s=TIMEOUT_S,
        )
        return signature, public_key
    job.log.warning(
        f"carrier {job.carrier}: signed with a key of this one enclave, which says nothing about its origin"
    )
    key = sign.load_private_key(sign.generate_key())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key.sign(material, padding.PKCS1v15(), hashes.SHA256()), public
