"""Containers as units of a real systemd: what it knows of them, what the kernel has been told, and that they go."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from inclavare.cli.table import command_named
from inclavare.container import store
from inclavare.linux import systemd_cgroup
from inclavare.linux.cgroups import Layout
from tests.kernel.conftest import Bundle, Rune
from tests.vm.conftest import Systemctl, own_groups

MIB = 1 << 20
UNIT = "rune-c.scope"
INFINITY = "infinity"
# What two units cannot have in common: names, times, counters.
OWN = (
    *("Id", "Names", "Description", "ControlGroup", "InvocationID", "Requires", "After", "Transient", "FragmentPath"),
    *(
        "ActiveEnter",
        "InactiveExit",
        "StateChange",
        "Condition",
        "Assert",
        "MemoryCurrent",
        "MemoryAvailable",
        "CPUUsage",
    ),
    *("TasksCurrent", "IO", "IP", "EffectiveCPUs", "EffectiveMemoryNodes", "DropInPaths", "NeedDaemonReload"),
)
# limits of the spec; property and value for v1; for v2; file and value in v1; in v2
LIMITS = [
    (
        {"memory": {"limit": 64 * MIB}},
        ("MemoryLimit", f"{64 * MIB}"),
        ("MemoryMax", f"{64 * MIB}"),
        ("memory", "memory.limit_in_bytes", f"{64 * MIB}"),
        ("memory.max", f"{64 * MIB}"),
    ),
    (
        {"cpu": {"shares": 512}},
        ("CPUShares", "512"),
        ("CPUWeight", "20"),
        ("cpu", "cpu.shares", "512"),
        ("cpu.weight", "20"),
    ),
    (
        {"cpu": {"quota": 20000, "period": 50000}},
        ("CPUQuotaPerSecUSec", "400ms"),
        ("CPUQuotaPerSecUSec", "400ms"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu.max", "20000 50000"),
    ),
    (
        {"cpu": {"quota": 12345, "period": 100000}},
        ("CPUQuotaPerSecUSec", "130ms"),
        ("CPUQuotaPerSecUSec", "130ms"),
        ("cpu", "cpu.cfs_quota_us", "12345"),
        ("cpu.max", "12345 100000"),
    ),
    (
        {"cpu": {"cpus": "1"}},
        ("AllowedCPUs", "1"),
        ("AllowedCPUs", "1"),
        ("cpuset", "cpuset.cpus", "1"),
        ("cpuset.cpus", "1"),
    ),
    (
        {"pids": {"limit": 17}},
        ("TasksMax", "17"),
        ("TasksMax", "17"),
        ("pids", "pids.max", "17"),
        ("pids.max", "17"),
    ),
    (
        {"pids": {"limit": -1}},
        ("TasksMax", INFINITY),
        ("TasksMax", INFINITY),
        ("pids", "pids.max", "max"),
        ("pids.max", "max"),
    ),
]


def group_of(layout: Layout, controller: str, below: str) -> Path:
    """Return the directory of a unit, given its place below the manager's."""
    for name, hierarchy in layout.hierarchies.items():
        if layout.is_v2 or controller in name.split(","):
            return Path(hierarchy.mount_point + below)
    pytest.fail(f"no {controller} controller")


