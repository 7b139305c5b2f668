"""The cgroup limits of a runtime-spec configuration, and of `update --resources FILE`.

runtime-spec: config-linux.md "Control groups". Limits that are None are not to be touched; -1 is "no limit" for memory,
cpu quota and pids. Engines also write 0 for a limit of memory or cpu that they never set; it is kept here. Hot path.
"""

from __future__ import annotations

from inclavare.oci.reader import INT64_MAX, INT64_MIN, UINT64_MAX, Members, show

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.device_limits import BlockIO, Network

_ALL_DEVICES = -1  # what engines write for a major or minor of `*`


class Memory:
    """Limits in bytes. `kernel` and `kernel_tcp` come with a warning: kernels since 5.4 no longer have them."""

    __slots__ = (
        "check_before_update",
        "disable_oom_killer",
        "kernel",
        "kernel_tcp",
        "limit",
        "reservation",
        "swap",
        "swappiness",
        "use_hierarchy",
    )

    def __init__(self, members: Members) -> None:
        self.limit: int | None = members.number("limit", -1, INT64_MAX)
        self.reservation: int | None = members.number("reservation", -1, INT64_MAX)
        self.swap: int | None = members.number("swap", -1, INT64_MAX)
        self.kernel: int | None = members.number("kernel", -1, INT64_MAX)
        self.kernel_tcp: int | None = members.number("kernelTCP", -1, INT64_MAX)
        self.swappiness: int | None = _swappiness(members)
        self.disable_oom_killer: bool | None = members.optional_flag("disableOOMKiller")
        self.use_hierarchy: bool | None = members.optional_flag("useHierarchy")
        self.check_before_update: bool | None = members.optional_flag("checkBeforeUpdate")
        for name, value in (("kernel", self.kernel), ("kernelTCP", self.kernel_tcp)):
            if value:
                members.warn(name, "is ignored, since kernels no longer limit kernel memory on its own")
        members.end()


class CPU:
    """Times in microseconds; `cpus` and `mems` are lists such as `0-3,7`."""

    __slots__ = (
        "burst",
        "cpus",
        "idle",
        "mems",
        "period",
        "quota",
        "realtime_period",
        "realtime_runtime",
        "shares",
    )

    def __init__(self, members: Members) -> None:
        self.shares: int | None = members.number("shares", 0, UINT64_MAX)
        self.quota: int | None = members.number("quota", INT64_MIN, INT64_MAX)
        self.burst: int | None = members.number("burst", 0, UINT64_MAX)
        self.period: int | None = members.number("period", 0, UINT64_MAX)
        self.realtime_runtime: int | None = members.number("realtimeRuntime", INT64_MIN, INT64_MAX)
        self.realtime_period: int | None = members.number("realtimePeriod", 0, UINT64_MAX)
        self.cpus: str | None = _number_list(members, "cpus")
        self.mems: str | None = _number_list(members, "mems")
        self.idle: int | None = members.number("idle", 0, 1)
        members.end()


class Pids:
    """Limit of the number of tasks."""

    __slots__ = ("limit",)

    def __init__(self, members: Members) -> None:
        self.limit: int | None = members.number("limit", -1, INT64_MAX)
        members.end()


class DeviceRule:
    """One entry of the allowed device list, to be applied in order.

    `type` is `a` (all), `b` or `c`; `major` and `minor` are None for all; `access` is made of `r`, `w` and `m`.
    """

    __slots__ = ("access", "allow", "major", "minor", "type")

    def __init__(self, members: Members) -> None:
        allow = members.optional_flag("allow")
        if allow is None:
            raise members.error("allow", "is required")
        self.allow: bool = allow
        self.type: str = members.choice("type", ("a", "b", "c")) or "a"
        self.major: int | None = _device_number(members, "major")
        self.minor: int | None = _device_number(members, "minor")
        self.access: str = members.need_text("access")
        if self.access.strip("rwm"):
            raise members.error("access", f"{show(self.access)} is not made of r, w and m")
        members.end()


class Resources:
    """All cgroup limits.

    `has_rare` tells whether there are limits that linux/device_limits.py makes settings of. `hugepages` and `rdma` are
    as oci/device_limits.py reads them. `unknown` and `warnings` are those of the whole document (see Members).
    """

    __slots__ = (
        "block_io",
        "cpu",
        "devices",
        "has_rare",
        "hugepages",
        "memory",
        "network",
        "pids",
        "rdma",
        "unified",
        "unknown",
        "warnings",
    )

    def __init__(self, members: Members) -> None:
        self.devices: list[DeviceRule] = [DeviceRule(child) for child in members.children("devices")]
        self.memory: Memory = Memory(members.child("memory"))
        self.cpu: CPU = CPU(members.child("cpu"))
        self.pids: Pids = Pids(members.child("pids"))
        self.unified: dict[str, str] = members.mapping("unified")
        self.block_io: BlockIO | None = None
        self.network: Network | None = None
        self.rdma: list[tuple[str, int | None, int | None]] = []
        self.hugepages: list[tuple[str, int]] = []
        self.has_rare = bool(self.unified or self.cpu.realtime_runtime or self.cpu.realtime_period)
        self._read_rare(members)
        self.unknown: list[str] = members.unknown
        self.warnings: list[str] = members.warnings
        members.end()

    def _read_rare(self, members: Members) -> None:
        found = [name for name in ("blockIO", "network", "rdma", "hugepageLimits") if members.has(name)]
        if found:
            from inclavare.oci import device_limits  # noqa: PLC0415  # few containers have them

            self.has_rare = True
            self.block_io = device_limits.BlockIO(members.child("blockIO"))
            self.network = device_limits.Network(members.child("network"))
            self.hugepages = device_limits.hugepage_limits(members)
            self.rdma = device_limits.rdma_limits(members)
        else:
            for name in ("blockIO", "network", "rdma"):
                members.child(name)
            members.children("hugepageLimits")


def _swappiness(members: Members) -> int | None:
    """0 to 100; engines write -1, seen as uint64, for "not set"."""
    value = members.number("swappiness", 0, UINT64_MAX)
    if value is None or value == UINT64_MAX:
        return None
    if value > 100:
        raise members.error("swappiness", f"{value} is not between 0 and 100")
    return value


def _number_list(members: Members, name: str) -> str | None:
    value = members.text(name)
    if value is not None and value.strip("0123456789,- \n"):
        raise members.error(name, f'{show(value)} is not a list of numbers and ranges such as "0-3,7"')
    return value


def _device_number(members: Members, name: str) -> int | None:
    value = members.number(name, _ALL_DEVICES, INT64_MAX)
    return None if value == _ALL_DEVICES else value
