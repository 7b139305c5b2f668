"""What the planner must know of the host, as one value.

`probe` does the reading; everything behind it is pure. Hot path.
"""

from __future__ import annotations

import os
import stat

from inclavare.errors import HostError, SpecError
from inclavare.linux.files import read_file

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.process import Process
    from inclavare.oci.spec import Spec


NULL_DEVICE = 1 << 8 | 3


class Facts:
    """The host as one plan sees it.

    `sources` maps the source of each bind mount to "is a directory". `last_cap` is the highest capability the kernel
    knows. `stdio` holds (is /dev/null, owner's uid, is a device) of fds 0 to 2, None for a closed one. `mounts` holds
    (mount point, type) of the host's mounts, read only for a root that is entered in an unusual way. `makes_devices`
    tells of a container with a user namespace that its devices are made for it and not the host's.
    """

    __slots__ = ("last_cap", "makes_devices", "mounts", "sources", "stdio")

    def __init__(self, sources: dict[str, bool], last_cap: int, stdio: list[tuple[bool, int, bool] | None]) -> None:
        self.sources = sources
        self.last_cap = last_cap
        self.stdio = stdio
        self.mounts: list[tuple[str, str]] = []
        self.makes_devices = False


def probe(spec: Spec, bundle: str, *, enclave: bool) -> Facts:
    """Read what this spec's plan needs. Raises SpecError for a bind mount without source, HostError for an odd host."""
    if spec.linux.mount_label:
        from inclavare.linux import labels  # noqa: PLC0415  # only on hosts with such a module

        labels.check_mounts(spec.linux.mount_label)
    sources: dict[str, bool] = {}
    for index, mount in enumerate(spec.mounts):
        if is_bind(mount.type, mount.options):
            source = source_path(mount.source, bundle)
            try:
                sources[source] = stat.S_ISDIR(os.stat(source).st_mode)
            except OSError as error:
                raise SpecError(
                    f"mounts[{index}].source", f"cannot bind {source} to {mount.destination}: {error.strerror}"
                ) from error
    null = os.stat("/dev/null")
    if not stat.S_ISCHR(null.st_mode) or null.st_rdev != NULL_DEVICE:
        raise HostError("/dev/null of the host is not the null device", "Make it again: mknod -m 666 /dev/null c 1 3")
    found = Facts(sources, read_last_cap(), [read_stdio(fd) for fd in range(3)])
    if spec.linux.namespace("user") is not None:
        from inclavare.container import host_devices  # noqa: PLC0415  # only with a user namespace

        found.makes_devices = host_devices.decide(spec, enclave=enclave)
    return found


def check_labels(process: Process, prefix: str, *, enclave: bool) -> None:
    """Raise SpecError for a process with a label that this host cannot give."""
    if process.apparmor_profile or process.selinux_label:
        from inclavare.linux import labels  # noqa: PLC0415  # only on hosts with such a module

        labels.check(process, prefix, enclave=enclave)


def read_last_cap() -> int:
    """Give the highest capability that the kernel knows."""
    return int(read_file("/proc/sys/kernel/cap_last_cap"))


def is_bind(kind: str | None, options: list[str]) -> bool:
    """Tell whether a mount of the spec is a bind mount."""
    return kind == "bind" or "bind" in options or "rbind" in options


def has_own_dev(spec: Spec) -> bool:
    """Tell whether /dev is ours to fill: not when the host's is bound there."""
    return not any(
        os.path.normpath(mount.destination) == "/dev" and is_bind(mount.type, mount.options) for mount in spec.mounts
    )


def source_path(source: str | None, bundle: str) -> str:
    """Give the absolute path of a bind mount's source; relative ones begin at the bundle."""
    return os.path.normpath(os.path.join(bundle, source or ""))


def read_stdio(fd: int) -> tuple[bool, int, bool] | None:
    """Tell of an fd whether it is /dev/null, whose it is, and whether it is a device; None when it is closed."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    device = stat.S_ISCHR(status.st_mode)
    return device and status.st_rdev == NULL_DEVICE, status.st_uid, device
