"""The limits of rarer devices: block devices, networks, huge pages, RDMA.

runtime-spec: config-linux.md "Control groups". Read only where a configuration has them.
"""

from __future__ import annotations

from inclavare.oci.reader import UINT64_MAX, Members, show

UINT16_MAX = (1 << 16) - 1
UINT32_MAX = (1 << 32) - 1


class DeviceValue:
    """A value for one block device: a rate per second, or a weight. `leaf_weight` is of weights only."""

    __slots__ = ("leaf_weight", "major", "minor", "value")

    def __init__(self, members: Members, name: str, most: int) -> None:
        self.major: int = members.need_number("major", 0, UINT32_MAX)
        self.minor: int = members.need_number("minor", 0, UINT32_MAX)
        self.value: int | None = members.number(name, 0, most)
        self.leaf_weight: int | None = members.number("leafWeight", 0, UINT16_MAX) if name == "weight" else None
        members.end()


class BlockIO:
    """Weights (10 to 1000) and rates (bytes or operations per second) of block devices."""

    __slots__ = ("leaf_weight", "read_bps", "read_iops", "weight", "weights", "write_bps", "write_iops")

    def __init__(self, members: Members) -> None:
        self.weight: int | None = members.number("weight", 0, UINT16_MAX)
        self.leaf_weight: int | None = members.number("leafWeight", 0, UINT16_MAX)
        self.weights = [DeviceValue(child, "weight", UINT16_MAX) for child in members.children("weightDevice")]
        self.read_bps = _rates(members, "throttleReadBpsDevice")
        self.write_bps = _rates(members, "throttleWriteBpsDevice")
        self.read_iops = _rates(members, "throttleReadIOPSDevice")
        self.write_iops = _rates(members, "throttleWriteIOPSDevice")
        members.end()


class Network:
    """The class of packets, and the priority by interface."""

    __slots__ = ("class_id", "priorities")

    def __init__(self, members: Members) -> None:
        self.class_id: int | None = members.number("classID", 0, UINT32_MAX)
        self.priorities: list[tuple[str, int]] = []
        for child in members.children("priorities"):
            self.priorities.append((child.need_text("name"), child.need_number("priority", 0, UINT32_MAX)))
            child.end()
        members.end()


def hugepage_limits(members: Members) -> list[tuple[str, int]]:
    """Read `hugepageLimits`: (page size as in "2MB", bytes)."""
    limits = []
    for child in members.children("hugepageLimits"):
        size = child.need_text("pageSize")
        if not size[:-2].isdecimal() or size[-2:] not in ("KB", "MB", "GB"):
            raise child.error("pageSize", f'{show(size)} is not a size such as "2MB"')
        limits.append((size, child.need_number("limit", 0, UINT64_MAX)))
        child.end()
    return limits


def rdma_limits(members: Members) -> list[tuple[str, int | None, int | None]]:
    """Read `rdma`: (device, handles, objects); None is not limited."""
    limits = []
    devices = members.child("rdma")
    for name in devices.names():
        device = devices.child(name)
        limits.append((name, device.number("hcaHandles", 0, UINT32_MAX), device.number("hcaObjects", 0, UINT32_MAX)))
        device.end()
    devices.end()
    return limits


def _rates(members: Members, name: str) -> list[DeviceValue]:
    return [DeviceValue(child, "rate", UINT64_MAX) for child in members.children(name)]
