"""Limits of block devices, networks, huge pages and RDMA, real-time scheduling and `unified`, as cgroup settings. Pure.

Like cgroup_limits, for configurations that have them. Where kernels differ in a file's name, the setting names both,
joined by "|", and so its value: the first file that is there is written.
"""

from __future__ import annotations

from inclavare.errors import SpecError

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.linux.cgroup_limits import Setting
    from inclavare.oci.device_limits import BlockIO
    from inclavare.oci.resources import Resources


def v1_settings(resources: Resources) -> list[Setting]:
    """Give the settings for cgroup v1. Raises SpecError for what only v2 has."""
    if resources.unified:
        raise SpecError("linux.resources.unified", "is for cgroup v2, and this host has v1")
    cpu, network = resources.cpu, resources.network
    settings: list[Setting] = []
    # The runtime must fit into the period at every moment: the larger period goes first.
    for value, file in ((cpu.realtime_period, "cpu.rt_period_us"), (cpu.realtime_runtime, "cpu.rt_runtime_us")):
        if value:
            settings.append(("cpu", file, str(value)))
    if resources.block_io is not None:
        settings += _v1_block_io(resources.block_io)
    settings += [("hugetlb", f"hugetlb.{size}.limit_in_bytes", str(limit)) for size, limit in resources.hugepages]
    if network is not None:
        if network.class_id:
            settings.append(("net_cls", "net_cls.classid", str(network.class_id)))
        settings += [("net_prio", "net_prio.ifpriomap", f"{name} {value}") for name, value in network.priorities]
    return settings + _rdma(resources)


def v2_settings(resources: Resources) -> list[Setting]:
    """Give the settings for cgroup v2. Raises SpecError for what only v1 has, and for odd names in `unified`."""
    cpu, network = resources.cpu, resources.network
    if cpu.realtime_period or cpu.realtime_runtime:
        raise SpecError("linux.resources.cpu.realtimeRuntime", "cgroup v2 does not share out real-time scheduling")
    if network is not None and (network.class_id or network.priorities):
        raise SpecError("linux.resources.network", "cgroup v2 has no classes and priorities of packets")
    settings: list[Setting] = []
    if resources.block_io is not None:
        settings += _v2_block_io(resources.block_io)
    settings += [("hugetlb", f"hugetlb.{size}.max", str(limit)) for size, limit in resources.hugepages]
    settings += _rdma(resources)
    for file, value in resources.unified.items():
        controller, point, rest = file.partition(".")
        if "/" in file or not controller or not (point and rest):
            raise SpecError(f"linux.resources.unified.{file}", "is not the name of a cgroup v2 file")
        settings += [(controller, file, line) for line in value.splitlines() or [""]]
    return settings


def _v1_block_io(limits: BlockIO) -> list[Setting]:
    settings = []
    if limits.weight:
        settings.append(("blkio", "blkio.weight|blkio.bfq.weight", f"{limits.weight}|{limits.weight}"))
    if limits.leaf_weight:
        settings.append(("blkio", "blkio.leaf_weight", str(limits.leaf_weight)))
    for one in limits.weights:
        device = f"{one.major}:{one.minor}"
        if one.value:
            text = f"{device} {one.value}"
            settings.append(("blkio", "blkio.weight_device|blkio.bfq.weight_device", f"{text}|{text}"))
        if one.leaf_weight:
            settings.append(("blkio", "blkio.leaf_weight_device", f"{device} {one.leaf_weight}"))
    for rates, file in (
        (limits.read_bps, "read_bps"),
        (limits.write_bps, "write_bps"),
        (limits.read_iops, "read_iops"),
        (limits.write_iops, "write_iops"),
    ):
        name = f"blkio.throttle.{file}_device"
        settings += [("blkio", name, f"{one.major}:{one.minor} {one.value or 0}") for one in rates]
    return settings


def _v2_block_io(limits: BlockIO) -> list[Setting]:
    settings = []
    if limits.leaf_weight:
        raise SpecError("linux.resources.blockIO.leafWeight", "cgroup v2 has no weight of leaves")
    if limits.weight:
        settings.append(("io", "io.bfq.weight|io.weight", f"{limits.weight}|default {io_weight(limits.weight)}"))
    for one in limits.weights:
        if one.value:
            device = f"{one.major}:{one.minor}"
            value = f"{device} {one.value}|{device} {io_weight(one.value)}"
            settings.append(("io", "io.bfq.weight|io.weight", value))
    for rates, name in (
        (limits.read_bps, "rbps"),
        (limits.write_bps, "wbps"),
        (limits.read_iops, "riops"),
        (limits.write_iops, "wiops"),
    ):
        settings += [("io", "io.max", f"{one.major}:{one.minor} {name}={one.value or 'max'}") for one in rates]
    return settings


def io_weight(weight: int) -> int:
    """Map v1's 10 to 1000 to v2's 1 to 10000, as engines expect it."""
    return 1 + (min(max(weight, 10), 1000) - 10) * 9999 // 990


def _rdma(resources: Resources) -> list[Setting]:
    settings = []
    for device, handles, objects in resources.rdma:
        words = [device]
        words += [f"hca_handle={handles}"] if handles is not None else []
        words += [f"hca_object={objects}"] if objects is not None else []
        settings.append(("rdma", "rdma.max", " ".join(words)))
    return settings
