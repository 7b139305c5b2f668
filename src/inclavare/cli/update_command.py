"""`rune update`: change the limits of a container."""

from __future__ import annotations

from inclavare.container import store, update
from inclavare.errors import HostError, UsageError
from inclavare.linux.files import read_file
from inclavare.oci import jsontext, spec

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.arguments import Values
    from inclavare.cli.rune import Invocation

# Option: group and member of the runtime-spec's resources.
NUMBERS = {
    "blkio-weight": ("blockIO", "weight"),
    "cpu-period": ("cpu", "period"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "cpu-idle": ("cpu", "idle"),
    "pids-limit": ("pids", "limit"),
}
SIZES = {
    "memory": ("memory", "limit"),
    "memory-reservation": ("memory", "reservation"),
    "memory-swap": ("memory", "swap"),
    "kernel-memory": ("memory", "kernel"),
    "kernel-memory-tcp": ("memory", "kernelTCP"),
}
TEXTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}
UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def run(invocation: Invocation) -> int:
    """Carry out the command."""
    given = invocation.options
    record = store.load(invocation.root, invocation.arguments[0])
    for name in ("l3-cache-schema", "mem-bw-schema"):
        if given.value(name):
            raise HostError(f"cannot set --{name}: this host has no resctrl", "It needs Intel RDT or AMD QoS.")
    source = given.value("resources")
    document = jsontext.loads(_read(source), source) if source else _document(given)
    resources = spec.parse_resources(document)
    for warning in resources.warnings:
        invocation.log.warning(warning)
    update.update(record, resources, invocation.log)
    return 0


def _read(source: str) -> bytes:
    try:
        return read_file("/dev/stdin" if source == "-" else source)
    except OSError as error:
        raise HostError(f"cannot read {source}: {error.strerror}") from error


def _document(given: Values) -> dict[str, object]:
    """Give the resources that the options name, as JSON values."""
    document: dict[str, dict[str, object]] = {}
    for names, read in ((NUMBERS, _number), (SIZES, _size), (TEXTS, _text)):
        for name, (group, member) in names.items():
            text = given.value(name)
            if text:
                document.setdefault(group, {})[member] = read(name, text)
    return dict(document)


def _text(_name: str, text: str) -> str:
    return text


def _number(name: str, text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()):
        raise UsageError(f"invalid value for {name}: {text!r} is not a number")
    return int(text)


def _size(name: str, text: str) -> int:
    """Bytes, or a number with a unit of powers of 1024: 64M, 1.5g, 512KiB; -1 is no limit."""
    if text == "-1":
        return -1
    unit = text.lstrip("0123456789.")
    number = text[: len(text) - len(unit)]
    shift = UNITS.get(unit.lower().removesuffix("ib").removesuffix("b"))
    whole, _, part = number.partition(".")
    if shift is None or not whole.isdecimal() or (part and not part.isdecimal()):
        raise UsageError(f"invalid value for {name}: {text!r} is not a size such as 64M")
    count: int = (int(whole + part) << shift) // 10 ** len(part)
    return count
