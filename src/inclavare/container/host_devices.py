"""What devices of a container with a user namespace can be: made for it, or the host's nodes, bound."""

from __future__ import annotations

import os
import stat

from inclavare.container.facts import has_own_dev
from inclavare.errors import SpecError
from inclavare.linux.files import read_file

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.spec import Spec

CAP_MKNOD = 27
EVERYBODY = [b"0", b"0", b"4294967295"]  # the mapping of the first user namespace
TYPES = {"c": stat.S_ISCHR, "u": stat.S_ISCHR, "b": stat.S_ISBLK}


def decide(spec: Spec, *, enclave: bool) -> bool:
    """Tell whether the container's devices are made for it. Raises SpecError where only the host's nodes can be."""
    # The runelet is a program of its own: what the executor has opened does not reach it.
    makes = not enclave and _can_make(spec)
    if not makes and has_own_dev(spec):
        check_bound(spec)
    return makes


def _can_make(spec: Spec) -> bool:
    """Tell whether nodes can be made before the container's user namespace is. One that exists keeps its mapping."""
    user = spec.linux.namespace("user")
    if user is None or user.path or os.geteuid() or read_file("/proc/self/uid_map").split() != EVERYBODY:
        return False
    for line in read_file("/proc/self/status").splitlines():
        if line.startswith(b"CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_MKNOD & 1)
    return False


def check_bound(spec: Spec) -> None:
    """Raise SpecError for a device whose node the host has not: only the host's nodes can be bound."""
    for index, device in enumerate(spec.linux.devices):
        if device.type == "p":
            continue
        try:
            found = os.stat(device.path)
        except OSError as error:
            raise _impossible(index, f"the host's {device.path} cannot be had: {error.strerror}") from error
        number = os.makedev(device.major, device.minor)
        if not TYPES[device.type](found.st_mode) or found.st_rdev != number:
            wanted = f"{device.type} {device.major}:{device.minor}"
            raise _impossible(index, f"the host's {device.path} is another than {wanted}")


def _impossible(index: int, found: str) -> SpecError:
    return SpecError(
        f"linux.devices[{index}]",
        f"in this user namespace only devices of the host can be bound, and {found}",
        "name a device by its path on the host, or run as the host's root with CAP_MKNOD and a new user namespace",
    )
