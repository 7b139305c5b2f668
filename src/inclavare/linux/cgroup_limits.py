"""The runtime-spec's resources as cgroup settings: (controller, file, value), in the order to be written. Pure.

Values of 0 for memory and cpu are what engines write for "not set". Device rules end with what every container may do,
as runc has it: make any node, and use the harmless devices and its own terminals.

Of device rules the last that fits decides. The kernel of v1 has another view: one default and exceptions to it, which
only a rule with the very same numbers removes; and a rule of type `a` is for all devices, whatever else it says. So the
rules are first brought into that form, which means the same in v1 and in v2's BPF program.

Hot path.
"""

from __future__ import annotations

from inclavare.errors import SpecError

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.resources import CPU, Resources

Setting = tuple[str, str, str]
Device = tuple[bool, str, int | None, int | None, str]  # allow, type, major, minor (None: any), access
Numbers = tuple[str, int | None, int | None]  # type b or c, major, minor (None: any)

ACCESS = "rwm"
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
    """Give the rule for all devices, then its exceptions; ALWAYS_ALLOWED is among what is allowed.

    Raises SpecError for a rule that takes a part of an earlier one's devices, which no list of exceptions can say.
    """
    default = False
    exceptions: dict[Numbers, str] = {}
    listed: list[Device] = [(one.allow, one.type, one.major, one.minor, one.access) for one in resources.devices]
    for index, (allow, kind, major, minor, access) in enumerate([*listed, *ALWAYS_ALLOWED]):
        if kind == "a" and major is None and minor is None and set(access) == set(ACCESS):
            default = allow
            exceptions.clear()
            continue
        for exact in ("b", "c") if kind == "a" else (kind,):
            numbers = (exact, major, minor)
            if allow != default:
                exceptions[numbers] = _join(exceptions.get(numbers, ""), access)
            elif not _take(exceptions, numbers, access):
                raise SpecError(
                    f"linux.resources.devices[{index}]" if index < len(listed) else "linux.resources.devices",
                    f"{'allows' if allow else 'denies'} {_words(numbers, access)}, a part of what an earlier rule "
                    f"{'denies' if allow else 'allows'}",
                    "Name the devices one by one, or turn the order round.",
                )
    return [
        (default, "a", None, None, ACCESS),
        *[(not default, kind, major, minor, access) for (kind, major, minor), access in exceptions.items()],
    ]


def v1_settings(resources: Resources) -> list[Setting]:
    """Give the settings for cgroup v1, devices included."""
    return _v1_devices(resources) + v1_limits(resources)


def v1_limits(resources: Resources) -> list[Setting]:
    """Give all settings for cgroup v1 but those of devices. The group is new: limits only go down."""
    settings: list[Setting] = []
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
    if resources.has_rare:
        from inclavare.linux import device_limits  # noqa: PLC0415  # few containers have them

        settings += device_limits.v1_settings(resources)
    return settings


def v2_settings(resources: Resources) -> list[Setting]:
    """Give the settings for cgroup v2; devices are not files there. Raises SpecError for what only v1 has."""
    memory, cpu = resources.memory, resources.cpu
    settings: list[Setting] = []
    if memory.swappiness is not None:
        raise SpecError("linux.resources.memory.swappiness", "cgroup v2 has no swappiness of a group")
    if memory.disable_oom_killer:
        raise SpecError("linux.resources.memory.disableOOMKiller", "cgroup v2 cannot disable the OOM killer")
    if memory.limit:
        settings.append(("memory", "memory.max", _or_max(memory.limit)))
    if memory.swap:
        # The spec counts memory and swap together, v2 swap alone.
        if memory.swap > 0 and (not memory.limit or memory.limit < 0):
            raise SpecError("linux.resources.memory.swap", "cannot be limited without memory.limit on cgroup v2")
        swap = -1 if memory.swap < 0 else memory.swap - (memory.limit or 0)
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
    if resources.has_rare:
        from inclavare.linux import device_limits  # noqa: PLC0415  # few containers have them

        settings += device_limits.v2_settings(resources)
    return settings


def weight_of(shares: int) -> int:
    """Map v1 cpu.shares (2 to 262144) to v2 cpu.weight (1 to 10000), as engines and kubelet expect it."""
    shares = min(max(shares, 2), 262_144)
    return V2_WEIGHT_MIN + (shares - 2) * 9999 // 262_142


def _v1_devices(resources: Resources) -> list[Setting]:
    settings = []
    for allow, kind, major, minor, access in device_rules(resources):
        what = "a" if kind == "a" else _words((kind, major, minor), access)
        settings.append(("devices", "devices.allow" if allow else "devices.deny", what))
    return settings


def _take(exceptions: dict[Numbers, str], numbers: Numbers, access: str) -> bool:
    """Take `access` to `numbers` from the exceptions. False when one of them would lose only a part of its devices."""
    for other, theirs in list(exceptions.items()):
        left = "".join([letter for letter in theirs if letter not in access])
        if left == theirs or not _meet(numbers, other):
            continue
        if not _contains(numbers, other):
            return False
        if left:
            exceptions[other] = left
        else:
            del exceptions[other]
    return True


def _meet(one: Numbers, other: Numbers) -> bool:
    """Tell whether a device can have both numbers; None is any."""
    return all(mine is None or theirs is None or mine == theirs for mine, theirs in zip(one, other, strict=True))


def _contains(one: Numbers, other: Numbers) -> bool:
    return all(mine is None or mine == theirs for mine, theirs in zip(one, other, strict=True))


def _join(one: str, other: str) -> str:
    return "".join([letter for letter in ACCESS if letter in one + other])


def _words(numbers: Numbers, access: str) -> str:
    kind, major, minor = numbers
    return f"{kind} {_or_any(major)}:{_or_any(minor)} {access}"


def _cpuset(cpu: CPU) -> list[Setting]:
    return [("cpuset", file, value) for value, file in ((cpu.cpus, "cpuset.cpus"), (cpu.mems, "cpuset.mems")) if value]


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


def _or_any(number: int | None) -> str:
    return "*" if number is None else str(number)
