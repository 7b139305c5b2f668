"""What a container is to systemd: a unit's name, its place, and limits as properties. Pure.

The limits are those of cgroup_limits, (controller, file, value): a table says which property each file is. What has no
property is written to its file later, and so is everything else, for systemd rounds. Properties of devices are made for
v1 only, where systemd writes the list anew at each reload; in v2 our program beside systemd's stays.

systemd.unit(5), systemd.resource-control(5), org.freedesktop.systemd1(5).
"""

from __future__ import annotations

from inclavare.errors import SpecError
from inclavare.linux.dbus import DBusError, Variant
from inclavare.linux.gvariant import parse

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from inclavare.linux.cgroup_limits import Setting

Property = tuple[str, Variant]

PREFIX = "rune"
ANNOTATION = "org.systemd.property."
INFINITY = 2**64 - 1
PERIOD_US = 100_000
CPU_MAX = 8192  # cpus a mask may name
VERSION_OF_PERIOD = 242
VERSION_OF_CPUSETS = 244
VERSION_OF_IDLE = 252


class Name:
    """A unit and the slice that it is in. `is_slice`: the unit is itself a slice, and has no processes for systemd."""

    __slots__ = ("is_slice", "slice", "unit")

    def __init__(self, slice_: str, unit: str) -> None:
        self.slice = slice_
        self.unit = unit
        self.is_slice = unit.endswith(".slice")

    @property
    def path(self) -> str:
        """The unit's cgroup below the manager's: /a.slice/a-b.slice/unit.scope."""
        return expand_slice(self.unit) if self.is_slice else f"{expand_slice(self.slice)}/{self.unit}"


def name_of(cgroups_path: str | None, container_id: str, *, rootless: bool) -> Name:
    """Give the unit that linux.cgroupsPath `slice:prefix:name` asks for. Raises SpecError when it has another form."""
    slice_ = "user.slice" if rootless else "system.slice"
    if not cgroups_path:
        return Name(slice_, f"{PREFIX}-{container_id}.scope")
    parts = cgroups_path.split(":")
    if len(parts) != 3 or not parts[2] or "/" in parts[1] + parts[2]:
        raise SpecError(
            "linux.cgroupsPath",
            'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
            f'got "{cgroups_path}" instead',
            "Leave out --systemd-cgroup to use paths.",
        )
    slice_, prefix, name = parts[0] or slice_, parts[1], parts[2]
    unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    expand_slice(slice_)
    if unit.endswith(".slice"):
        expand_slice(unit)
    return Name(slice_, unit)


def expand_slice(name: str) -> str:
    """Give a slice's cgroup below the manager's: `a-b.slice` is /a.slice/a-b.slice, `-.slice` the manager's itself."""
    if name == "-.slice":
        return ""
    stem = name.removesuffix(".slice")
    parts = stem.split("-")
    if stem == name or "/" in name or not all(parts):
        raise SpecError(
            "linux.cgroupsPath", f"invalid slice name: {name}", 'It is such as "system.slice" or "a-b.slice".'
        )
    return "".join([f"/{'-'.join(parts[: end + 1])}.slice" for end in range(len(parts))])


def unit_properties(name: Name, container_id: str, pid: int, *, v2: bool) -> list[Property]:
    """Give what every container's unit has, without limits. `pid` is the process that makes a scope exist."""
    properties = [("Description", Variant("s", f"container {container_id}"))]
    if name.is_slice:
        properties.append(("Wants", Variant("as", [name.slice])))
    else:
        properties += [
            ("Slice", Variant("s", name.slice)),
            ("Delegate", Variant("b", True)),
            ("PIDs", Variant("au", [pid])),
        ]
    accounted = ("Memory", "CPU", "IO" if v2 else "BlockIO", "Tasks")
    properties += [(f"{what}Accounting", Variant("b", True)) for what in accounted]
    properties.append(("DefaultDependencies", Variant("b", False)))
    return properties


def annotated_properties(annotations: dict[str, str]) -> list[Property]:
    """Give the properties that annotations `org.systemd.property.NAME` ask for, in GVariant text.

    A time's NAME may end in Sec, with a number of seconds: it becomes microseconds. Raises SpecError.
    """
    properties = []
    for key, text in annotations.items():
        if not key.startswith(ANNOTATION):
            continue
        name, where = key.removeprefix(ANNOTATION), f"annotations.{key}"
        if len(name) < 3 or not (name.isascii() and name.isalpha()):
            raise SpecError(where, f"{name!r} is no name of a systemd property")
        try:
            value = parse(text)
        except DBusError as error:
            raise SpecError(where, error.message, "Write it as GVariant text: uint64 5, true, 'text'.") from error
        if name.endswith("Sec") and not name.endswith("USec"):
            value = _microseconds(where, value)
            name = f"{name.removesuffix('Sec')}USec"
        properties.append((name, value))
    return properties


