"""podman with rune as its runtime, configured by the drop-in that `make install` writes, in a store of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# No network: podman's bridge would be the host's.
RUN = ("run", "--network=none")
# More than that is not ours to give where root may not raise limits.
LIMITS = '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'


class Podman:
    """podman with its own places for everything."""

    def __init__(self, directory: Path, rune: Path, drop_in: str) -> None:
        self.directory = directory
        configuration = directory / "containers.conf"
        configuration.write_text(LIMITS + drop_in.replace("@RUNE@", str(rune)))
        self._environment = {**os.environ, "CONTAINERS_CONF": str(configuration)}
        places = [f"--{name}={directory}/{name}" for name in ("root", "runroot", "tmpdir")]
        options = ["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime=rune"]
        self._command = ["podman", *places, *options]

    def __call__(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 120} | options
        return subprocess.run([*self._command, *words], env=self._environment, text=True, check=False, **options)

    def ok(self, *words: str | Path, **options: Any) -> str:
        done = self(*words, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")


@pytest.fixture(scope="module")
def podman(
    tmp_path_factory: pytest.TempPathFactory, rune_program: Path, busybox_rootfs: Path, checkout: Path, as_root: None
) -> Iterator[Podman]:
    del as_root
    if shutil.which("podman") is None:
        pytest.skip("needs podman (Debian package of that name)")
    directory = tmp_path_factory.mktemp("podman")
    engine = Podman(directory, rune_program, (checkout / "tools/podman.conf").read_text())
    with tarfile.open(directory / "image.tar", "w") as archive:
        archive.add(busybox_rootfs, arcname=".")
    engine.ok("import", "--change", "ENV=PATH=/bin", directory / "image.tar", "busybox")
    yield engine
    engine("rm", "--all", "--force", "--time=0")
    engine("system", "reset", "--force")


@pytest.fixture
def container(podman: Podman) -> Iterator[str]:
    """Return a container that sleeps."""
    container = podman.ok(*RUN, "--detach", "busybox", "sleep", "100")
    yield container
    podman.ok("rm", "--force", "--time=0", container)


def state_of(podman: Podman, container: str) -> str:
    return podman.ok("inspect", "--format", "{{.State.Status}}", container)


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_run_exits_with_the_programs_status(podman: Podman, status: int) -> None:
    assert podman(*RUN, "--rm", "busybox", "sh", "-c", f"exit {status}").returncode == status


def test_output_and_input_go_through(podman: Podman) -> None:
    done = podman(*RUN, "--rm", "--interactive", "busybox", "sh", "-c", "cat; echo error >&2", stdin=None, input="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "error\n")


@pytest.mark.parametrize(
    ("program", "status", "words"),
    [("no-such-program", 127, "executable file not found in $PATH"), ("/etc/passwd", 126, "permission denied")],
)
def test_what_cannot_run_has_the_status_of_a_shell(podman: Podman, program: str, status: int, words: str) -> None:
    done = podman(*RUN, "--rm", "busybox", program)
    assert done.returncode == status
    assert words in done.stderr


def test_exec(podman: Podman, container: str) -> None:
    assert podman.ok("exec", "--env", "A=b c", container, "sh", "-c", "echo $A") == "b c"
    assert podman("exec", container, "sh", "-c", "exit 9").returncode == 9


def test_a_paused_container_goes_on_when_it_is_unpaused(podman: Podman, container: str) -> None:
    podman.ok("pause", container)
    assert state_of(podman, container) == "paused"
    podman.ok("unpause", container)
    assert state_of(podman, container) == "running"


def test_limits_are_changed_while_it_runs(podman: Podman, container: str) -> None:
    podman.ok("update", "--memory=64m", "--cpus=0.5", container)
    files = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu*/cpu.cfs_quota_us || cat memory.max cpu.max"
    shown = podman.ok("exec", container, "sh", "-c", files)
    assert str(64 << 20) in shown
    assert "50000" in shown


def test_top_stats_and_logs(podman: Podman, container: str) -> None:
    assert "sleep 100" in podman.ok("top", container)
    assert podman.ok("stats", "--no-stream", "--format", "{{.PIDs}}", container) == "1"
    talker = podman.ok(*RUN, "--detach", "busybox", "echo", "words")
    podman.ok("wait", talker)
    assert podman.ok("logs", talker) == "words"
    podman.ok("rm", talker)


def test_files_are_copied_in_and_out(podman: Podman, container: str) -> None:
    (podman.directory / "letter").write_text("dear reader")
    podman.ok("cp", podman.directory / "letter", f"{container}:/letter")
    assert podman.ok("exec", container, "cat", "/letter") == "dear reader"
    podman.ok("cp", f"{container}:/letter", podman.directory / "back")
    assert (podman.directory / "back").read_text() == "dear reader"


def test_stop_start_restart_and_kill(podman: Podman, container: str) -> None:
    podman.ok("stop", "--time=0", container)
    assert state_of(podman, container) == "exited"
    podman.ok("start", container)
    podman.ok("restart", "--time=0", container)
    assert state_of(podman, container) == "running"
    podman.ok("kill", container)
    assert podman.ok("wait", container) == "137"


def test_a_health_check_is_carried_out(podman: Podman) -> None:
    container = podman.ok(*RUN, "--detach", "--health-cmd=true", "--health-interval=disable", "busybox", "sleep", "100")
    assert podman("healthcheck", "run", container).returncode == 0
    podman.ok("rm", "--force", "--time=0", container)


def test_a_pod_shares_its_namespaces(podman: Podman) -> None:
    podman.ok("pod", "create", "--infra=false", "--name", "pod")
    assert podman.ok("run", "--rm", "--pod=pod", "--network=none", "busybox", "echo", "in the pod") == "in the pod"
    podman.ok("pod", "rm", "--force", "pod")
