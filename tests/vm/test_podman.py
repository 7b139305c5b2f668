"""podman, which has systemd make control groups by default, with rune as its runtime."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from inclavare.linux.cgroups import Layout
from tests.kernel.conftest import Rune
from tests.vm.conftest import Systemctl

MIB = 1 << 20


@pytest.fixture
def podman(rune: Rune) -> list[str]:
    return ["podman", f"--runtime={rune.program}", "--cgroup-manager=systemd"]


def run(*words: str | Path) -> str:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_podman_runs_execs_and_removes_a_container_that_systemd_knows(
    podman: list[str], rootfs: Path, systemctl: Systemctl, layout: Layout
) -> None:
    name = f"inclavare-{os.getpid()}"
    limits = ["--memory=64m", "--pids-limit=50", "--ulimit=nofile=1024:1024"]
    rest = ["--network=none", "--rootfs", str(rootfs), "sleep", "60"]
    container = run(*podman, "run", "--detach", "--name", name, *limits, *rest).strip()
    try:
        unit = f"libpod-{container}.scope"
        assert systemctl.show(unit, "ActiveState") == "active"
        assert systemctl.show(unit, "Slice") == "machine.slice"
        assert systemctl.show(unit, "MemoryMax" if layout.is_v2 else "MemoryLimit") == f"{64 * MIB}"
        assert systemctl.show(unit, "TasksMax") == "50"
        inside = run(*podman, "exec", name, "cat", "/proc/self/cgroup")
        assert inside.splitlines()
        (described,) = json.loads(run(*podman, "inspect", name))
        assert described["State"]["Status"] == "running"
    finally:
        run(*podman, "rm", "--force", "--time=0", name)
    assert systemctl("list-units", "--all", "--plain", "--no-legend", f"libpod-{container}.scope") == ""
