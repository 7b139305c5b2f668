"""The carrier `occlum`: makes an Occlum instance of an image, on a host that has Occlum and Intel's sgx_sign.

The way is the original's: `occlum init`, Occlum.json, the image's files, `occlum build`; then `sgx_sign gendata`, a
signature of somebody who has a key, `sgx_sign catsig`; and the instance lies in process.cwd. All is built in a private
directory of the cache, which keeps the instance and the signed enclave apart: another signer needs no other build.

The names that the original gives to what it keeps (IMAGE_DIGEST and Occlum.json decide) are told in the log. They are
not the keys of the cache: IMAGE_DIGEST is the pod's word, and one pod must not get another's enclave by it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass

from inclavare.carriers import rootfs, tools, tree
from inclavare.carriers.cache import Cache, key
from inclavare.carriers.job import Job
from inclavare.carriers.occlum_config import instance_id, occlum_json, signed_id
from inclavare.carriers.signer import public_key, require_signer, sign_material
from inclavare.enclave.hostconfig import HostConfig
from inclavare.errors import EnclaveError, HostError

ENCLAVE = "build/lib/libocclum-libos.so"
SIGNED = "build/lib/libocclum-libos.signed.so"
SIGNING_CONFIGURATION = "build/Enclave.xml"
ARGUMENTS = "./"  # where the instance is, seen from process.cwd
VERSION = "1"  # of this way of building: the cache has nothing of others
PASSED_ON = ("SGX_", "OCCLUM_")  # variables of containerd that tools get, beside PATH
_OCCLUM = (
    "Install Occlum, and set enclave_libos_path under [enclave_runtime.occlum] to its build/lib/libocclum-libos.so."
)
_SGX_SIGN = "Install Intel's SGX SDK, or set sgx_tool_sign to its bin/x64/sgx_sign."


def prepare(job: Job) -> dict[str, str]:
    """Put a signed Occlum instance into the working directory; with signature method "client" look for the image's."""
    if not job.settings.occlum_pal:
        raise EnclaveError(
            "the enclave runtime of Occlum would be the image's, liberpal-occlum.so, and rune loads the host's only",
            "Set enclave_runtime_path under [enclave_runtime.occlum] to Occlum's build/lib/libocclum-pal.so.",
        )
    _require_file(job.settings.occlum_pal, _OCCLUM)
    with rootfs.open_root(job.rootfs) as root:
        if job.settings.signature_method == "client":
            with job.step("the image's signed instance found"), rootfs.work_directory(job, root, make=False) as place:
                _require_instance(job, place)
        else:
            _make(job, root)
    return {
        "ENCLAVE_TYPE": "intelSgx",
        "ENCLAVE_RUNTIME_PATH": job.settings.occlum_pal,
        "ENCLAVE_RUNTIME_ARGS": ARGUMENTS,
    }


@dataclass(frozen=True, slots=True)
class _Tools:
    """What the host has of Occlum and Intel's SDK: paths, and a digest of all that decides what Occlum builds."""

    occlum: str
    sgx_sign: str
    digest: str

    def environment(self, job: Job, temporary: str) -> dict[str, str]:
        passed_on = {name: value for name, value in job.environment.items() if name.startswith(PASSED_ON)}
        places = [os.path.dirname(self.occlum), os.path.dirname(self.sgx_sign), job.environment.get("PATH", os.defpath)]
        own = {"PATH": ":".join(places), "HOME": temporary, "TMPDIR": temporary, "LC_ALL": "C.UTF-8"}
        return passed_on | own


def _make(job: Job, root: int) -> None:
    require_signer(job)
    configuration = occlum_json(job.arguments, job.variables)
    if b'"debuggable": false' in configuration and job.variables.get("OCCLUM_RELEASE_ENCLAVE") != "1":
        job.log.warning("OCCLUM_DEBUGGABLE is false and OCCLUM_RELEASE_ENCLAVE is not 1: the enclave will not start")
    used = _find_tools(job)
    signer = public_key(job)
    cache = Cache(job)
    with rootfs.work_directory(job, root) as place:
        own = tree.identity(place)
        without = None if own == tree.identity(root) else own
        with job.step("the image read"):
            image = tree.digest(root, without).sha256
        _tell_names(job, image, configuration, signer)
        of_instance = key("occlum", VERSION, image, used.digest, configuration.decode())

        def build(path: str) -> None:
            _build(job, used, path, configuration)
            with job.step("the image copied"):
                _with_directory(f"{path}/image", lambda target: tree.merge_image(root, target, without))
            _finish(job, used, path)

        with cache.held("the instance", of_instance, build) as instance:
            if signer is None:  # nobody will ask for it again
                signed = job.scratch()
                _sign(job, used, instance, signed, None)
                _place(job, place, instance, signed)
            else:
                of_signed = key("occlum-signed", of_instance, signer.decode())
                with cache.held(
                    "the signed enclave", of_signed, lambda path: _sign(job, used, instance, path, signer)
                ) as signed:
                    _place(job, place, instance, signed)