def limit_properties(settings: list[Setting], version: int, numbers: str = "") -> list[Property]:
    """Give limits as properties of a unit for systemd of this version. `numbers` is /proc/devices (v1 devices)."""
    properties: list[Property] = []
    values = {file: value for _, file, value in settings}
    for file, value in values.items():
        if file in _NUMBERS:
            property_name, convert = _NUMBERS[file]
            number = convert(value)
            if number is not None:
                properties.append((property_name, Variant("t", number)))
        elif file in _SETS and version >= VERSION_OF_CPUSETS:
            mask = _mask(value)
            if mask:
                properties.append((_SETS[file], Variant("ay", mask)))
    if values.get("cpu.idle") == "1" and version >= VERSION_OF_IDLE:
        properties = [entry for entry in properties if entry[0] != "CPUWeight"]
        properties.append(("CPUWeight", Variant("t", 0)))
    properties += _cpu_quota(values, version)
    rules = [(file, value) for controller, file, value in settings if controller == "devices"]
    if rules:
        properties += _devices(rules, numbers)
    return properties


def _limit(value: str) -> int | None:
    return INFINITY if value in ("max", "-1") else int(value)


def _weight(value: str) -> int | None:
    """`io.weight` has its default in front, and then perhaps devices."""
    last = value.split()[-1:]
    return int(last[0]) if last and last[0].isdigit() else None


_NUMBERS: dict[str, tuple[str, Callable[[str], int | None]]] = {
    "memory.limit_in_bytes": ("MemoryLimit", _limit),
    "cpu.shares": ("CPUShares", _limit),
    "blkio.weight": ("BlockIOWeight", _weight),
    "pids.max": ("TasksMax", _limit),
    "memory.max": ("MemoryMax", _limit),
    "memory.high": ("MemoryHigh", _limit),
    "memory.low": ("MemoryLow", _limit),
    "memory.min": ("MemoryMin", _limit),
    "memory.swap.max": ("MemorySwapMax", _limit),
    "cpu.weight": ("CPUWeight", _limit),
    "io.weight": ("IOWeight", _weight),
}
_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}


def _cpu_quota(values: dict[str, str], version: int) -> list[Property]:
    """Give the quota; systemd keeps whole percents, so it is rounded up; the file gets the exact one."""
    if "cpu.max" in values:
        quota_text, _, period_text = values["cpu.max"].partition(" ")
    elif "cpu.cfs_quota_us" in values or "cpu.cfs_period_us" in values:
        quota_text, period_text = values.get("cpu.cfs_quota_us", ""), values.get("cpu.cfs_period_us", "")
    else:
        return []
    properties: list[Property] = []
    period = int(period_text or 0)
    if period and version >= VERSION_OF_PERIOD:
        properties.append(("CPUQuotaPeriodUSec", Variant("t", period)))
    per_second = INFINITY
    if quota_text not in ("", "max") and int(quota_text) > 0:
        per_second = -(-(int(quota_text) * 1_000_000 // (period or PERIOD_US)) // 10_000) * 10_000
    properties.append(("CPUQuotaPerSecUSec", Variant("t", per_second)))
    return properties


def _mask(text: str) -> bytes:
    """Give a list of numbers as systemd's bit mask, empty for what is none: the kernel will say so."""
    bits = 0
    try:
        for part in filter(None, text.replace("\n", ",").replace(" ", "").split(",")):
            first, _, last = part.partition("-")
            start, end = int(first), int(last or first)
            if end >= CPU_MAX or start > end:
                return b""
            bits |= (1 << end + 1) - (1 << start)
    except ValueError:
        return b""
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def _devices(rules: list[tuple[str, str]], numbers: str) -> list[Property]:
    """Say which devices are allowed. systemd knows no denials: where all are allowed, its list stays out of the way."""
    allowed: dict[str, str] = {}
    for file, value in rules:
        if file == "devices.allow" and value.split()[0] == "a":
            return [("DevicePolicy", Variant("s", "auto")), ("DeviceAllow", Variant("a(ss)", []))]
        if file == "devices.allow":
            kind, which, access = value.split()
            node = _node(kind, which, numbers)
            if node:
                allowed[node] = access
    return [
        ("DevicePolicy", Variant("s", "strict")),
        ("DeviceAllow", Variant("a(ss)", list(allowed.items()))),
    ]


def _node(kind: str, which: str, numbers: str) -> str:
    """Give systemd's name of a device, or of all that a driver has; empty when systemd has no name for it."""
    major, _, minor = which.partition(":")
    long_kind = "char" if kind == "c" else "block"
    if major == "*":
        return f"{long_kind}-*"
    if minor != "*":
        return f"/dev/{long_kind}/{major}:{minor}"
    section = numbers.partition("Block devices:")[0 if kind == "c" else 2]
    for line in section.splitlines():
        number, _, name = line.strip().partition(" ")
        if number == major:
            return f"{long_kind}-{name.strip()}"
    return ""


def _microseconds(where: str, value: Variant) -> Variant:
    number: Any = value.value
    if value.signature not in "ynqiuxtd" or number < 0 or not number * 1_000_000 < INFINITY:
        raise SpecError(where, "a time is a number of seconds")
    return Variant("t", int(number * 1_000_000))
