"""Statistics as containerd has them: io.containerd.cgroups.v1.Metrics or v2's, of containerd/cgroups' metrics.proto.

What the host does not count is left out.
"""

from __future__ import annotations

from inclavare.linux.cgroup_stats import NO_LIMIT, NS_PER_TICK, hugepages, number_of, pairs_of, text_of, v1_io, v1_usage
from inclavare.linux.cgroups import UNIFIED, path_of
from inclavare.wire.protobuf import Field, Schema, encode

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def _uints(*names: str, first: int = 1) -> Schema:
    return {name: Field(number, "uint") for number, name in enumerate(names, first)}


_RDMA_ENTRY = {"device": Field(1, "text"), **_uints("hca_handles", "hca_objects", first=2)}
_RDMA = {"current": Field(1, _RDMA_ENTRY, repeated=True), "max": Field(2, _RDMA_ENTRY, repeated=True)}

V1_TYPE = "io.containerd.cgroups.v1.Metrics"
# Our names of fields are the kernel's in memory.stat, with and without "total_".
_V1_MEMORY = (
    *("cache", "rss", "rss_huge", "mapped_file", "dirty", "writeback", "pgpgin", "pgpgout", "pgfault", "pgmajfault"),
    *("inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable"),
)
_V1_LIMITS = ("hierarchical_memory_limit", "hierarchical_memsw_limit")
_V1_USAGES = {"usage": "", "swap": "memsw.", "kernel": "kmem.", "kernel_tcp": "kmem.tcp."}
_ENTRY = _uints("limit", "usage", "max", "failcnt")
_V1_IO = {"op": Field(1, "text"), "device": Field(2, "text"), **_uints("major", "minor", "value", first=3)}
_V1_BLKIO = {
    "io_service_bytes_recursive": Field(1, _V1_IO, repeated=True),
    "io_serviced_recursive": Field(2, _V1_IO, repeated=True),
}
V1: Schema = {
    "hugetlb": Field(1, {**_uints("usage", "max", "failcnt"), "pagesize": Field(4, "text")}, repeated=True),
    "pids": Field(2, _uints("current", "limit")),
    "cpu": Field(
        3,
        {
            "usage": Field(1, {**_uints("total", "kernel", "user"), "per_cpu": Field(4, "uint", repeated=True)}),
            "throttling": Field(2, _uints("periods", "throttled_periods", "throttled_time")),
        },
    ),
    "memory": Field(
        4,
        {
            **_uints(*_V1_MEMORY, *_V1_LIMITS, *(f"total_{name}" for name in _V1_MEMORY)),
            **{name: Field(number, _ENTRY) for number, name in enumerate(_V1_USAGES, 33)},
        },
    ),
    "blkio": Field(5, _V1_BLKIO),
    "rdma": Field(6, _RDMA),
    "memory_oom_control": Field(9, _uints("oom_kill_disable", "under_oom", "oom_kill")),
}