def _find_tools(job: Job) -> _Tools:
    libos = job.settings.occlum_libos
    _require_file(libos, _OCCLUM)
    tree_of_occlum = libos.removesuffix("/" + ENCLAVE)
    occlum = tools.find("occlum", job.environment, [f"{tree_of_occlum}/build/bin/occlum"], _OCCLUM)
    sgx_sign = job.settings.sgx_tool_sign
    is_default = sgx_sign == HostConfig.sgx_tool_sign
    sgx_sign = tools.find("sgx_sign", job.environment if is_default else {"PATH": ""}, [sgx_sign], _SGX_SIGN)
    whole = hashlib.sha256(_read(libos) + _read(occlum))
    for part in ("build", "etc"):
        for directory, names, files in os.walk(f"{tree_of_occlum}/{part}"):
            names.sort()
            for name in sorted(files):
                status = os.lstat(f"{directory}/{name}")
                whole.update(
                    f"{directory}/{name} {status.st_size} {status.st_mtime_ns}\0".encode(errors="surrogateescape")
                )
    return _Tools(occlum, sgx_sign, whole.hexdigest())


def _tell_names(job: Job, image: str, configuration: bytes, signer: bytes | None) -> None:
    name = instance_id(
        job.variables.get("IMAGE_DIGEST") or f"sha256:{image}", _read(job.settings.occlum_libos), configuration
    )
    job.log.info(f"carrier occlum: instance {name}{f', signed {signed_id(name, signer)}' if signer else ''}")


def _build(job: Job, used: _Tools, path: str, configuration: bytes) -> None:
    """Begin an instance in an empty directory."""
    with job.step("occlum init"):
        _run(job, used, [used.occlum, "init"], path)
    if not os.path.isdir(f"{path}/image"):
        raise EnclaveError(f"occlum init made no directory image: {used.occlum} is of a version that is not known")
    with open(f"{path}/Occlum.json", "wb") as file:
        file.write(configuration)


def _finish(job: Job, used: _Tools, path: str) -> None:
    """Build the instance, and leave out of it what it does not need to run."""
    with job.step("occlum build"):
        _run(job, used, [used.occlum, "build"], path)
    if not os.path.exists(f"{path}/{ENCLAVE}"):
        names = os.listdir(f"{path}/build/lib") if os.path.isdir(f"{path}/build/lib") else []
        found = sorted(name for name in names if name.startswith(os.path.basename(ENCLAVE)))
        if not found:
            raise EnclaveError(f"occlum build made no {ENCLAVE}", f"{used.occlum} is of a version that is not known.")
        os.symlink(found[0], f"{path}/{ENCLAVE}")
    if not os.path.isfile(f"{path}/{SIGNING_CONFIGURATION}"):
        raise EnclaveError(
            f"occlum build made no {SIGNING_CONFIGURATION}", f"{used.occlum} is of a version that is not known."
        )
    shutil.rmtree(f"{path}/image")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}/{SIGNED}")  # by a key that everybody has


def _sign(job: Job, used: _Tools, instance: str, signed: str, signer: bytes | None) -> None:
    """Write the signed enclave of an instance into the directory `signed`."""
    place = job.scratch()
    given = ["-enclave", f"{instance}/{ENCLAVE}", "-config", f"{instance}/{SIGNING_CONFIGURATION}"]
    material, key_file, signature_file = (f"{place}/{name}" for name in ("enclave_sig.dat", "public.pem", "signature"))
    with job.step("signing material"):
        _run(job, used, [used.sgx_sign, "gendata", *given, "-out", material], place)
    with job.step("the enclave signed"):
        signature, public = sign_material(job, _read(material), signer)
        for path, content in ((key_file, public), (signature_file, signature)):
            with open(path, "wb") as file:
                file.write(content)
        out = f"{signed}/{os.path.basename(SIGNED)}"
        words = ["-out", out, "-key", key_file, "-sig", signature_file, "-unsigned", material]
        _run(job, used, [used.sgx_sign, "catsig", *given, *words], place)
    if not os.path.isfile(out):
        raise EnclaveError(f"{used.sgx_sign} catsig wrote no signed enclave")


def _place(job: Job, place: int, instance: str, signed: str) -> None:
    with job.step("the instance put into the image"):
        _with_directory(instance, lambda source: tree.place(job, place, source))
        library = rootfs.open_in_root(place, os.path.dirname(SIGNED), os.O_RDONLY | os.O_DIRECTORY)
        try:
            _with_directory(signed, lambda source: tree.copy(source, library, rootfs.owner(place)))
        finally:
            os.close(library)


def _require_instance(job: Job, place: int) -> None:
    """Refuse an image without a signed instance where ENCLAVE_RUNTIME_ARGS says that one is."""
    annotations = job.configuration.get("annotations") or {}
    words = job.variables.get("ENCLAVE_RUNTIME_ARGS") or annotations.get("enclave.runtime.args") or ARGUMENTS
    path = os.path.join(words.replace(",", " ").split()[0], SIGNED)
    try:
        fd = rootfs.open_in_root(place, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise EnclaveError(
            f"the image holds no signed Occlum instance: {path} in process.cwd: {error.strerror}",
            'Put one into the image, or set signature_method = "server" under [enclave_runtime].',
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise EnclaveError(f"{path} in process.cwd is not a regular file")
    finally:
        os.close(fd)


def _run(job: Job, used: _Tools, words: list[str], directory: str) -> None:
    temporary = job.scratch()
    said = tools.run(words, directory, used.environment(job, temporary))
    job.log.debug(f"carrier occlum: {os.path.basename(words[0])} {words[1]} said: {said}")


def _with_directory(path: str, act: Callable[[int], object]) -> None:
    with rootfs.open_root(path) as fd:
        act(fd)


def _require_file(path: str, hint: str) -> None:
    if not os.path.isfile(path):
        raise HostError(f"Occlum is not on this host: {path} is missing", hint)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
