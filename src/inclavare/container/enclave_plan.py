"""Makes an enclave container of a configuration: where the enclave runs, what the runelet is told, what is added.

Emulation is used only when it was asked for: on the command line, in the environment, or by the host's administrator.
"""

from __future__ import annotations

import os

from inclavare import installed
from inclavare.container.facts import is_bind
from inclavare.container.planner import Enclave
from inclavare.enclave import config, hostconfig, implicit, trust
from inclavare.errors import EnclaveError, HostError
from inclavare.oci.linux import Device
from inclavare.oci.reader import Members
from inclavare.oci.resources import DeviceRule
from inclavare.oci.spec import Mount

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.log import Log
    from inclavare.oci.spec import Spec

SEED_PATH = "/var/lib/inclavare/platform/seed"
SEED_SIZE = 32


class Prepared:
    """An enclave container's part of the preparation. `platform` is "hardware" or "emulated"."""

    __slots__ = ("_config", "_pal", "init_timeout_s", "platform")

    def __init__(self, config_: config.EnclaveConfig, pal: str, platform: str, timeout_s: int) -> None:
        self._config = config_
        self._pal = pal
        self.platform = platform
        self.init_timeout_s = float(timeout_s) if timeout_s else None

    @property
    def state(self) -> dict[str, object]:
        """The `enclave_config` of state.json."""
        return self._config.state()

    def request(self) -> Enclave:
        """Give what the planner needs, without fds."""
        enclave = Enclave()
        enclave.pal = self._pal
        enclave.args = self._config.args
        enclave.log_level = self._config.log_level
        enclave.preload = list(implicit.PRELOAD)
        enclave.signals = list(implicit.FORWARDED_SIGNALS)
        names = {os.path.basename(path) for path in (self._pal, self._config.path)}
        enclave.wait_status = not names.isdisjoint(implicit.WAIT_STATUS_LIBRARIES)
        if self.platform == "emulated":
            enclave.emulator = _emulator()
            enclave.seed = _seed()
        return enclave


def prepare(document: Spec, bundle: str, requested: str, log: Log) -> Prepared | None:
    """Read the enclave configuration of a spec and change the spec accordingly; None for a plain container.

    `requested` is the platform of the command line or the environment, "" for the administrator's choice. Raises
    EnclaveError for what is missing or not allowed.
    """
    found, env = config.read(document.process.env, document.annotations)
    if found is None:
        return None
    host = hostconfig.read()
    devices = implicit.sgx_devices(provision=host.provision)
    platform = config.choose_platform(requested or host.platform, has_sgx=bool(devices))
    pal = _find_runtime(document, bundle, found.path)
    document.process.env = env
    if platform == "hardware":
        _add_devices(document, devices)
        _add_aesm(document)
    if platform == "emulated":
        log.info("this enclave runs on the software SGX platform, which protects nothing")
    log.debug(f"enclave container: runtime {pal}, arguments {found.args!r}, SGX platform {platform}")
    return Prepared(found, pal, platform, host.init_timeout_s)


def _find_runtime(document: Spec, bundle: str, path: str) -> str:
    """Give the real path of the runtime. An image may have chosen `path`, so what it leads to must be the host's own.

    Links are followed here and now: /proc/self/cwd, for one, means another directory to who loads the runtime.
    """
    try:
        pal = os.path.realpath(os.path.join(bundle, path), strict=True)
        status = os.stat(pal)
    except OSError as error:
        raise EnclaveError(
            f"stat {path}: {(error.strerror or '').lower()}",
            "ENCLAVE_RUNTIME_PATH (enclave.runtime.path) is a path of the host, not of the image.",
        ) from error
    writable = [document.root.path] + [
        mount.source
        for mount in document.mounts
        if mount.source and is_bind(mount.type, mount.options) and "ro" not in mount.options
    ]
    trust.require_trusted(pal, status)
    trust.require_trusted_place(pal, [os.path.realpath(os.path.join(bundle, source)) for source in writable])
    return pal


def _add_devices(document: Spec, devices: list[implicit.HostDevice]) -> None:
    listed = {device.path for device in document.linux.devices}
    for device in devices:
        number = {"type": "c", "major": implicit.MISC_MAJOR, "minor": device.minor}
        if device.path not in listed:
            members = {**number, "path": device.path, "fileMode": device.mode, "uid": 0, "gid": 0}
            document.linux.devices.append(Device(Members(members)))
        document.linux.resources.devices.append(DeviceRule(Members({**number, "allow": True, "access": "rwm"})))


def _add_aesm(document: Spec) -> None:
    destinations = [mount.destination for mount in document.mounts]
    if implicit.wants_aesm_mount(destinations, has_aesm=os.path.isdir(implicit.AESM_DIRECTORY)):
        members = {
            "destination": implicit.AESM_DIRECTORY,
            "source": implicit.AESM_DIRECTORY,
            "type": "bind",
            "options": ["rbind", "rprivate"],
        }
        document.mounts.append(Mount(Members(members)))


def _emulator() -> str:
    path = installed("_native/libsgxemu.so")
    if not os.path.exists(path):
        raise HostError(f"the software platform is not installed: {path} is missing", "Run `make`, or install again.")
    return path


def _seed() -> bytes:
    """Give the platform's seed; a host without one gets a seed for this container only (ADR 4)."""
    try:
        with open(SEED_PATH, "rb", buffering=0) as file:
            seed = file.read(SEED_SIZE + 1)
    except FileNotFoundError:
        return os.urandom(SEED_SIZE)
    if len(seed) != SEED_SIZE:
        raise EnclaveError(f"{SEED_PATH} holds {len(seed)} bytes, not {SEED_SIZE}: the software platform is damaged")
    return seed
