"""The runtime-spec's resources as what is written into cgroup files."""

from __future__ import annotations

from typing import Any

import pytest

from inclavare.errors import SpecError
from inclavare.linux.cgroup_limits import ALWAYS_ALLOWED, device_rules, v1_settings, v2_settings, weight_of
from inclavare.linux.device_limits import io_weight
from inclavare.oci.spec import parse_resources

GIB = 1 << 30


def v1(resources: dict[str, Any]) -> list[tuple[str, str]]:
    """Give (file, value) without the device rules, which every container has."""
    return [
        (file, value) for controller, file, value in v1_settings(parse_resources(resources)) if controller != "devices"
    ]


def v2(resources: dict[str, Any]) -> list[tuple[str, str]]:
    return [(file, value) for _, file, value in v2_settings(parse_resources(resources))]


@pytest.mark.parametrize(
    ("resources", "of_v1", "of_v2"),
    [
        ({}, [], []),
        ({"memory": {"limit": GIB}}, [("memory.limit_in_bytes", f"{GIB}")], [("memory.max", f"{GIB}")]),
        ({"memory": {"limit": -1}}, [("memory.limit_in_bytes", "-1")], [("memory.max", "max")]),
        ({"memory": {"reservation": 5}}, [("memory.soft_limit_in_bytes", "5")], [("memory.low", "5")]),
        ({"memory": {"swap": -1}}, [("memory.memsw.limit_in_bytes", "-1")], [("memory.swap.max", "max")]),
        ({"memory": {"disableOOMKiller": False}}, [], []),
        ({"memory": {"limit": 0, "swap": 0, "reservation": 0}}, [], []),
        ({"cpu": {"shares": 1024}}, [("cpu.shares", "1024")], [("cpu.weight", "39")]),
        (
            {"cpu": {"quota": 5000, "period": 10000}},
            [("cpu.cfs_period_us", "10000"), ("cpu.cfs_quota_us", "5000")],
            [("cpu.max", "5000 10000")],
        ),
        ({"cpu": {"quota": 5000}}, [("cpu.cfs_quota_us", "5000")], [("cpu.max", "5000 100000")]),
        ({"cpu": {"quota": -1}}, [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max 100000")]),
        ({"cpu": {"period": 10000}}, [("cpu.cfs_period_us", "10000")], [("cpu.max", "max 10000")]),
        ({"cpu": {"burst": 7}}, [("cpu.cfs_burst_us", "7")], [("cpu.max.burst", "7")]),
        ({"cpu": {"idle": 1}}, [("cpu.idle", "1")], [("cpu.idle", "1")]),
        ({"cpu": {"shares": 0, "quota": 0, "period": 0}}, [], []),
        (
            {"cpu": {"cpus": "0-1", "mems": "0"}},
            [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
            [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
        ),
        ({"pids": {"limit": 9}}, [("pids.max", "9")], [("pids.max", "9")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
        ({"pids": {"limit": 0}}, [], []),
    ],
)
def test_each_limit_becomes_its_file(
    resources: dict[str, Any], of_v1: list[tuple[str, str]], of_v2: list[tuple[str, str]]
) -> None:
    assert v1(resources) == of_v1
    assert v2(resources) == of_v2


def test_swap_is_counted_with_memory_in_v1_and_alone_in_v2() -> None:
    resources = {"memory": {"limit": GIB, "swap": 3 * GIB}}
    assert v1(resources) == [("memory.limit_in_bytes", f"{GIB}"), ("memory.memsw.limit_in_bytes", f"{3 * GIB}")]
    assert v2(resources) == [("memory.max", f"{GIB}"), ("memory.swap.max", f"{2 * GIB}")]


def test_swap_without_limit_is_max_in_v2() -> None:
    assert v2({"memory": {"limit": GIB, "swap": -1}})[1] == ("memory.swap.max", "max")


def test_the_limit_is_written_before_the_one_of_memory_and_swap() -> None:
    """The kernel refuses a limit of both that is below that of memory alone."""
    files = [file for file, _ in v1({"memory": {"swap": 2 * GIB, "limit": GIB, "reservation": 5}})]
    assert files.index("memory.limit_in_bytes") < files.index("memory.memsw.limit_in_bytes")


@pytest.mark.parametrize(
    ("memory", "of_v1", "name"),
    [
        ({"swappiness": 0}, [("memory.swappiness", "0")], "swappiness"),
        ({"disableOOMKiller": True}, [("memory.oom_control", "1")], "disableOOMKiller"),
        ({"swap": GIB}, [("memory.memsw.limit_in_bytes", f"{GIB}")], "swap"),
        (
            {"swap": GIB, "limit": -1},
            [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", f"{GIB}")],
            "swap",
        ),
    ],
)
def test_what_v2_cannot_do_is_refused_by_name(memory: dict[str, Any], of_v1: list[tuple[str, str]], name: str) -> None:
    assert v1({"memory": memory}) == of_v1
    with pytest.raises(SpecError) as caught:
        v2({"memory": memory})
    assert caught.value.path == f"linux.resources.memory.{name}"


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262_144, 10_000), (1, 1), (1 << 40, 10_000)])
def test_shares_become_weights(shares: int, weight: int) -> None:
    assert weight_of(shares) == weight


def test_weights_keep_the_order_of_shares() -> None:
    weights = [weight_of(shares) for shares in range(2, 262_145, 997)]
    assert weights == sorted(weights)


def test_device_rules_begin_with_denying_all_and_end_with_the_harmless() -> None:
    rules = device_rules(
        parse_resources({"devices": [{"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}]})
    )
    assert rules[0] == (False, "a", None, None, "rwm")
    assert rules[1] == (True, "c", 10, 229, "rw")
    assert tuple(rules[2:]) == ALWAYS_ALLOWED


def test_device_rules_are_written_in_their_order() -> None:
    resources = parse_resources(
        {
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
                {"allow": True, "type": "b", "major": 8, "access": "r"},
            ]
        }
    )
    assert [setting[1:] for setting in v1_settings(resources)][:3] == [
        ("devices.deny", "a"),
        ("devices.allow", "c 10:229 rw"),
        ("devices.allow", "b 8:* r"),
    ]


RATE = {"major": 8, "minor": 16, "rate": 1000}


@pytest.mark.parametrize(
    ("resources", "of_v1", "of_v2"),
    [
        (
            {"blockIO": {"weight": 500}},
            [("blkio.weight|blkio.bfq.weight", "500|500")],
            [("io.bfq.weight|io.weight", "500|default 4950")],
        ),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}},
            [("blkio.weight_device|blkio.bfq.weight_device", "8:0 10|8:0 10")],
            [("io.bfq.weight|io.weight", "8:0 10|8:0 1")],
        ),
        (
            {"blockIO": {"throttleReadBpsDevice": [RATE], "throttleWriteBpsDevice": [RATE]}},
            [("blkio.throttle.read_bps_device", "8:16 1000"), ("blkio.throttle.write_bps_device", "8:16 1000")],
            [("io.max", "8:16 rbps=1000"), ("io.max", "8:16 wbps=1000")],
        ),
        (
            {"blockIO": {"throttleReadIOPSDevice": [RATE], "throttleWriteIOPSDevice": [RATE]}},
            [("blkio.throttle.read_iops_device", "8:16 1000"), ("blkio.throttle.write_iops_device", "8:16 1000")],
            [("io.max", "8:16 riops=1000"), ("io.max", "8:16 wiops=1000")],
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}, {"pageSize": "1GB", "limit": 0}]},
            [("hugetlb.2MB.limit_in_bytes", "4194304"), ("hugetlb.1GB.limit_in_bytes", "0")],
            [("hugetlb.2MB.max", "4194304"), ("hugetlb.1GB.max", "0")],
        ),
        (
            {"rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 10}, "mlx5_1": {"hcaObjects": 5}}},
            [("rdma.max", "mlx5_0 hca_handle=3 hca_object=10"), ("rdma.max", "mlx5_1 hca_object=5")],
            [("rdma.max", "mlx5_0 hca_handle=3 hca_object=10"), ("rdma.max", "mlx5_1 hca_object=5")],
        ),
        ({"blockIO": {"weight": 0, "weightDevice": None}, "network": {}, "rdma": {}, "hugepageLimits": []}, [], []),
    ],
)
def test_limits_of_devices_become_files(
    resources: dict[str, Any], of_v1: list[tuple[str, str]], of_v2: list[tuple[str, str]]
) -> None:
    assert v1(resources) == of_v1
    assert v2(resources) == of_v2


@pytest.mark.parametrize(
    ("resources", "of_v1", "path"),
    [
        ({"network": {"classID": 7}}, [("net_cls.classid", "7")], "network"),
        ({"network": {"priorities": [{"name": "lo", "priority": 2}]}}, [("net_prio.ifpriomap", "lo 2")], "network"),
        (
            {"cpu": {"realtimeRuntime": 500, "realtimePeriod": 1000}},
            [("cpu.rt_period_us", "1000"), ("cpu.rt_runtime_us", "500")],
            "cpu.realtimeRuntime",
        ),
        ({"blockIO": {"leafWeight": 20}}, [("blkio.leaf_weight", "20")], "blockIO.leafWeight"),
    ],
)
def test_what_only_v1_has_is_refused_on_v2(resources: dict[str, Any], of_v1: list[tuple[str, str]], path: str) -> None:
    assert v1(resources) == of_v1
    with pytest.raises(SpecError) as caught:
        v2(resources)
    assert caught.value.path == f"linux.resources.{path}"


def test_unified_is_written_as_it_is_on_v2_and_refused_on_v1() -> None:
    resources = {"unified": {"memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 rbps=2"}}
    assert v2(resources) == [("memory.high", "1000"), ("io.max", "8:0 rbps=1"), ("io.max", "8:16 rbps=2")]
    with pytest.raises(SpecError) as caught:
        v1(resources)
    assert caught.value.path == "linux.resources.unified"


@pytest.mark.parametrize("name", ["../x.y", "a/b.c", "cgroup", ".x", "x.", ""])
def test_unified_takes_names_of_files_only(name: str) -> None:
    with pytest.raises(SpecError, match="is not the name of a cgroup v2 file"):
        v2({"unified": {name: "1"}})


@pytest.mark.parametrize("size", ["2", "2mb", "MB", "-2MB", "2 MB", "2MB/../x"])
def test_a_size_of_huge_pages_is_a_number_and_a_unit(size: str) -> None:
    with pytest.raises(SpecError, match=r"^hugepageLimits\[0\]\.pageSize: "):
        parse_resources({"hugepageLimits": [{"pageSize": size, "limit": 1}]})


@pytest.mark.parametrize(("weight", "converted"), [(10, 1), (1000, 10_000), (0, 1), (65535, 10_000)])
def test_weights_of_devices_keep_their_range(weight: int, converted: int) -> None:
    assert io_weight(weight) == converted
