"""Which kernel parameters a container may set, and where their files are.

A parameter is allowed when it belongs to a namespace that is the container's own; any other would change the host. The
rules are runc's. runtime-spec: config-linux.md "Sysctl". Hot path.
"""

from __future__ import annotations

from inclavare.errors import SpecError
from inclavare.oci.reader import join_path, show
from inclavare.oci.spec import Spec

_OF_IPC = (
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
)


def sysctl_file(name: str) -> str:
    """Return the file of parameter `name`, below /proc/sys: `net/ipv4/conf/eth0.1/forwarding`.

    As sysctl(8), takes names that separate with dots or with slashes; the first separator tells which, and the other
    one is then part of a name. Raises SpecError when the name could lead out of its directory.
    """
    dot, slash = name.find("."), name.find("/")
    with_slashes = slash >= 0 and not 0 <= dot < slash
    parts = name.split("/") if with_slashes else [part.replace("/", ".") for part in name.split(".")]
    for part in parts:
        if part in ("", ".", ".."):
            raise SpecError(join_path("linux.sysctl", name), "is not the name of a kernel parameter")
    return "/".join(parts)


def check_sysctls(spec: Spec, *, host_network: bool) -> None:
    """Raise SpecError for the first parameter of `spec` that is not the container's own.

    `host_network` tells that the network namespace which the container joins is the host's.
    """
    linux = spec.linux
    for name in linux.sysctl:
        path = join_path("linux.sysctl", name)
        parts = sysctl_file(name).split("/")
        dotted = ".".join(parts)
        if parts[:2] == ["fs", "mqueue"] or dotted in _OF_IPC:
            if linux.namespace("ipc") is None:
                raise SpecError(path, f"sysctl {show(name)} is not allowed in the host's ipc namespace")
        elif parts[0] == "net":
            if host_network or linux.namespace("network") is None:
                raise SpecError(path, f"sysctl {show(name)} is not allowed in the host's network namespace")
        elif dotted == "kernel.hostname" and linux.namespace("uts") is not None:
            if spec.hostname and spec.hostname == linux.sysctl[name]:
                continue
            raise SpecError(path, f'sysctl {show(name)} conflicts with the field "hostname"', "set hostname instead")
        elif dotted == "kernel.domainname" and linux.namespace("uts") is not None:
            if spec.domainname not in (None, linux.sysctl[name]):
                raise SpecError(path, f'sysctl {show(name)} conflicts with the field "domainname"')
        else:
            raise SpecError(path, f"sysctl {show(name)} is not in a separate kernel namespace")
