"""The carrier `skeleton`: puts the reference enclave into any image, signed. It shows the way that a carrier goes.

The image's own program is not run in the enclave: the skeleton runs none (docs/guides/skeleton.md).
"""

from __future__ import annotations

import os

from inclavare import installed
from inclavare.carriers import rootfs
from inclavare.carriers.cache import Cache, key
from inclavare.carriers.job import Job
from inclavare.carriers.signer import public_key, require_signer, sign_material
from inclavare.errors import EnclaveError, HostError
from inclavare.sgx import sign
from inclavare.sgx.arch import Sigstruct, ssa_frame_pages
from inclavare.sgx.measure import measure_image
from inclavare.sgx.sigstruct import require, to_be_signed, verify, verify_enclave

IMAGE, SIGSTRUCT = "encl.bin", "encl.ss"
IMAGE_MAX = 64 << 20


def prepare(job: Job) -> dict[str, str]:
    """Put encl.bin and encl.ss into the working directory; with signature method "client" check those of the image."""
    pal = job.settings.skeleton_pal or installed("_native/liberpal-skeleton-v3.so")
    if not os.path.isfile(pal):
        raise HostError(f"the skeleton's enclave runtime is not installed: {pal} is missing", "Run `make install`.")
    with rootfs.open_root(job.rootfs) as root:
        if job.settings.signature_method == "client":
            with job.step("the image's signed enclave checked"), rootfs.work_directory(job, root, make=False) as place:
                _check(place)
        else:
            image, sigstruct = _sign(job)
            with job.step("the enclave put into the image"), rootfs.work_directory(job, root) as place:
                rootfs.place_file(job, place, IMAGE, image)
                rootfs.place_file(job, place, SIGSTRUCT, sigstruct)
    return {"ENCLAVE_TYPE": "intelSgx", "ENCLAVE_RUNTIME_PATH": pal, "ENCLAVE_RUNTIME_ARGS": "debug"}


def _sign(job: Job) -> tuple[bytes, bytes]:
    require_signer(job)
    path = job.settings.skeleton_enclave or installed(f"_native/skeleton/{IMAGE}")
    try:
        with open(path, "rb") as file:
            image = file.read()
    except OSError as error:
        raise HostError(
            f"cannot read the skeleton's enclave {path}: {error.strerror}", "Run `make install`."
        ) from error
    parameters = sign.SigningParameters()
    with job.step("the enclave measured"):
        unsigned = sign.unsigned(measure_image(image, ssa_frame_pages(parameters.xfrm)), parameters)
    material = to_be_signed(unsigned)
    signer = public_key(job)
    with job.step("the enclave signed"):
        if signer is None:
            signature, signer = sign_material(job, material)
        else:
            signature = _signature(job, material, signer)
        signed = sign.combine(unsigned, sign.load_public_modulus(signer), signature)
    return image, signed.to_bytes()


def _signature(job: Job, material: bytes, signer: bytes) -> bytes:
    """Give the server's signature, which is asked for once as long as the cache has it."""

    def ask(path: str) -> None:
        with open(f"{path}/signature", "wb") as file:
            file.write(sign_material(job, material, signer)[0])

    with (
        Cache(job).held("the signature", key("signature", material.hex(), signer.decode()), ask) as path,
        open(f"{path}/signature", "rb") as file,
    ):
        return file.read()


def _check(place: int) -> None:
    try:
        image = rootfs.read_file(place, IMAGE, IMAGE_MAX)
        sigstruct = rootfs.read_file(place, SIGSTRUCT, Sigstruct.SIZE)
    except OSError as error:
        raise EnclaveError(
            f"the image holds no signed enclave: {error.filename} in process.cwd: {error.strerror}",
            'Put both into the image, or set signature_method = "server" under [enclave_runtime].',
        ) from error
    if len(sigstruct) != Sigstruct.SIZE:
        raise EnclaveError(f"{SIGSTRUCT} of the image has {len(sigstruct)} bytes, a SIGSTRUCT has {Sigstruct.SIZE}")
    signed = Sigstruct.from_bytes(sigstruct)
    require(verify(signed))
    require([verify_enclave(signed, measure_image(image, ssa_frame_pages(signed.xfrm)))])
