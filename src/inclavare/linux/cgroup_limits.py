"""The runtime-spec's resources as cgroup settings: (controller, file, value), in the order to be written. Pure.

Values of 0 for memory and cpu are what engines write for "not set". Device rules end with what every container may do,
as runc has it: make any node, and use the harmless devices and its own terminals. Hot path.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.resources import CPU, Resources

Setting = tuple[str, str, str]
Device = tuple[bool, str, int | None, int | None, str]  # allow, type, major, minor (None: any), access

ALWAYS_ALLOWED: tuple[Device, ...] = (
    (True, "c", None, None, "m"),
    (True, "b", None, None, "m"),
    (True, "c", 1, 3, "rwm"),  # null
    (True, "c", 1, 5, "rwm"),  # zero
    (True, "c", 1, 7, "rwm"),  # full
    (True, "c", 1, 8, "rwm"),  # random
    (True, "c", 1, 9, "rwm"),  # urandom
    (True, "c", 5, 0, "rwm"),  # tty
    (True, "c", 5, 2, "rwm"),  # ptmx
    (True, "c", 136, None, "rwm"),  # pts
)

V2_WEIGHT_MIN = 1
V2_PERIOD_US = 100_000


def device_rules(resources: Resources) -> list[Device]:
    """Give all device rules in order: deny all, the spec's, ALWAYS_ALLOWED."""
    rules = [(rule.allow, rule.type, rule.major, rule.minor, rule.access) for rule in resources.devices]
    return [(False, "a", None, None, "rwm"), *rules, *ALWAYS_ALLOWED]


def v1_settings(resources: Resources) -> list[Setting]:
    """Give the settings for cgroup v1. The group is new: limits only go down."""
    settings = _v1_devices(resources)
    memory, cpu = resources.memory, resources.cpu
    for value, file in (
        (memory.reservation, "memory.soft_limit_in_bytes"),
        (memory.limit, "memory.limit_in_bytes"),
        (memory.swap, "memory.memsw.limit_in_bytes"),  # not below the limit, so behind it
    ):
        if value:
            settings.append(("memory", file, str(value)))
    if memory.swappiness is not None:
        settings.append(("memory", "memory.swappiness", str(memory.swappiness)))
    if memory.disable_oom_killer:
        settings.append(("memory", "memory.oom_control", "1"))
    for value, file in (
        (cpu.shares, "cpu.shares"),
        (cpu.period, "cpu.cfs_period_us"),
        (cpu.quota, "cpu.cfs_quota_us"),
        (cpu.burst, "cpu.cfs_burst_us"),
        (cpu.idle, "cpu.idle"),
    ):
        if value:
            settings.append(("cpu", file, str(value)))
    settings += _cpuset(cpu)
    if resources.pids.limit:
        settings.append(("pids", "pids.max", str(resources.pids.limit) if resources.pids.limit > 0 else "max"))
    return settings


def v2_settings(resources: Resources) -> list[Setting]:
    """Give the settings for cgroup v2; devices are not files there."""
    memory, cpu = resources.memory, resources.cpu
    settings: list[Setting] = []
    if memory.limit:
        settings.append(("memory", "memory.max", _or_max(memory.limit)))
    if memory.swap and memory.limit:
        # The spec counts memory and swap together, v2 swap alone.
        swap = -1 if memory.swap < 0 else memory.swap - max(memory.limit, 0)
        settings.append(("memory", "memory.swap.max", _or_max(swap)))
    if memory.reservation:
        settings.append(("memory", "memory.low", _or_max(memory.reservation)))
    if cpu.shares:
        settings.append(("cpu", "cpu.weight", str(weight_of(cpu.shares))))
    if cpu.quota or cpu.period:
        quota = _or_max(cpu.quota) if cpu.quota else "max"
        settings.append(("cpu", "cpu.max", f"{quota} {cpu.period or V2_PERIOD_US}"))
    if cpu.burst:
        settings.append(("cpu", "cpu.max.burst", str(cpu.burst)))
    if cpu.idle:
        settings.append(("cpu", "cpu.idle", str(cpu.idle)))
    settings += _cpuset(cpu)
    if resources.pids.limit:
        settings.append(("pids", "pids.max", _or_max(resources.pids.limit)))
    return settings


def weight_of(shares: int) -> int:
    """Map v1 cpu.shares (2 to 262144) to v2 cpu.weight (1 to 10000), as engines and kubelet expect it."""
    shares = min(max(shares, 2), 262_144)
    return V2_WEIGHT_MIN + (shares - 2) * 9999 // 262_142


def _v1_devices(resources: Resources) -> list[Setting]:
    settings = []
    for allow, kind, major, minor, access in device_rules(resources):
        where = (
            "a"
            if kind == "a" and major is None and minor is None
            else f"{kind} {_or_any(major)}:{_or_any(minor)} {access}"
        )
        settings.append(("devices", "devices.allow" if allow else "devices.deny", where))
    return settings


def _cpuset(cpu: CPU) -> list[Setting]:
    return [("cpuset", file, value) for value, file in ((cpu.cpus, "cpuset.cpus"), (cpu.mems, "cpuset.mems")) if value]


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


def _or_any(number: int | None) -> str:
    return "*" if number is None else str(number)