def test_the_container_is_a_scope_of_the_system_slice_in_every_hierarchy(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["cat", "/proc/self/cgroup"]
    result = rune.run(bundle)
    assert (result.status, result.error) == (0, "")
    groups = own_groups(result)
    assert groups
    # In the hybrid layout systemd has a v2 hierarchy of its own, too.
    assert set(groups.values()) <= {f"/system.slice/{UNIT}"}


def test_the_built_program_does_the_same(rune: Rune, bundle: Bundle) -> None:
    """It carries its own interpreter, which has less in it."""
    bundle.process["args"] = ["cat", "/proc/self/cgroup"]
    _, *words = rune.command("run", "--bundle", bundle.write(), "c")
    program = Path(__file__).parents[2] / "build/bin/rune"
    done = subprocess.run([program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"/system.slice/{UNIT}" in done.stdout


def test_systemd_knows_the_scope_and_forgets_it_with_the_container(
    rune: Rune, bundle: Bundle, layout: Layout, systemctl: Systemctl
) -> None:
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    assert systemctl.show(UNIT, "ActiveState") == "active"
    assert systemctl.show(UNIT, "Delegate") == "yes"
    assert systemctl.show(UNIT, "Slice") == "system.slice"
    assert systemctl.show(UNIT, "ControlGroup") == f"/system.slice/{UNIT}"
    group = group_of(layout, "pids", f"/system.slice/{UNIT}")
    pid = rune.state()["pid"]
    assert (group / "cgroup.procs").read_text().split() == [str(pid)]
    assert rune("start", "c").status == 0
    assert rune("delete", "--force", "c").status == 0
    assert systemctl.containers() == []
    assert not group.exists()


@pytest.mark.parametrize(("resources", "v1", "v2", "v1_file", "v2_file"), LIMITS)
def test_a_limit_is_a_property_of_the_unit_and_exact_in_its_file(
    rune: Rune,
    bundle: Bundle,
    layout: Layout,
    systemctl: Systemctl,
    resources: dict[str, dict[str, int]],
    v1: tuple[str, str],
    v2: tuple[str, str],
    v1_file: tuple[str, str, str],
    v2_file: tuple[str, str],
) -> None:
    bundle.linux["resources"] = resources
    rune.create(bundle)
    name, value = v2 if layout.is_v2 else v1
    assert systemctl.show(UNIT, name) == value
    file, exact = v2_file if layout.is_v2 else v1_file[1:]
    assert (group_of(layout, v1_file[0], f"/system.slice/{UNIT}") / file).read_text().strip() == exact


@pytest.mark.parametrize("limits", LIMITS)
def test_systemd_is_told_what_runc_tells_it(
    rune: Rune, bundle: Bundle, systemctl: Systemctl, layout: Layout, tmp_path: Path, limits: tuple[Any, ...]
) -> None:
    bundle.linux["resources"] = limits[0] | {"devices": [{"allow": False, "access": "rwm"}]}
    bundle.process["args"] = ["sleep", "60"]
    bundle.config["ociVersion"] = "1.0.2"
    rune.create(bundle)
    runc = ["runc", "--root", str(tmp_path / "runc"), "--systemd-cgroup"]
    subprocess.run(
        [*runc, "create", "--bundle", bundle.write(), "c"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    try:
        ours, theirs = (systemctl("show", unit).splitlines() for unit in (UNIT, "runc-c.scope"))
    finally:
        subprocess.run([*runc, "delete", "--force", "c"], check=True)
    # In v2 rune's filter of devices needs nobody beside it.
    unlike = (*OWN, "Device") if layout.is_v2 else OWN
    shared = [{line for line in lines if not line.startswith(unlike)} for lines in (ours, theirs)]
    assert shared[0] == shared[1]


def test_limits_and_device_rules_outlive_a_reload_of_systemd(
    rune: Rune, bundle: Bundle, layout: Layout, systemctl: Systemctl
) -> None:
    bundle.linux["resources"] = {
        "pids": {"limit": 17},
        "memory": {"limit": 64 * MIB},
        "devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 5, "access": "r"}],
    }
    bundle.linux["devices"] = [{"path": "/dev/first", "type": "c", "major": 5, "minor": 1}]
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    assert rune("start", "c").status == 0
    script = "(: < /dev/first) && (: > /dev/null) && echo opened; (: > /dev/first) || echo denied"
    before = rune("exec", "c", "sh", "-c", script).out
    systemctl("daemon-reload")
    systemctl("set-property", "--runtime", UNIT, "CPUWeight=50" if layout.is_v2 else "CPUShares=50")
    assert (before, rune("exec", "c", "sh", "-c", script).out) == ("opened\ndenied\n", "opened\ndenied\n")
    group = group_of(layout, "pids", f"/system.slice/{UNIT}")
    assert (group / "pids.max").read_text() == "17\n"


def test_new_limits_are_systemds_too(rune: Rune, bundle: Bundle, layout: Layout, systemctl: Systemctl) -> None:
    bundle.linux["resources"] = {"pids": {"limit": 17}, "cpu": {"quota": 20000, "period": 50000}}
    rune.create(bundle)
    record = store.load(str(rune.root), "c")
    quota = ("cpu", "cpu.max", "30000 50000") if layout.is_v2 else ("cpu", "cpu.cfs_quota_us", "30000")
    systemd_cgroup.apply(record.systemd_unit, record.cgroups, [("pids", "pids.max", "9"), quota])
    assert systemctl.show(UNIT, "TasksMax") == "9"
    assert systemctl.show(UNIT, "CPUQuotaPerSecUSec") == "600ms"
    assert systemctl.show(UNIT, "CPUQuotaPeriodUSec") == "50ms"
    group = group_of(layout, "pids", f"/system.slice/{UNIT}")
    assert (group / "pids.max").read_text() == "9\n"


@pytest.mark.skipif(command_named("update") is None, reason="this rune has no update")
def test_update_tells_systemd(rune: Rune, bundle: Bundle, layout: Layout, systemctl: Systemctl) -> None:
    rune.create(bundle)
    done = rune("update", "--pids-limit", "9", "--memory", f"{64 * MIB}", "c")
    assert (done.status, done.error) == (0, "")
    assert systemctl.show(UNIT, "TasksMax") == "9"
    assert systemctl.show(UNIT, "MemoryMax" if layout.is_v2 else "MemoryLimit") == f"{64 * MIB}"
    assert (group_of(layout, "pids", f"/system.slice/{UNIT}") / "pids.max").read_text() == "9\n"


@pytest.mark.skipif(command_named("pause") is None, reason="this rune has no pause")
def test_a_scope_is_paused_and_resumed_and_deleted_while_paused(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    assert rune("start", "c").status == 0
    for command, status in (("pause", "paused"), ("resume", "running"), ("pause", "paused")):
        assert rune(command, "c").status == 0
        assert rune.state()["status"] == status
    assert rune("delete", "--force", "c").status == 0


@pytest.mark.parametrize("delay_ms", [60, 120, 180, 240, 300, 400, 600])
def test_a_rune_that_is_killed_leaves_no_scope_behind_that_the_next_delete_does_not_find(
    rune: Rune, bundle: Bundle, systemctl: Systemctl, delay_ms: int
) -> None:
    bundle.process["args"] = ["sleep", "60"]
    with subprocess.Popen(
        rune.command("create", "--bundle", bundle.write(), "c"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as creator:
        time.sleep(delay_ms / 1000)
        creator.kill()
    assert rune("delete", "--force", "c").status == 0
    assert (systemctl.containers(), rune.leftovers()) == ([], [])


def test_exec_and_kill_and_state_work_as_with_the_other_driver(
    rune: Rune, bundle: Bundle, systemctl: Systemctl
) -> None:
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    assert rune("start", "c").status == 0
    assert rune.state()["status"] == "running"
    inside = rune("exec", "c", "cat", "/proc/self/cgroup")
    assert set(own_groups(inside).values()) <= {f"/system.slice/{UNIT}"}
    assert rune("kill", "c", "KILL").status == 0
    rune.wait_for("stopped")
    assert rune("delete", "c").status == 0
    assert systemctl.containers() == []


def test_the_later_commands_need_no_option(rune: Rune, bundle: Bundle, systemctl: Systemctl) -> None:
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    program, _, *rest = rune.command("delete", "--force", "c")
    assert subprocess.run([program, *rest], check=False).returncode == 0
    assert systemctl.containers() == []


def test_slice_prefix_and_name_of_the_path_are_the_units(rune: Rune, bundle: Bundle, systemctl: Systemctl) -> None:
    bundle.linux["cgroupsPath"] = "test-inner.slice:test:one"
    bundle.process["args"] = ["cat", "/proc/self/cgroup"]
    result = rune.run(bundle)
    assert (result.status, result.error) == (0, "")
    assert set(own_groups(result).values()) == {"/test.slice/test-inner.slice/test-one.scope"}
    systemctl("stop", "test.slice")


def test_a_name_that_is_a_slice_becomes_one(rune: Rune, bundle: Bundle, systemctl: Systemctl) -> None:
    bundle.linux["cgroupsPath"] = "system.slice::test-pod.slice"
    bundle.linux["resources"] = {"pids": {"limit": 17}}
    bundle.process["args"] = ["cat", "/proc/self/cgroup"]
    rune.create(bundle)
    assert systemctl.show("test-pod.slice", "TasksMax") == "17"
    assert rune("start", "c").status == 0
    rune.wait_for("stopped")
    assert rune("delete", "c").status == 0
    assert systemctl.show("test-pod.slice", "ActiveState") == "inactive"
    assert "/test.slice/test-pod.slice" in rune.out
    systemctl("stop", "test.slice")


def test_annotations_become_properties(rune: Rune, bundle: Bundle, systemctl: Systemctl) -> None:
    bundle.config["annotations"] = {
        "org.systemd.property.TimeoutStopUSec": "uint64 20000000",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.Documentation": "['man:rune']",
        "org.systemd.property.RuntimeMaxSec": "300",
        "another": "word",
    }
    rune.create(bundle)
    assert systemctl.show(UNIT, "TimeoutStopUSec") == "20s"
    assert systemctl.show(UNIT, "CollectMode") == "inactive-or-failed"
    assert systemctl.show(UNIT, "Documentation") == "man:rune"
    assert systemctl.show(UNIT, "RuntimeMaxUSec") == "5min"


def test_a_property_that_systemd_does_not_know_is_an_error_and_nothing_stays(
    rune: Rune, bundle: Bundle, systemctl: Systemctl
) -> None:
    bundle.config["annotations"] = {"org.systemd.property.NoSuchThing": "true"}
    result = rune.run(bundle)
    assert result.status == 1
    assert f"systemd cannot start {UNIT}" in result.error
    assert "NoSuchThing" in result.error
    assert (systemctl.containers(), rune.leftovers()) == ([], [])


def test_a_failure_after_the_scope_was_made_takes_it_back(rune: Rune, bundle: Bundle, systemctl: Systemctl) -> None:
    bundle.process["args"] = ["no-such-program"]
    result = rune.run(bundle)
    assert result.status == 1
    assert "executable file not found" in result.error
    assert (systemctl.containers(), rune.leftovers()) == ([], [])


def test_a_unit_that_another_program_uses_is_refused_and_lives_on(
    rune: Rune, bundle: Bundle, systemctl: Systemctl
) -> None:
    with subprocess.Popen(
        ["systemd-run", "--quiet", "--scope", f"--unit={UNIT}", "sleep", "60"], stdin=subprocess.DEVNULL
    ) as stranger:
        try:
            deadline = 100
            while systemctl.show(UNIT, "ActiveState") != "active" and deadline:
                deadline -= 1
            result = rune.run(bundle)
            assert result.status == 1
            assert "the container's cgroup is not empty: 1 process(es) found" in result.error
            assert systemctl.show(UNIT, "ActiveState") == "active"
            assert stranger.poll() is None
        finally:
            systemctl("stop", UNIT)
            stranger.wait()


def test_a_path_of_the_other_driver_is_refused(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["cgroupsPath"] = "/a/b"
    result = rune.run(bundle)
    assert result.status == 1
    assert 'expected cgroupsPath to be of format "slice:prefix:name"' in result.error


def test_a_container_that_runs_out_of_memory_is_deleted_without_a_failed_unit(
    rune: Rune, bundle: Bundle, systemctl: Systemctl
) -> None:
    bundle.linux["resources"] = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    bundle.process["args"] = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]
    assert rune.run(bundle).status == 137
    assert systemctl.containers() == []


def test_a_user_namespace_goes_with_the_driver(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux["namespaces"].append({"type": "cgroup"})
    for name in ("uidMappings", "gidMappings"):
        bundle.linux[name] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    for path in (bundle.path, *bundle.path.parents[:-2]):
        path.chmod(0o755)
    subprocess.run(["chown", "-R", "100000:100000", bundle.path / "rootfs"], check=True)
    bundle.process["args"] = ["cat", "/proc/self/cgroup"]
    result = rune.run(bundle)
    assert (result.error, result.status) == ("", 0)
    assert set(own_groups(result).values()) <= {"/"}


@pytest.fixture
def user_manager(systemctl: Systemctl) -> dict[str, str]:
    """Start the systemd of user 1000; return the environment that leads there."""
    systemctl("start", "user@1000.service")
    return {"XDG_RUNTIME_DIR": "/run/user/1000", "PATH": "/usr/bin:/bin", "HOME": "/home/user"}


def test_a_user_has_units_of_the_users_own_systemd(user_manager: dict[str, str], layout: Layout) -> None:
    """What the driver does for a container without root, around a process that is its own."""
    if not layout.is_v2:
        pytest.skip("users may have control groups of their own with v2 only")
    program = f"""
import subprocess, sys
sys.path.insert(0, {str(Path(__file__).parents[2] / "src")!r})
from inclavare.linux import cgroups, systemd_cgroup
unit = systemd_cgroup.Unit(cgroups.read_layout(), None, "mine", {{}})
sleep = subprocess.Popen(["sleep", "60"])
other = subprocess.Popen(["sleep", "60"])
unit.create(sleep.pid, [("pids", "pids.max", "17")])
unit.attach(other.pid)
(path,) = unit.paths.values()
print(path)
print(open(path + "/cgroup.procs").read().split() == sorted([str(sleep.pid), str(other.pid)]))
print(open(path + "/pids.max").read().strip())
sleep.kill(); sleep.wait(); other.kill(); other.wait()
unit.close()
systemd_cgroup.remove(unit.name.unit)
"""
    done = subprocess.run(
        [sys.executable, "-Ic", program],
        user=1000,
        group=1000,
        extra_groups=[],
        env=user_manager,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    path = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/rune-mine.scope"
    assert done.stdout == f"{path}\nTrue\n17\n"
    assert not Path(path).exists()
