"""What a container uses, as `rune events` prints it: runc's members, from the files of cgroup v1 or v2.

Times are in nanoseconds, sizes in bytes; a limit that is not there is the largest 64-bit number. What the host does not
count is 0.
"""

from __future__ import annotations

import os

from inclavare.linux.cgroups import UNIFIED, path_of
from inclavare.linux.files import read_file

NO_LIMIT = (1 << 64) - 1
NS_PER_TICK = 10_000_000  # USER_HZ is 100 on x86-64
NS_PER_US = 1000


def read_stats(paths: dict[str, str]) -> dict[str, object]:
    """Read all statistics of a container. `paths` are its groups, by controller."""
    return _read_v2(paths[UNIFIED]) if UNIFIED in paths else _read_v1(paths)


def _read_v1(paths: dict[str, str]) -> dict[str, object]:
    def path(controller: str, file: str) -> str:
        return f"{path_of(paths, controller) or '/nonexistent'}/{file}"

    times = pairs_of(path("cpuacct", "cpuacct.stat"))
    throttling = pairs_of(path("cpu", "cpu.stat"))
    raw = pairs_of(path("memory", "memory.stat"))
    usages = {
        name: v1_usage(path("memory", f"memory.{prefix}"))
        for name, prefix in (("usage", ""), ("swap", "memsw."), ("kernel", "kmem."), ("kernelTCP", "kmem.tcp."))
    }
    return _stats(
        {
            "total": number_of(path("cpuacct", "cpuacct.usage")),
            "percpu": [int(word) for word in text_of(path("cpuacct", "cpuacct.usage_percpu")).split()],
            "kernel": times.get("system", 0) * NS_PER_TICK,
            "user": times.get("user", 0) * NS_PER_TICK,
        },
        (throttling.get("nr_periods", 0), throttling.get("nr_throttled", 0), throttling.get("throttled_time", 0)),
        {"cache": raw.get("total_cache", raw.get("cache", 0)), **usages, "raw": raw},
        path("pids", ""),
        {
            "ioServiceBytesRecursive": v1_io(path("blkio", "blkio.throttle.io_service_bytes_recursive")),
            "ioServicedRecursive": v1_io(path("blkio", "blkio.throttle.io_serviced_recursive")),
        },
        hugepages(path("hugetlb", ""), ".usage_in_bytes", ".max_usage_in_bytes", ".failcnt"),
    )


def _read_v2(path: str) -> dict[str, object]:
    times = pairs_of(f"{path}/cpu.stat")
    raw = pairs_of(f"{path}/memory.stat")
    events = pairs_of(f"{path}/memory.events")
    memory = _v2_usage(path, "memory.current", "memory.max", "memory.peak", events.get("max", 0))
    swap = _v2_usage(path, "memory.swap.current", "memory.swap.max", "memory.swap.peak", 0)
    if swap["limit"] != NO_LIMIT and memory["limit"] != NO_LIMIT:
        swap["limit"] += memory["limit"]  # the runtime-spec counts both together
    swap["usage"] += memory["usage"]
    nothing = {"limit": 0, "failcnt": 0}
    operations, sizes = v2_io(f"{path}/io.stat")
    return _stats(
        {
            "total": times.get("usage_usec", 0) * NS_PER_US,
            "kernel": times.get("system_usec", 0) * NS_PER_US,
            "user": times.get("user_usec", 0) * NS_PER_US,
        },
        (
            times.get("nr_periods", 0),
            times.get("nr_throttled", 0),
            times.get("throttled_usec", 0) * NS_PER_US,
        ),
        {
            "cache": raw.get("file", 0),
            "usage": memory,
            "swap": swap,
            "kernel": nothing,
            "kernelTCP": nothing,
            "raw": raw,
        },
        f"{path}/",
        {"ioServiceBytesRecursive": sizes, "ioServicedRecursive": operations},
        hugepages(f"{path}/", ".current", "", ".events"),
    )


