"""Statistics of both kinds of cgroups, from files as the kernel writes them, read back by Google's library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inclavare.linux.cgroups import UNIFIED
from inclavare.shim import metrics
from tests.containerd_kit import schema

V2_FILES = {
    "pids.current": "3\n",
    "pids.max": "max\n",
    "cpu.stat": "usage_usec 900\nuser_usec 500\nsystem_usec 400\nnice_usec 0\nnr_periods 7\nnr_throttled 2\n"
    "throttled_usec 33\nnr_bursts 0\nburst_usec 0\n",
    "memory.stat": "anon 4096\nfile 8192\nkernel 100\nkernel_stack 16384\npagetables 5\nslab 77\nsock 1\nshmem 2\n"
    "file_mapped 3\nfile_dirty 4\nfile_writeback 5\nanon_thp 6\ninactive_anon 7\nactive_anon 8\ninactive_file 9\n"
    "active_file 10\nunevictable 11\nslab_reclaimable 12\nslab_unreclaimable 13\npgfault 14\npgmajfault 15\n"
    "workingset_refault_anon 16\npgrefill 17\npgscan 18\npgsteal 19\npgactivate 20\npgdeactivate 21\npglazyfree 22\n"
    "pglazyfreed 23\nthp_fault_alloc 24\nthp_collapse_alloc 25\n",
    "memory.current": "20000\n",
    "memory.max": "134217728\n",
    "memory.peak": "30000\n",
    "memory.swap.current": "11\n",
    "memory.swap.max": "max\n",
    "memory.swap.peak": "12\n",
    "memory.events": "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n",
    "io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n253:1 rbytes=1 wbytes=0 rios=1 wios=0\n",
    "rdma.current": "mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3 hca_object=max\n",
    "rdma.max": "mlx4_0 hca_handle=max hca_object=max\n",
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.max": "4194304\n",
    "hugetlb.2MB.events": "max 9\n",
    "hugetlb.2MB.rsvd.current": "1\n",
}
V1_FILES = {
    "rdma/rdma.current": "mlx4_0 hca_handle=2 hca_object=2000\n",
    "rdma/rdma.max": "mlx4_0 hca_handle=max hca_object=max\n",
    "hugetlb/hugetlb.1GB.usage_in_bytes": "1073741824\n",
    "hugetlb/hugetlb.1GB.max_usage_in_bytes": "2147483648\n",
    "hugetlb/hugetlb.1GB.failcnt": "4\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "1:0 Read 4096\n1:0 Write 0\nTotal 4096\n",
    "blkio/blkio.throttle.io_serviced_recursive": "1:0 Read 1\nTotal 1\n",
    "cpu/cpu.stat": "nr_periods 3\nnr_throttled 2\nthrottled_time 500\n",
    "cpuacct/cpuacct.usage": "123456\n",
    "cpuacct/cpuacct.usage_percpu": "100000 23456 \n",
    "cpuacct/cpuacct.stat": "user 4\nsystem 2\n",
    "memory/memory.stat": "cache 1\nrss 2\npgpgin 3\nhierarchical_memory_limit 4\nhierarchical_memsw_limit 5\n"
    "total_cache 6\ntotal_pgmajfault 7\nrecent_rotated_anon 8\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 1\noom_kill 2\n",
    "memory/memory.usage_in_bytes": "9\n",
    "memory/memory.memsw.failcnt": "10\n",
    "memory/memory.kmem.tcp.limit_in_bytes": "11\n",
}


def read(paths: dict[str, str]) -> Any:
    found = metrics.read(paths)
    return schema.unpack(schema.make("google.protobuf.Any", **found))


@pytest.fixture
def v2(tmp_path: Path) -> Any:
    for name, text in V2_FILES.items():
        (tmp_path / name).write_text(text)
    return read({UNIFIED: str(tmp_path)})


def test_v2_counts_processes_and_time(v2: Any) -> None:
    assert (v2.pids.current, v2.pids.limit) == (3, 2**64 - 1)
    cpu = v2.cpu
    assert [cpu.usage_usec, cpu.user_usec, cpu.system_usec] == [900, 500, 400]
    assert [cpu.nr_periods, cpu.nr_throttled, cpu.throttled_usec] == [7, 2, 33]


def test_v2_counts_memory(v2: Any) -> None:
    memory = v2.memory
    kernels = dict(line.split() for line in V2_FILES["memory.stat"].splitlines())
    for field in memory.DESCRIPTOR.fields:
        if field.name in kernels:
            assert getattr(memory, field.name) == int(kernels[field.name]), field.name
    assert (memory.usage, memory.usage_limit, memory.max_usage) == (20000, 134217728, 30000)
    assert (memory.swap_usage, memory.swap_limit, memory.swap_max_usage) == (11, 2**64 - 1, 12)
    events = v2.memory_events
    assert [events.low, events.high, events.max, events.oom, events.oom_kill] == [1, 2, 3, 4, 5]


def test_v2_counts_devices(v2: Any) -> None:
    assert [(each.major, each.minor, each.rbytes, each.wbytes, each.rios, each.wios) for each in v2.io.usage] == [
        (8, 0, 4096, 8192, 1, 2),
        (253, 1, 1, 0, 1, 0),
    ]
    rdma = [(each.device, each.hca_handles, each.hca_objects) for each in v2.rdma.current]
    assert rdma == [("mlx4_0", 2, 2000), ("ocrdma1", 3, 2**32 - 1)]
    assert [each.hca_handles for each in v2.rdma.limit] == [2**32 - 1]
    assert [(each.pagesize, each.current, each.max) for each in v2.hugetlb] == [("2MB", 2097152, 4194304)]


def test_v2_of_a_group_that_has_gone_is_empty(tmp_path: Path) -> None:
    found = read({UNIFIED: str(tmp_path / "gone")})
    assert not found.memory.usage
    assert not found.io.usage


def test_v1_counts_what_this_host_may_lack(tmp_path: Path) -> None:
    for name, text in V1_FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = read({name: str(tmp_path / name) for name in ("rdma", "hugetlb", "blkio", "cpu", "cpuacct", "memory")})
    assert not found.HasField("pids")
    assert [(each.device, each.hca_objects) for each in found.rdma.current] == [("mlx4_0", 2000)]
    assert [(each.pagesize, each.usage, each.max, each.failcnt) for each in found.hugetlb] == [
        ("1GB", 1 << 30, 2 << 30, 4)
    ]
    block = [(each.op, each.major, each.minor, each.value) for each in found.blkio.io_service_bytes_recursive]
    assert block == [("Read", 1, 0, 4096), ("Write", 1, 0, 0)]
    usage, throttling, memory = found.cpu.usage, found.cpu.throttling, found.memory
    assert (usage.total, usage.user, usage.kernel) == (123456, 40_000_000, 20_000_000)
    assert list(usage.per_cpu) == [100000, 23456]
    assert (throttling.periods, throttling.throttled_periods, throttling.throttled_time) == (3, 2, 500)
    assert [memory.cache, memory.rss, memory.pg_pg_in] == [1, 2, 3]
    assert [memory.hierarchical_memory_limit, memory.hierarchical_swap_limit] == [4, 5]
    assert [memory.total_cache, memory.total_pg_maj_fault] == [6, 7]
    assert (memory.usage.usage, memory.swap.failcnt, memory.kernel_tcp.limit) == (9, 10, 11)
    assert (found.memory_oom_control.under_oom, found.memory_oom_control.oom_kill) == (1, 2)
