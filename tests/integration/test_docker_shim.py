"""Docker 23 and later runs our shim itself, as a runtime type: no runc is involved, and no runtime binary.

The machine's own Docker may be older, and knows only paths of runtimes (test_docker.py).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Docker
from tests.integration.debian_packages import unpacked

# Releases of Debian, and what they have of both daemons.
RELEASES = {"docker 26, containerd 1.7": "trixie", "docker 28, containerd 2": "forky"}
TYPE = "--runtime=io.containerd.rune.v2"
GREETING = "Hello Inclavare Containers!"
SUCCESS = "Enclave runtime skeleton initialization succeeded"


@pytest.fixture(scope="module", params=RELEASES)
def docker(
    tmp_path_factory: pytest.TempPathFactory,
    checkout: Path,
    busybox_rootfs: Path,
    native: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Docker]:
    """Return an engine that knows the shim by its name, and as `rune` by its path."""
    for needed in ("as_root", "rune_program"):
        request.getfixturevalue(needed)
    if missing := [name for name in ("docker", "runc", "iptables") if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)} (Debian packages docker.io, runc and iptables)")
    release = RELEASES[request.param]
    engine, containerd = unpacked("docker.io", release), unpacked("containerd", release)
    directory = tmp_path_factory.mktemp("docker")
    places = [engine / "usr/sbin", engine / "usr/bin", containerd / "usr/bin", checkout / "build/bin"]
    path = ":".join([*map(str, places), *map(str, ["/usr/sbin", "/usr/bin", "/sbin", "/bin"])])
    docker = Docker(directory, {}, {"PATH": path, "RUNE_SGX_PLATFORM": "emulated"})
    shim = checkout / "build/bin/containerd-shim-rune-v2"
    register: list[str | Path] = ["register", "docker", "--config", directory / "daemon.json", "--shim", shim]
    subprocess.run([checkout / "build/bin/runectl", *register], check=True, stdout=subprocess.DEVNULL, timeout=60)
    enclave = directory / "skeleton/run/skeleton"
    enclave.mkdir(parents=True)
    for name in ("encl.bin", "encl.ss"):
        shutil.copy(native / "skeleton" / name, enclave)
    try:
        docker.start()
        docker.import_image("busybox", busybox_rootfs, 'CMD ["sh"]', "ENV PATH=/bin")
        docker.import_image("skeleton", directory / "skeleton", 'CMD ["skeleton"]', "WORKDIR /run/skeleton")
        yield docker
    finally:
        left = docker.stop()
        shutil.rmtree(directory, ignore_errors=True)
    assert not left


@pytest.fixture(params=[TYPE, "--runtime=rune"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_every_test_looks_for_at_its_end_can_be_found(docker: Docker, runtime: str) -> None:
    docker.ok("run", "--detach", runtime, "busybox", "sleep", "100")
    assert {left.split()[0] for left in docker.leftovers()} == {"state", "cgroup", "mount", "process"}


def test_run_exits_with_the_programs_status_and_keeps_its_outputs_apart(docker: Docker, runtime: str) -> None:
    done = docker("run", "--rm", runtime, "busybox", "sh", "-c", "echo out; echo error >&2; exit 42")
    assert (done.returncode, done.stdout, done.stderr) == (42, "out\n", "error\n")


@pytest.mark.parametrize(("program", "status"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_what_cannot_be_run_shows_in_the_status(docker: Docker, program: str, status: int) -> None:
    assert docker("run", "--rm", TYPE, "busybox", program).returncode == status


def test_the_program_reads_its_input_to_the_end(docker: Docker) -> None:
    for _ in range(5):
        assert docker.ok("run", "--rm", "--interactive", TYPE, "busybox", "wc", "-w", input="a b c\n") == "3"


def test_run_and_exec_on_a_terminal(docker: Docker, runtime: str) -> None:
    status, shown = docker.terminal("run", "-it", "--rm", runtime, "busybox", "sh", typed="tty; exit 3\n")
    assert status == 3
    assert "/dev/pts/0" in shown
    container = docker.ok("run", "--detach", runtime, "busybox", "sleep", "100")
    status, shown = docker.terminal("exec", "-it", container, "sh", typed="tty; exit 4\n")
    assert status == 4
    assert "/dev/pts/" in shown


def test_the_life_of_a_container(docker: Docker) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo hello; while :; do sleep 0.05; done"
    container = docker.ok("run", "--detach", TYPE, "--memory=64m", "busybox", "sh", "-c", script)
    assert docker("exec", container, "sh", "-c", "exit 9").returncode == 9
    assert docker.ok("exec", container, "hostname") == container[:12]
    assert "trap" in docker.ok("top", container)
    assert "64MiB" in docker.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", container)
    docker.ok("pause", container)
    assert docker.ok("inspect", "--format", "{{.State.Status}}", container) == "paused"
    docker.ok("unpause", container)
    docker.ok("update", "--memory=96m", "--memory-swap=96m", container)
    limit = docker.ok(
        "exec", container, "sh", "-c", "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes || cat memory.max"
    )
    assert limit == str(96 << 20)
    docker.ok("stop", container)
    assert docker.ok("wait", container) == "5"
    assert docker.ok("logs", container) == "hello\nbye"
    docker.ok("start", container)
    docker.ok("kill", container)
    assert docker.ok("wait", container) == "137"


def test_the_bridges_network_and_a_healthcheck_work(docker: Docker) -> None:
    options = ("--detach", "--health-cmd=true", "--health-interval=1s", TYPE)
    container = docker.ok("run", *options, "busybox", "sleep", "100")
    assert "eth0" in docker.ok("exec", container, "ip", "address")
    deadline = time.monotonic() + 20
    while docker.ok("inspect", "--format", "{{.State.Health.Status}}", container) != "healthy":
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_too_much_memory_is_called_oomkilled(docker: Docker) -> None:
    options = ("--detach", "--memory=16m", "--memory-swap=16m", TYPE)
    script = "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done"
    container = docker.ok("run", *options, "busybox", "sh", "-c", script)
    assert docker.ok("wait", container) == "137"
    assert json.loads(docker.ok("inspect", "--format", "{{json .State.OOMKilled}}", container))


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_enclave_container(docker: Docker, native: Path, version: int) -> None:
    values = {"TYPE": "intelSgx", "RUNTIME_PATH": f"{native}/liberpal-skeleton-v{version}.so", "RUNTIME_ARGS": "debug"}
    options = [f"--env=ENCLAVE_{name}={value}" for name, value in values.items()]
    done = docker("run", "--rm", TYPE, *options, "skeleton")
    assert done.returncode == 0, done.stderr
    assert {GREETING, SUCCESS, "platform: emulated"} <= set((done.stdout + done.stderr).splitlines())
    container = docker.ok("run", "--detach", TYPE, *options, "skeleton", "skeleton", "wait_timeout", "100")
    done = docker("exec", container, "skeleton")
    assert done.returncode == 0, done.stderr
    docker.ok("stop", container)
    assert docker.ok("wait", container) == "143"
