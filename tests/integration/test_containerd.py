"""containerd's own shim with rune in the place of runc: `ctr run --runc-binary`."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Docker

Ctr = Callable[..., subprocess.CompletedProcess[str]]
NAME = f"inclavare-{os.getpid()}"


@pytest.fixture
def ctr(docker: Docker) -> Ctr:
    """Return a function that runs `ctr` where the daemon is."""

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        place = ["nsenter", f"--target={docker.pid_of_containerd}", "--net", "--mount"]
        command = [*place, "ctr", "--address", f"{docker.directory}/containerd.sock", *words]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
        )

    return run


@pytest.fixture
def container(rune_program: Path, busybox_rootfs: Path) -> list[str]:
    """Return the words that name the runtime, the root filesystem and the container."""
    runtime = ["--runtime", "io.containerd.runc.v2", "--runc-binary", str(rune_program)]
    group = ["--cgroup", f"/inclavare-docker-{os.getpid()}/{NAME}"]
    return [*runtime, *group, "--env", "PATH=/bin", "--rootfs", str(busybox_rootfs), NAME]


def test_a_task_runs_and_tells_its_status(ctr: Ctr, container: list[str]) -> None:
    done = ctr("run", "--rm", *container, "sh", "-c", "echo out; echo error >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert "error" in done.stderr


def test_a_program_that_does_not_exist_is_named(ctr: Ctr, container: list[str]) -> None:
    done = ctr("run", "--rm", *container, "no-such-program")
    assert done.returncode == 1
    assert "executable file not found in $PATH" in done.stderr


def test_the_life_of_a_task(ctr: Ctr, container: list[str]) -> None:
    assert ctr("run", "--detach", *container, "sleep", "100").returncode == 0
    try:
        assert ctr("task", "exec", "--exec-id", "e", NAME, "echo", "inside").stdout == "inside\n"
        assert ctr("task", "pause", NAME).returncode == 0
        assert "PAUSED" in ctr("task", "list").stdout
        assert ctr("task", "resume", NAME).returncode == 0
        assert "RUNNING" in ctr("task", "list").stdout
        assert "memory" in ctr("task", "metrics", NAME).stdout
        assert len(ctr("task", "ps", NAME).stdout.splitlines()) == 2
        assert ctr("task", "kill", "--signal", "KILL", NAME).returncode == 0
        deadline = time.monotonic() + 20
        while "STOPPED" not in ctr("task", "list").stdout:
            assert time.monotonic() < deadline
    finally:
        ctr("task", "kill", "--signal", "KILL", NAME)
        assert ctr("task", "delete", "--force", NAME).returncode in (0, 137)
        assert ctr("container", "delete", NAME).returncode == 0
    assert NAME not in ctr("container", "list").stdout
