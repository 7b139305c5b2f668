"""Limits of real containers: what the kernel has been told, what it does about it, and that the groups go again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inclavare.linux.cgroups import Layout, paths_for, read_layout
from tests.kernel.conftest import Bundle, Rune

MIB = 1 << 20
# limits of the spec; where they are in v1: controller, file, value; in v2: file, value
LIMITS: list[tuple[dict[str, Any], tuple[str, str, str], tuple[str, str]]] = [
    (
        {"memory": {"limit": 64 * MIB}},
        ("memory", "memory.limit_in_bytes", f"{64 * MIB}"),
        ("memory.max", f"{64 * MIB}"),
    ),
    (
        {"memory": {"reservation": 32 * MIB}},
        ("memory", "memory.soft_limit_in_bytes", f"{32 * MIB}"),
        ("memory.low", f"{32 * MIB}"),
    ),
    ({"cpu": {"shares": 512}}, ("cpu", "cpu.shares", "512"), ("cpu.weight", "20")),
    (
        {"cpu": {"quota": 20000, "period": 50000}},
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu.max", "20000 50000"),
    ),
    ({"cpu": {"quota": 20000, "period": 50000}}, ("cpu", "cpu.cfs_period_us", "50000"), ("cpu.max", "20000 50000")),
    ({"cpu": {"cpus": "0", "mems": "0"}}, ("cpuset", "cpuset.cpus", "0"), ("cpuset.cpus", "0")),
    ({"pids": {"limit": 17}}, ("pids", "pids.max", "17"), ("pids.max", "17")),
    ({"pids": {"limit": -1}}, ("pids", "pids.max", "max"), ("pids.max", "max")),
]


@pytest.fixture(scope="session")
def layout() -> Layout:
    return read_layout()


def groups_of(layout: Layout, bundle: Bundle) -> dict[str, Path]:
    """Give the bundle's directory for each controller, or for `unified`."""
    paths = paths_for(layout, bundle.linux["cgroupsPath"], "c")
    return {controller: Path(path) for name, path in paths.items() for controller in name.split(",")}


def group_of(layout: Layout, bundle: Bundle, controller: str) -> Path:
    group = groups_of(layout, bundle).get("unified" if layout.is_v2 else controller)
    if group is None:
        pytest.skip(f"this host has no {controller} controller")
    return group


@pytest.mark.parametrize(("resources", "v1", "v2"), LIMITS)
def test_a_limit_of_the_spec_is_in_its_file(
    rune: Rune,
    bundle: Bundle,
    layout: Layout,
    resources: dict[str, Any],
    v1: tuple[str, str, str],
    v2: tuple[str, str],
) -> None:
    controller, file, value = v1
    if layout.is_v2:
        file, value = v2
    group = group_of(layout, bundle, controller)
    bundle.linux["resources"] = resources
    rune.create(bundle)
    assert (group / file).read_text().strip() == value


def test_the_container_is_in_a_group_of_every_hierarchy(rune: Rune, bundle: Bundle, layout: Layout) -> None:
    rune.create(bundle)
    pid = rune.state()["pid"]
    for group in groups_of(layout, bundle).values():
        assert (group / "cgroup.procs").read_text().split() == [str(pid)]


def test_the_groups_go_with_the_container(rune: Rune, bundle: Bundle, layout: Layout) -> None:
    rune.create(bundle)
    groups = groups_of(layout, bundle).values()
    assert all(group.is_dir() for group in groups)
    assert rune("delete", "--force", "c").status == 0
    assert not any(group.exists() for group in groups)


def test_groups_that_the_container_made_go_with_it(rune: Rune, bundle: Bundle, layout: Layout) -> None:
    rune.create(bundle)
    group = group_of(layout, bundle, "pids")
    (group / "inner/innermost").mkdir(parents=True)
    assert rune("delete", "--force", "c").status == 0
    assert not group.exists()


