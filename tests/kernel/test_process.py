"""What a process is given beside its program: clocks, scheduling, priorities, memory policy, personality."""

from __future__ import annotations

import os
from pathlib import Path

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
