"""The `linux` object of a runtime-spec configuration, except cgroup limits and seccomp.

runtime-spec: config-linux.md. Values are made from their JSON members and named as the specification names them, in
snake case. Hot path.
"""

from __future__ import annotations

from inclavare.oci.process import ID_MAX
from inclavare.oci.reader import UINT32_MAX, Members
from inclavare.oci.resources import Resources
from inclavare.oci.seccomp import Seccomp

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.memory_policy import MemoryPolicy
    from inclavare.oci.time_offsets import TimeOffset

NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
DOMAINS = ("LINUX", "LINUX32")
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable")

# Linux dev_t: 12 bits of major and 20 bits of minor. More would silently name another device.
MAJOR_MAX = (1 << 12) - 1
MINOR_MAX = (1 << 20) - 1


class Namespace:
    """A namespace to create, or to join when `path` is given; `type` is a name out of NAMESPACES."""

    __slots__ = ("path", "type")

    def __init__(self, members: Members) -> None:
        self.type: str = members.need_choice("type", NAMESPACES)
        self.path: str | None = members.absolute_path("path")
        members.end()


class IDMapping:
    """`size` ids from `container_id` on inside are the ids from `host_id` on outside."""

    __slots__ = ("container_id", "host_id", "size")

    def __init__(self, members: Members) -> None:
        self.container_id: int = members.need_number("containerID", 0, ID_MAX)
        self.host_id: int = members.need_number("hostID", 0, ID_MAX)
        self.size: int = members.need_number("size", 1, UINT32_MAX)
        for name, start in (("containerID", self.container_id), ("hostID", self.host_id)):
            if start + self.size > UINT32_MAX:
                raise members.error("size", f"{self.size} ids from {name} {start} on go beyond the last id {ID_MAX}")
        members.end()


class Device:
    """A device node to make; `type` is `c`, `b`, `u` or `p`.

    `file_mode` holds permission bits only. `major` and `minor` are 0 for a FIFO (`p`).
    """

    __slots__ = ("file_mode", "gid", "major", "minor", "path", "type", "uid")

    def __init__(self, members: Members) -> None:
        self.path: str = members.need_absolute_path("path")
        self.type: str = members.need_choice("type", ("c", "b", "u", "p"))
        number = members.number if self.type == "p" else members.need_number
        self.major: int = number("major", 0, MAJOR_MAX) or 0
        self.minor: int = number("minor", 0, MINOR_MAX) or 0
        file_mode = members.number("fileMode", 0, UINT32_MAX)
        # Some engines leave the bits of the file's type in.
        self.file_mode: int | None = None if file_mode is None else file_mode & 0o7777
        self.uid: int | None = members.number("uid", 0, ID_MAX)
        self.gid: int | None = members.number("gid", 0, ID_MAX)
        members.end()


class Linux:
    """What is particular to Linux.

    `rootfs_propagation` is a name out of PROPAGATIONS, `personality` one out of DOMAINS. `intel_rdt` and
    `net_devices` are raw JSON.
    """

    __slots__ = (
        "cgroups_path",
        "devices",
        "gid_mappings",
        "intel_rdt",
        "masked_paths",
        "memory_policy",
        "mount_label",
        "namespaces",
        "net_devices",
        "personality",
        "readonly_paths",
        "resources",
        "rootfs_propagation",
        "seccomp",
        "sysctl",
        "time_offsets",
        "uid_mappings",
    )

    def __init__(self, members: Members) -> None:
        self.namespaces: list[Namespace] = _namespaces(members)
        self.uid_mappings: list[IDMapping] = [IDMapping(child) for child in members.children("uidMappings")]
        self.gid_mappings: list[IDMapping] = [IDMapping(child) for child in members.children("gidMappings")]
        self.devices: list[Device] = [Device(child) for child in members.children("devices")]
        self.cgroups_path: str | None = members.text("cgroupsPath")
        self.resources: Resources = Resources(members.child("resources"))
        self.rootfs_propagation: str | None = members.choice("rootfsPropagation", PROPAGATIONS)
        # An empty object is how some engines write "no filter".
        seccomp = members.optional_child("seccomp")
        self.seccomp: Seccomp | None = None if seccomp is None or seccomp.is_empty() else Seccomp(seccomp)
        self.sysctl: dict[str, str] = members.mapping("sysctl")
        self.masked_paths: list[str] = members.absolute_paths("maskedPaths")
        self.readonly_paths: list[str] = members.absolute_paths("readonlyPaths")
        self.mount_label: str | None = members.text("mountLabel")
        self.intel_rdt: dict[str, object] | None = members.raw_object("intelRdt")
        self.memory_policy: MemoryPolicy | None = _memory_policy(members)
        self.net_devices: dict[str, object] | None = members.raw_object("netDevices")
        self.personality: str | None = _personality(members)
        self.time_offsets: list[TimeOffset] = _time_offsets(members)
        members.end()

    def namespace(self, kind: str) -> Namespace | None:
        """Return the namespace of type `kind`, or None when the container shares the caller's."""
        for namespace in self.namespaces:
            if namespace.type == kind:
                return namespace
        return None


def _personality(members: Members) -> str | None:
    child = members.optional_child("personality")
    if child is None:
        return None
    domain = child.need_choice("domain", DOMAINS)
    if child.texts("flags"):
        raise child.error("flags", "the runtime-spec has no flags yet")
    child.end()
    return domain


def _memory_policy(members: Members) -> MemoryPolicy | None:
    child = members.optional_child("memoryPolicy")
    if child is None:
        return None
    from inclavare.oci.memory_policy import MemoryPolicy  # noqa: PLC0415  # few containers have one

    return MemoryPolicy(child)


def _time_offsets(members: Members) -> list[TimeOffset]:
    child = members.optional_child("timeOffsets")
    if child is None:
        return []
    from inclavare.oci import time_offsets  # noqa: PLC0415  # few containers have them

    return time_offsets.parse(child)


def _namespaces(members: Members) -> list[Namespace]:
    namespaces: list[Namespace] = []
    seen: list[str] = []
    for index, child in enumerate(members.children("namespaces")):
        namespace = Namespace(child)
        if namespace.type in seen:
            raise members.error("namespaces", f'duplicated namespace "{namespace.type}"', index)
        seen.append(namespace.type)
        namespaces.append(namespace)
    return namespaces