def test_a_relative_path_begins_at_our_own_group(rune: Rune, bundle: Bundle, layout: Layout) -> None:
    """As the runtime-spec leaves it to the runtime: "a runtime-determined location"."""
    bundle.linux["cgroupsPath"] = f"inclavare-test/{bundle.path.name}"
    bundle.process["args"] = ["cat", "/proc/self/cgroup"]
    own = {line.split(":")[1]: line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    name = "" if layout.is_v2 else "pids"
    inside = {line.split(":")[1]: line.split(":")[2] for line in rune.run(bundle).out.splitlines()}
    assert inside[name] == f"{own[name].rstrip('/')}/{bundle.linux['cgroupsPath']}"


def test_a_group_that_another_process_uses_is_refused(rune: Rune, bundle: Bundle, layout: Layout) -> None:
    group = group_of(layout, bundle, "devices")
    group.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            (group / "cgroup.procs").write_text(str(stranger.pid))
            result = rune.run(bundle)
            assert result.status == 1
            assert "the container's cgroup is not empty: 1 process(es) found" in result.error
            assert stranger.poll() is None
        finally:
            stranger.kill()
    group.rmdir()


def test_too_many_processes_are_refused_by_the_kernel(rune: Rune, bundle: Bundle, layout: Layout) -> None:
    group_of(layout, bundle, "pids")
    bundle.linux["resources"] = {"pids": {"limit": 4}}
    bundle.shell("sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1 & wait")
    result = rune.run(bundle)
    assert result.status != 0
    assert "can't fork: Resource temporarily unavailable" in result.error


def test_a_program_out_of_memory_is_killed(rune: Rune, bundle: Bundle, layout: Layout) -> None:
    group_of(layout, bundle, "memory")
    bundle.linux["resources"] = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    bundle.process["args"] = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]
    assert rune.run(bundle).status == 128 + signal.SIGKILL


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs the device fuse of the host")
@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        ([], "not permitted"),
        ([{"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}], "opened"),
        ([{"allow": True, "type": "c", "major": 10, "access": "rw"}], "opened"),
        ([{"allow": True, "type": "c", "access": "rw"}], "opened"),
        ([{"allow": True, "access": "rwm"}], "opened"),
        ([{"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"}], "not permitted"),
        ([{"allow": True, "type": "c", "major": 10, "minor": 228, "access": "rw"}], "not permitted"),
        ([{"allow": True, "type": "b", "major": 10, "minor": 229, "access": "rw"}], "not permitted"),
        ([{"allow": True, "major": 10, "minor": 228, "access": "rw"}], "not permitted"),
        ([{"allow": True, "access": "r"}], "not permitted"),
        (
            [
                {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
                {"allow": False, "type": "c", "major": 10, "access": "w"},
            ],
            "not permitted",
        ),
    ],
)
def test_device_rules_decide_in_their_order(
    rune: Rune, bundle: Bundle, rules: list[dict[str, Any]], outcome: str
) -> None:
    bundle.linux["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    bundle.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}, *rules]}
    bundle.shell("(: <> /dev/fuse) 2>&1 && echo opened")
    assert outcome in rune.run(bundle).out


def test_harmless_devices_work_whatever_the_rules(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    bundle.shell("for name in null zero full random urandom; do head -c 0 /dev/$name && : > /dev/$name || exit 1; done")
    result = rune.run(bundle)
    assert (result.status, result.error) == (0, "")


def test_a_value_that_the_kernel_refuses_is_named_and_nothing_stays(rune: Rune, bundle: Bundle, layout: Layout) -> None:
    group = group_of(layout, bundle, "cpuset")
    bundle.linux["resources"] = {"cpu": {"cpus": "4000"}}
    result = rune.run(bundle)
    assert result.status == 1
    assert f"cannot write '4000' to {group}/cpuset.cpus: " in result.error
    assert rune.leftovers() == []


def test_a_device_taken_out_of_a_rule_with_a_wildcard_is_refused(rune: Rune, bundle: Bundle) -> None:
    """Control groups v1 would ignore the second rule without a word."""
    bundle.linux["resources"] = {
        "devices": [
            {"allow": True, "type": "c", "major": 10, "access": "rw"},
            {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "w"},
        ]
    }
    result = rune.run(bundle)
    assert result.status == 1
    assert "linux.resources.devices[1]: denies c 10:229 w, a part of what an earlier rule allows" in result.error
    assert rune.leftovers() == []


@pytest.fixture
def cpuset(layout: Layout, tmp_path: Path) -> Iterator[Path]:
    """Give a cpuset group without cpus, as other programs may leave one."""
    if layout.is_v2:
        pytest.skip("cpusets inherit by themselves on v2")
    hierarchy = next((one for name, one in layout.hierarchies.items() if "cpuset" in name.split(",")), None)
    if hierarchy is None:
        pytest.skip("this host has no cpuset controller")
    group = Path(hierarchy.mount_point, "inclavare-test", f"{tmp_path.name}-{os.getpid()}")
    group.mkdir(parents=True)
    yield group
    group.rmdir()


def test_a_group_below_one_without_cpus_has_those_further_up(
    rune: Rune, bundle: Bundle, layout: Layout, cpuset: Path
) -> None:
    bundle.linux["cgroupsPath"] = f"/inclavare-test/{cpuset.name}/inner"
    bundle.process["args"] = ["grep", "-c", "cpuset:/inclavare-test/", "/proc/self/cgroup"]
    result = rune.run(bundle)
    assert (result.status, result.error) == (0, "")
    for name, path in paths_for(layout, f"/inclavare-test/{cpuset.name}", "c").items():
        if Path(path) != cpuset and "cpuset" not in name:
            Path(path).rmdir()
