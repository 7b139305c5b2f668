"""What an enclave container is given without asking: the SGX devices and the AESM socket of the host. Hot path."""

from __future__ import annotations

import os
import stat

MISC_MAJOR = 10
ENCLAVE_DEVICES = ("/dev/sgx_enclave", "/dev/sgx/enclave", "/dev/isgx", "/dev/gsgx")
PROVISION_DEVICES = ("/dev/sgx_provision", "/dev/sgx/provision")
AESM_DIRECTORY = "/var/run/aesmd"

# Forwarded to the enclave as pal_kill(-1, signal): what a user or an engine sends. Not the runelet's own affairs
# (children, pipes, windows, faults) and what cannot be caught.
FORWARDED_SIGNALS = (1, 2, 3, 10, 12, 14, 15, 18, 30, *range(34, 65))

# Runtimes whose exit values are wait(2) statuses, by the name of their library.
WAIT_STATUS_LIBRARIES = ("libocclum-pal.so", "liberpal-occlum.so")

# Intel's platform software loads more of itself on demand, which would be looked for inside the container.
PRELOAD = (
    "libsgx_launch.so.1",
    "libsgx_epid.so.1",
    "libdcap_quoteprov.so.1",
    "libsgx_default_qcnl_wrapper.so.1",
    "libsgx_urts.so.1",
)


class HostDevice:
    """A device node of the host."""

    __slots__ = ("minor", "mode", "path")

    def __init__(self, path: str, minor: int, mode: int) -> None:
        self.path = path
        self.minor = minor
        self.mode = mode


def sgx_devices(*, provision: bool, root: str = "") -> list[HostDevice]:
    """Give the SGX devices of the host (whose files are below `root`): none when it cannot run enclaves.

    That a driver made a node for enclaves says that the processor has SGX and the firmware allows it, which CPUID alone
    does not. A link is followed, and the device keeps the link's name. `provision` adds the devices for the key with
    which an enclave recognises the machine: nobody gets them unasked.
    """
    enclave = _character_devices(root, ENCLAVE_DEVICES)
    return enclave + _character_devices(root, PROVISION_DEVICES) if enclave and provision else enclave


def _character_devices(root: str, paths: tuple[str, ...]) -> list[HostDevice]:
    found = []
    for path in paths:
        try:
            status = os.stat(root + path)
        except OSError:
            continue
        if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == MISC_MAJOR:
            found.append(HostDevice(path, os.minor(status.st_rdev), stat.S_IMODE(status.st_mode)))
    return found


def wants_aesm_mount(destinations: list[str], *, has_aesm: bool) -> bool:
    """Tell whether the AESM directory is to be mounted: the host has it, and the container has nothing there."""
    taken = {destination.rstrip("/").lower() for destination in destinations}
    return has_aesm and not taken & {"/var/run/aesmd", "/run/aesmd"}
