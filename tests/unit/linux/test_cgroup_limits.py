"""The runtime-spec's resources as what is written into cgroup files."""

from __future__ import annotations

from typing import Any

import pytest

from inclavare.errors import SpecError
from inclavare.linux.cgroup_limits import ALWAYS_ALLOWED, device_rules, v1_settings, v2_settings, weight_of
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
