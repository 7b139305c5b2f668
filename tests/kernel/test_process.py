"""What a process is given beside its program: clocks, scheduling, priorities, memory policy, personality."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel.conftest import Bundle, Rune

DAY = 86400


def uptime(text: str) -> float:
    return float(text.split(maxsplit=1)[0])


def test_a_time_namespace_has_clocks_of_its_own(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"monotonic": {"secs": DAY, "nanosecs": 5}, "boottime": {"secs": 10 * DAY}}
    bundle.shell("cat /proc/self/timens_offsets /proc/uptime; readlink /proc/self/ns/time")
    before = uptime(Path("/proc/uptime").read_text())
    result = rune.run(bundle)
    assert result.status == 0, result.error
    monotonic, boottime, clock, namespace = result.out.splitlines()
    assert monotonic.split() == ["monotonic", str(DAY), "5"]
    assert boottime.split() == ["boottime", str(10 * DAY), "0"]
    assert 10 * DAY <= uptime(clock) - before < 10 * DAY + 60
    assert namespace != os.readlink("/proc/self/ns/time")


def test_a_time_namespace_without_offsets_is_a_new_one(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.process["args"] = ["readlink", "/proc/self/ns/time"]
    result = rune.run(bundle)
    assert result.status == 0, result.error
    assert result.out.strip() != os.readlink("/proc/self/ns/time")


def test_exec_and_a_second_container_join_a_time_namespace(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"boottime": {"secs": DAY}}
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle, "first")
    assert rune("start", "first").status == 0
    namespace = os.readlink(f"/proc/{rune.state('first')['pid']}/ns/time")
    assert rune("exec", "first", "readlink", "/proc/self/ns/time").out.strip() == namespace
    assert uptime(rune("exec", "first", "cat", "/proc/uptime").out) > DAY
    del bundle.linux["timeOffsets"]
    bundle.linux["namespaces"][-1]["path"] = f"/proc/{rune.state('first')['pid']}/ns/time"
    bundle.linux["cgroupsPath"] += "-second"
    bundle.process["args"] = ["readlink", "/proc/self/ns/time"]
    assert rune.run(bundle, "second").out.strip() == namespace


def test_clocks_that_the_kernel_refuses_leave_nothing(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"monotonic": {"secs": -100 * 365 * DAY}}
    result = rune.run(bundle)
    assert result.status == 1
    assert "set the clocks of the time namespace: monotonic -3153600000 s 0 ns: " in result.error
    assert rune.leftovers() == []


# proc_pid_stat(5) numbers its fields from 1; behind the name in brackets comes the third.
def stat_fields(text: str) -> list[int]:
    """Give nice, rt_priority and policy."""
    fields = text.rpartition(")")[2].split()
    return [int(fields[number - 3]) for number in (19, 40, 41)]


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        ({"policy": "SCHED_OTHER", "nice": 5}, [5, 0, 0]),
        ({"policy": "SCHED_BATCH", "nice": -7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, [-7, 0, 3]),
        ({"policy": "SCHED_IDLE"}, [0, 0, 5]),
        ({"policy": "SCHED_FIFO", "priority": 10}, [0, 10, 1]),
        ({"policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, [0, 1, 2]),
        ({"policy": "SCHED_DEADLINE", "runtime": 10**6, "deadline": 10**7, "period": 2 * 10**7}, [0, 0, 6]),
        ({"policy": "SCHED_DEADLINE", "runtime": 10**6, "deadline": 10**7}, [0, 0, 6]),
    ],
    ids=["other", "batch", "idle", "fifo", "rr", "deadline", "deadline without period"],
)
def test_a_process_is_scheduled_as_asked(
    rune: Rune, bundle: Bundle, scheduler: dict[str, object], told: list[int]
) -> None:
    bundle.process["scheduler"] = scheduler
    bundle.process["args"] = ["cat", "/proc/self/stat"]
    if scheduler["policy"] in ("SCHED_FIFO", "SCHED_RR") and Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        # Only what the group above has can be given on: this one is right below the first.
        bundle.linux["cgroupsPath"] = f"/inclavare-rt-{os.getpid()}"
        bundle.linux["resources"]["cpu"] = {"realtimeRuntime": 10000}
    result = rune.run(bundle)
    assert result.status == 0, result.error
    assert stat_fields(result.out) == told


def test_without_time_for_real_time_the_error_names_the_setting(rune: Rune, bundle: Bundle) -> None:
    if not Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        pytest.skip("needs control groups v1 with CONFIG_RT_GROUP_SCHED")
    bundle.process["scheduler"] = {"policy": "SCHED_FIFO", "priority": 10}
    result = rune.run(bundle)
    assert result.status == 1
    assert "cannot set the scheduling policy SCHED_FIFO (process.scheduler): Operation not permitted" in result.error
    assert "linux.resources.cpu.realtimeRuntime" in result.error
    assert rune.leftovers() == []


def test_a_policy_of_other_kernels_is_refused_by_name(rune: Rune, bundle: Bundle) -> None:
    bundle.process["scheduler"] = {"policy": "SCHED_ISO"}
    result = rune.run(bundle)
    assert result.status == 1
    assert "process.scheduler.policy: this kernel has no SCHED_ISO" in result.error


def test_exec_is_scheduled_as_its_own_process_says(rune: Rune, bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["args"] = ["sleep", "60"]
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 3}
    rune.create(bundle)
    assert rune("start", "c").status == 0
    assert stat_fields(rune("exec", "c", "cat", "/proc/self/stat").out) == [3, 0, 3]
    document = tmp_path / "process.json"
    process = {"args": ["cat", "/proc/self/stat"], "cwd": "/", "env": ["PATH=/bin"]}
    document.write_text(json.dumps(process | {"scheduler": {"policy": "SCHED_IDLE"}}))
    assert stat_fields(rune("exec", "--process", document, "c").out) == [0, 0, 5]
    document.write_text(json.dumps(process))
    assert stat_fields(rune("exec", "--process", document, "c").out) == [0, 0, 0]


def io_priority_of(pid: int) -> tuple[int, int]:
    """Give the class and the priority that ioprio_get(2) tells."""
    value = ctypes.CDLL(None).syscall(252, 1, pid)
    assert value >= 0
    return value >> 13, value & 7


@pytest.mark.parametrize(
    ("io_priority", "told"),
    [
        ({"class": "IOPRIO_CLASS_RT", "priority": 2}, (1, 2)),
        ({"class": "IOPRIO_CLASS_BE", "priority": 7}, (2, 7)),
        ({"class": "IOPRIO_CLASS_BE"}, (2, 0)),
        ({"class": "IOPRIO_CLASS_IDLE"}, (3, 0)),
    ],
)
def test_reads_and_writes_have_the_priority_asked_for(
    rune: Rune, bundle: Bundle, io_priority: dict[str, object], told: tuple[int, int]
) -> None:
    bundle.process["ioPriority"] = io_priority
    rune.create(bundle)
    assert io_priority_of(rune.state()["pid"]) == told


def test_real_time_reads_are_not_for_user_namespaces(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["namespaces"].append({"type": "user"})
    for member in ("uidMappings", "gidMappings"):
        bundle.linux[member] = [{"containerID": 0, "hostID": 0, "size": 65536}]
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_RT", "priority": 2}
    result = rune.run(bundle)
    assert result.status == 1
    assert "cannot set the I/O priority 2 of IOPRIO_CLASS_RT (process.ioPriority): Operation not permitted" in (
        result.error
    )
    assert rune.leftovers() == []


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({"mode": "MPOL_DEFAULT"}, "default"),
        ({"mode": "MPOL_LOCAL"}, "local"),
        ({"mode": "MPOL_PREFERRED"}, "local"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "prefer=static:0"),
        ({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}, "prefer (many):0"),
        ({"mode": "MPOL_BIND", "nodes": "0-3,7"}, "bind:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}, "bind=balancing:0"),
        (
            {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES"]},
            "bind=relative|balancing:0",
        ),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0"}, "interleave:0"),
        ({"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0"}, "weighted interleave:0"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_memory_comes_from_the_nodes_of_its_policy(
    rune: Rune, bundle: Bundle, policy: dict[str, object], told: str
) -> None:
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("needs a kernel with CONFIG_NUMA")
    weighted = policy["mode"] == "MPOL_WEIGHTED_INTERLEAVE"
    if weighted and not Path("/sys/kernel/mm/mempolicy/weighted_interleave").exists():
        pytest.skip("needs Linux 6.9")
    bundle.linux["memoryPolicy"] = policy
    bundle.process["args"] = ["cat", "/proc/self/numa_maps"]
    result = rune.run(bundle)
    assert result.status == 0, result.error
    assert f" {told} " in result.out.splitlines()[1]


def test_exec_takes_the_containers_memory_policy(rune: Rune, bundle: Bundle) -> None:
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("needs a kernel with CONFIG_NUMA")
    bundle.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0"}
    rune.create(bundle)
    assert " bind:0 " in rune("exec", "c", "cat", "/proc/self/numa_maps").out.splitlines()[1]


def test_nodes_that_the_machine_has_not_are_named(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "900-1023"}
    result = rune.run(bundle)
    assert result.status == 1
    assert "cannot set the memory policy MPOL_BIND of nodes 900-1023 (linux.memoryPolicy)" in result.error
    assert rune.leftovers() == []


@pytest.mark.parametrize(("domain", "told"), [("LINUX", "00000000"), ("LINUX32", "00000008")])
def test_a_personality_is_the_containers_and_that_of_exec(rune: Rune, bundle: Bundle, domain: str, told: str) -> None:
    bundle.linux["personality"] = {"domain": domain}
    rune.create(bundle)
    assert Path(f"/proc/{rune.state()['pid']}/personality").read_text().strip() == told
    assert rune("exec", "c", "cat", "/proc/self/personality").out.strip() == told


def test_linux32_sees_a_32_bit_machine(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["personality"] = {"domain": "LINUX32"}
    bundle.process["args"] = ["uname", "-m"]
    assert rune.run(bundle).out.strip() == "i686"


@pytest.mark.parametrize(
    ("affinity", "told"),
    [
        ({}, "0-1"),
        ({"initial": "1"}, "1"),
        ({"final": "0"}, "0"),
        ({"initial": "0", "final": "1"}, "1"),
        ({"initial": "0", "final": "0-1,77"}, "0-1"),
    ],
)
def test_exec_runs_on_the_cpus_asked_for(
    rune: Rune, bundle: Bundle, tmp_path: Path, affinity: dict[str, str], told: str
) -> None:
    if os.sched_getaffinity(0) != {0, 1}:
        pytest.skip("is written for a machine with two CPUs")
    rune.create(bundle)
    document = tmp_path / "process.json"
    process = {"args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"]}
    document.write_text(json.dumps(process | {"execCPUAffinity": affinity}))
    result = rune("exec", "--process", document, "c")
    # The kernel has the last word on what joins a control group; before Linux 6.2 it forgot the initial CPUs then.
    expected = {told} if "final" in affinity else {told, "0-1"}
    assert result.out.split()[1] in expected, result.error


def test_the_container_itself_takes_no_affinity_of_exec(rune: Rune, bundle: Bundle) -> None:
    bundle.process["execCPUAffinity"] = {"initial": "0", "final": "0"}
    rune.create(bundle)
    assert os.sched_getaffinity(rune.state()["pid"]) == os.sched_getaffinity(0)
    result = rune("exec", "c", "grep", "Cpus_allowed_list", "/proc/self/status")
    assert result.out.split()[1] == "0"


def test_cpus_that_are_not_there_are_named(rune: Rune, bundle: Bundle) -> None:
    bundle.process["execCPUAffinity"] = {"final": "8000-8191"}
    rune.create(bundle)
    result = rune("exec", "c", "true")
    assert result.status != 0
    assert "cannot run on the CPUs 8000-8191 (process.execCPUAffinity.final): Invalid argument" in result.error


def test_exec_has_the_io_priority_of_its_own_process(rune: Rune, bundle: Bundle, tmp_path: Path) -> None:
    rune.create(bundle)
    document = tmp_path / "process.json"
    process = {"args": ["sleep", "60"], "cwd": "/", "env": ["PATH=/bin"]}
    document.write_text(json.dumps(process | {"ioPriority": {"class": "IOPRIO_CLASS_IDLE"}}))
    pid = tmp_path / "pid"
    with (tmp_path / "exec.out").open("wb") as out:
        command = rune.command("exec", "--detach", "--pid-file", pid, "--process", document, "c")
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True, timeout=60)
    assert io_priority_of(int(pid.read_text())) == (3, 0)


def test_a_time_namespace_goes_with_a_user_namespace(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["namespaces"] += [{"type": "user"}, {"type": "time"}]
    for member in ("uidMappings", "gidMappings"):
        bundle.linux[member] = [{"containerID": 0, "hostID": 0, "size": 65536}]
    bundle.linux["timeOffsets"] = {"boottime": {"secs": DAY}}
    rune.create(bundle)
    assert uptime(rune("exec", "c", "cat", "/proc/uptime").out) > DAY