V2_TYPE = "io.containerd.cgroups.v2.Metrics"
_V2_CPU = ("usage_usec", "user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec")
_V2_MEMORY = (
    *("anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "file_dirty", "file_writeback"),
    *("anon_thp", "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable", "slab_reclaimable"),
    *("slab_unreclaimable", "pgfault", "pgmajfault", "workingset_refault", "workingset_activate"),
    *("workingset_nodereclaim", "pgrefill", "pgscan", "pgsteal", "pgactivate", "pgdeactivate", "pglazyfree"),
    *("pglazyfreed", "thp_fault_alloc", "thp_collapse_alloc"),
)
_V2_USAGES = {
    "usage": "current",
    "usage_limit": "max",
    "swap_usage": "swap.current",
    "swap_limit": "swap.max",
    "max_usage": "peak",
    "swap_max_usage": "swap.peak",
}
_V2_EVENTS = ("low", "high", "max", "oom", "oom_kill")
_V2_IO = _uints("major", "minor", "rbytes", "wbytes", "rios", "wios")
V2: Schema = {
    "pids": Field(1, _uints("current", "limit")),
    "cpu": Field(2, _uints(*_V2_CPU)),
    "memory": Field(4, _uints(*_V2_MEMORY, *_V2_USAGES)),
    "rdma": Field(5, _RDMA),
    "io": Field(6, {"usage": Field(1, _V2_IO, repeated=True)}),
    "hugetlb": Field(7, {**_uints("usage", "max"), "pagesize": Field(3, "text")}, repeated=True),
    "memory_events": Field(8, _uints(*_V2_EVENTS)),
}


def read(paths: dict[str, str]) -> dict[str, object]:
    """Give the Any of a container's statistics. `paths` are its groups, by controller."""
    if UNIFIED in paths:
        return {"type_url": V2_TYPE, "value": encode(V2, _read_v2(paths[UNIFIED]))}
    return {"type_url": V1_TYPE, "value": encode(V1, _read_v1(paths))}


def _read_v1(paths: dict[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    if huge := path_of(paths, "hugetlb"):
        found["hugetlb"] = _huge(
            hugepages(f"{huge}/", ".usage_in_bytes", ".max_usage_in_bytes", ".failcnt"), "usage", "max", "failcnt"
        )
    if pids := path_of(paths, "pids"):
        limit = number_of(f"{pids}/pids.max")
        found["pids"] = {"current": number_of(f"{pids}/pids.current"), "limit": 0 if limit == NO_LIMIT else limit}
    if times := path_of(paths, "cpuacct"):
        ticks = pairs_of(f"{times}/cpuacct.stat")
        throttling = pairs_of(f"{path_of(paths, 'cpu')}/cpu.stat")
        found["cpu"] = {
            "usage": {
                "total": number_of(f"{times}/cpuacct.usage"),
                "kernel": ticks.get("system", 0) * NS_PER_TICK,
                "user": ticks.get("user", 0) * NS_PER_TICK,
                "per_cpu": [int(word) for word in text_of(f"{times}/cpuacct.usage_percpu").split()],
            },
            "throttling": {
                "periods": throttling.get("nr_periods", 0),
                "throttled_periods": throttling.get("nr_throttled", 0),
                "throttled_time": throttling.get("throttled_time", 0),
            },
        }
    if memory := path_of(paths, "memory"):
        counts = _known(V1["memory"], pairs_of(f"{memory}/memory.stat"))
        usages = {name: v1_usage(f"{memory}/memory.{prefix}") for name, prefix in _V1_USAGES.items()}
        found["memory"] = {**counts, **usages}
        found["memory_oom_control"] = _known(V1["memory_oom_control"], pairs_of(f"{memory}/memory.oom_control"))
    if block := path_of(paths, "blkio"):
        found["blkio"] = {
            "io_service_bytes_recursive": _named(v1_io(f"{block}/blkio.throttle.io_service_bytes_recursive")),
            "io_serviced_recursive": _named(v1_io(f"{block}/blkio.throttle.io_serviced_recursive")),
        }
    if rdma := path_of(paths, "rdma"):
        found["rdma"] = _rdma(rdma)
    return found


def _read_v2(path: str) -> dict[str, object]:
    counts = _known(V2["memory"], pairs_of(f"{path}/memory.stat"))
    return {
        "pids": {"current": number_of(f"{path}/pids.current"), "limit": number_of(f"{path}/pids.max")},
        "cpu": _known(V2["cpu"], pairs_of(f"{path}/cpu.stat")),
        "memory": {**counts, **{name: number_of(f"{path}/memory.{file}") for name, file in _V2_USAGES.items()}},
        "rdma": _rdma(path),
        "io": {"usage": [{"major": major, "minor": minor, **values} for major, minor, values in _v2_io(path)]},
        "hugetlb": _huge(hugepages(f"{path}/", ".current", ".max", ".events"), "usage", "max"),
        "memory_events": _known(V2["memory_events"], pairs_of(f"{path}/memory.events")),
    }


def _known(field: Field, values: Mapping[str, int]) -> dict[str, int]:
    return {name: value for name, value in values.items() if name in field.kind}


def _huge(sizes: Mapping[str, Mapping[str, int]], *names: str) -> list[dict[str, object]]:
    return [{**{name: values[name] for name in names}, "pagesize": size} for size, values in sizes.items()]


def _named(entries: Iterable[dict[str, object]]) -> list[dict[str, object]]:
    """Add the names of devices, which containerd has, too."""
    return [{**entry, "device": _device(f"{entry['major']}:{entry['minor']}")} for entry in entries]


def _device(number: str) -> str:
    for line in text_of(f"/sys/dev/block/{number}/uevent").splitlines():
        if line.startswith("DEVNAME="):
            return f"/dev/{line.removeprefix('DEVNAME=')}"
    return ""


def _v2_io(path: str) -> Iterable[tuple[int, int, dict[str, int]]]:
    for line in text_of(f"{path}/io.stat").splitlines():
        device, *words = line.split()
        major, _, minor = device.partition(":")
        values = {name: int(value) for name, _, value in (word.partition("=") for word in words) if name in _V2_IO}
        yield int(major), int(minor), values


def _rdma(path: str) -> dict[str, list[dict[str, object]]]:
    return {name: _rdma_entries(f"{path}/rdma.{name}") for name in _RDMA}


def _rdma_entries(path: str) -> list[dict[str, object]]:
    """Read lines such as `mlx4_0 hca_handle=2 hca_object=max`; the largest 32-bit number is no limit."""
    entries: list[dict[str, object]] = []
    for line in text_of(path).splitlines():
        device, *words = line.split()
        values = dict(word.split("=", 1) for word in words if "=" in word)
        numbers = {
            f"{name}s": 0xFFFFFFFF if values[name] == "max" else int(values[name])
            for name in ("hca_handle", "hca_object")
            if name in values
        }
        entries.append({"device": device, **numbers})
    return entries