def _stats(
    usage: dict[str, object],
    throttling: tuple[int, int, int],
    memory: dict[str, object],
    pids: str,
    block_io: dict[str, object],
    huge: dict[str, dict[str, int]],
) -> dict[str, object]:
    periods, throttled, throttled_time = throttling
    current: dict[str, object] = {"current": number_of(f"{pids}pids.current")}
    limit = number_of(f"{pids}pids.max")
    if limit != NO_LIMIT:
        current["limit"] = limit
    return {
        "cpu": {
            "usage": usage,
            "throttling": {
                "periods": periods,
                "throttledPeriods": throttled,
                "throttledTime": throttled_time,
            },
        },
        "cpuset": {},
        "memory": memory,
        "pids": current,
        "blkio": block_io,
        "hugetlb": huge,
        "intel_rdt": {},
        "network_interfaces": None,
    }


def v1_usage(prefix: str) -> dict[str, object]:
    """Read a controller's limit, usage, its maximum, and how often the limit was met."""
    return {
        "limit": number_of(f"{prefix}limit_in_bytes"),
        "usage": number_of(f"{prefix}usage_in_bytes"),
        "max": number_of(f"{prefix}max_usage_in_bytes"),
        "failcnt": number_of(f"{prefix}failcnt"),
    }


def _v2_usage(path: str, usage: str, limit: str, peak: str, failures: int) -> dict[str, int]:
    return {
        "limit": number_of(f"{path}/{limit}"),
        "usage": number_of(f"{path}/{usage}"),
        "max": number_of(f"{path}/{peak}"),
        "failcnt": failures,
    }


def v1_io(path: str) -> list[dict[str, object]]:
    """Read lines such as `8:0 Read 4096`."""
    entries: list[dict[str, object]] = []
    for line in text_of(path).splitlines():
        words = line.split()
        if len(words) == 3:
            major, _, minor = words[0].partition(":")
            entries.append({"major": int(major), "minor": int(minor), "op": words[1], "value": int(words[2])})
    return entries


def v2_io(path: str) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Read lines such as `8:0 rbytes=4096 wbytes=0 rios=1 wios=0`: operations, and bytes."""
    operations: list[dict[str, object]] = []
    sizes: list[dict[str, object]] = []
    for line in text_of(path).splitlines():
        device, *words = line.split()
        major, _, minor = device.partition(":")
        values = dict(word.split("=", 1) for word in words if "=" in word)
        for name, entries, op in (
            ("rbytes", sizes, "Read"),
            ("wbytes", sizes, "Write"),
            ("rios", operations, "Read"),
            ("wios", operations, "Write"),
        ):
            if name in values:
                entries.append({"major": int(major), "minor": int(minor), "op": op, "value": int(values[name])})
    return operations, sizes


def hugepages(prefix: str, usage: str, peak: str, failures: str) -> dict[str, dict[str, int]]:
    """Read usage, max and failcnt by size of page; the other arguments are how the files' names end."""
    directory = os.path.dirname(prefix)
    try:
        names = os.listdir(directory)
    except OSError:
        return {}
    found: dict[str, dict[str, int]] = {}
    for name in names:
        if name.startswith("hugetlb.") and name.endswith(usage) and "rsvd" not in name:
            size = name.removeprefix("hugetlb.").removesuffix(usage)
            of_size = f"{prefix}hugetlb.{size}"
            failed = pairs_of(f"{of_size}{failures}").get("max", 0) if failures == ".events" else 0
            found[size] = {
                "usage": number_of(f"{of_size}{usage}"),
                "max": number_of(f"{of_size}{peak}") if peak else 0,
                "failcnt": failed or (number_of(f"{of_size}{failures}") if failures == ".failcnt" else 0),
            }
    return found


def text_of(path: str) -> str:
    """Read a file; one that is not there is empty."""
    try:
        return read_file(path).decode()
    except OSError:
        return ""


def number_of(path: str) -> int:
    """Read a number; no limit is NO_LIMIT."""
    text = text_of(path).strip()
    if text == "max":
        return NO_LIMIT
    return int(text) if text.isdecimal() else 0


def pairs_of(path: str) -> dict[str, int]:
    """Read lines such as `nr_periods 5`."""
    pairs = (line.split() for line in text_of(path).splitlines())
    return {words[0]: int(words[1]) for words in pairs if len(words) == 2 and words[1].isdecimal()}
