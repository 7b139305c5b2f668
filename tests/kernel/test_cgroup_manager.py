"""Which driver makes the control groups, where that can be seen without systemd (with it: tests/vm)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel.conftest import Bundle, Rune

NO_BUS = "unix:path=/nonexistent/bus"


@pytest.mark.parametrize("option", ["--systemd-cgroup", "--cgroup-manager=systemd"])
def test_a_host_without_systemd_says_so_and_nothing_is_made(rune: Rune, bundle: Bundle, option: str) -> None:
    del bundle.linux["cgroupsPath"]
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": NO_BUS, "DBUS_SESSION_BUS_ADDRESS": NO_BUS}
    result = rune(option, "run", "--bundle", bundle.write(), "c", env=environment)
    assert result.status == 1
    assert "cannot reach systemd: cannot connect to the D-Bus daemon: /nonexistent/bus: No such file" in result.error
    assert "hint: " in result.error
    assert rune.leftovers() == []


def test_without_control_groups_a_container_is_where_rune_is(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["cat", "/proc/self/cgroup"]
    result = rune("--cgroup-manager", "disabled", "run", "--bundle", bundle.write(), "c")
    assert (result.status, result.error) == (0, "")
    assert result.out == Path("/proc/self/cgroup").read_text()


def test_without_control_groups_a_container_is_created_killed_and_deleted(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "60"]
    words = rune.command("--cgroup-manager=disabled", "create", "--bundle", bundle.write(), "c")
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    assert rune("start", "c").status == 0
    assert rune.state()["status"] == "running"
    assert rune("exec", "c", "true").status == 0
    assert rune("kill", "c", "KILL").status == 0
    rune.wait_for("stopped")
    assert rune("delete", "c").status == 0


def test_without_control_groups_a_limit_is_refused(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["resources"] = {"pids": {"limit": 17}}
    result = rune("--cgroup-manager=disabled", "run", "--bundle", bundle.write(), "c")
    assert result.status == 1
    assert "linux.resources: pids.max cannot be set with --cgroup-manager=disabled" in result.error


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--cgroup-manager=other"], "invalid cgroup-manager: 'other'"),
        (["--systemd-cgroup", "--cgroup-manager=cgroupfs"], "contradict each other"),
    ],
)
def test_a_driver_that_is_none_is_refused(rune: Rune, options: list[str], complaint: str) -> None:
    result = rune(*options, "list")
    assert result.status == 1
    assert complaint in result.error
