"""A Docker engine of the tests' own: containerd and dockerd in namespaces that end with them.

Own network namespace: the bridge and the packet filter rules are nobody else's. Own mount namespace, with a fresh /run
and changes to /etc kept elsewhere: nothing of the engine reaches the host's files. Only cgroups are shared, below a
parent of their own.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client import Client, end
from tests.integration.containerd import Containerd
from tests.integration.debian_packages import unpacked
from tests.integration.images import write_archive

START_TIMEOUT_S = 60
PREPARE = """
set -e
ip link set lo up
mkdir -p "$0/etc" "$0/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$0/etc,workdir=$0/work" /etc
mount -t tmpfs tmpfs /run
exec containerd --config "$0/containerd.toml"
"""


class Docker(Client):
    """A running engine and its command line client. `environment` is the daemons' where it is not ours."""

    def __init__(
        self, directory: Path, runtimes: dict[str, dict[str, Any]], environment: dict[str, str] | None = None
    ) -> None:
        self.directory = directory
        self._daemons_environment = os.environ | (environment or {})
        self.cgroup_parent = f"/inclavare-docker-{os.getpid()}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._socket = directory / "docker.sock"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "DOCKER_HOST": f"unix://{self._socket}",
            "DOCKER_CONFIG": str(directory / "client"),
            "DOCKER_BUILDKIT": "0",  # the engine's own builder, which every client has
        }
        (directory / "containerd.toml").write_text(
            'version = 2\noom_score = 0\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'root = "{directory}/containerd"\nstate = "{directory}/containerd-state"\n'
            f'[grpc]\naddress = "{directory}/containerd.sock"\n'
        )
        (directory / "daemon.json").write_text(json.dumps({"runtimes": runtimes}))

    def start(self) -> None:
        """Start both daemons and wait until they answer. Raises when one ends, with the end of its log."""
        directory = self.directory
        isolated = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", PREPARE, str(directory)]
        containerd = self._spawn("containerd", isolated)
        self._wait_until((directory / "containerd.sock").exists)
        self._spawn(
            "dockerd",
            [
                *("nsenter", f"--target={containerd.pid}", "--net", "--mount"),
                *("dockerd", f"--config-file={directory}/daemon.json", f"--host=unix://{self._socket}"),
                *(f"--containerd={directory}/containerd.sock", f"--pidfile={directory}/docker.pid"),
                *(f"--data-root={directory}/data", f"--exec-root={directory}/exec"),
                *("--storage-driver=overlay2", "--exec-opt=native.cgroupdriver=cgroupfs"),
                *(["--oom-score-adjust=0"] if self._version() < (24,) else []),  # later it is left as it is
                f"--cgroup-parent={self.cgroup_parent}",
            ],
        )
        self._wait_until(lambda: self("version", timeout=10).returncode == 0)

    def _version(self) -> tuple[int, ...]:
        said = subprocess.run(
            ["dockerd", "--version"], env=self._daemons_environment, capture_output=True, text=True, check=True
        )
        return tuple(map(int, re.findall(r"\d+", said.stdout)[:2]))  # Docker version 20.10.24, build 1

    @property
    def pid_of_containerd(self) -> int:
        return self._processes[0].pid

    def stop(self) -> list[str]:
        """Remove the containers, end both daemons, and tell what is left on the machine."""
        left = ["an engine that does not answer"]
        if self("version", timeout=10).returncode == 0:
            self.remove_containers()
            left = self.leftovers()
        left += end(reversed(self._processes))
        for parent in Path("/sys/fs/cgroup").glob(f"*{self.cgroup_parent}"):
            parent.rmdir()
        return left

    def command(self, *words: str | Path) -> list[str]:
        return ["docker", *map(str, words)]

    def import_image(self, name: str, rootfs: Path, *changes: str) -> None:
        """Make an image of a root filesystem; `changes` are Dockerfile instructions."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(rootfs, arcname=".")
        words = [word for change in changes for word in ("--change", change)]
        subprocess.run(
            self.command("import", *words, "-", name),
            env=self.environment,
            input=archive.getvalue(),
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )

    def on_host(self, script: str) -> None:
        """Run a shell script in the mount namespace of the daemons, which is the containers' host."""
        words = ["nsenter", f"--target={self._processes[0].pid}", "--mount", "sh", "-ec", script]
        subprocess.run(words, check=True, timeout=60)

    def remove_containers(self) -> None:
        if containers := self.ok("ps", "--all", "--quiet").split():
            self.ok("rm", "--force", *containers)

    def leftovers(self) -> list[str]:
        """What containers left: state directories of the runtime, mounts, cgroups, shims."""
        left = [f"state {path}" for path in self.directory.glob("exec/runtime-*/moby/[!.]*")]
        run = Path(f"/proc/{self.pid_of_containerd}/root/run/containerd")  # where shims of other names keep theirs
        left += [f"state {path}" for path in run.glob("runc/moby/[!.]*")]
        left += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"*{self.cgroup_parent}/*/")]
        for daemon in self._processes:
            for mount in Path(f"/proc/{daemon.pid}/mountinfo").read_text().splitlines():
                if re.search(rf" {re.escape(str(self.directory))}/\S*(/merged|/rootfs|/netns/[0-9a-f]+) ", mount):
                    left.append(f"mount {mount}")
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # it ended
                continue
            if "containerd-shim" in words and str(self.directory) in words:
                left.append(f"process {process.name}: {words}")
        return left

    def log(self) -> str:
        """Return the last lines of what the daemons wrote."""
        return "\n".join(path.read_text()[-4000:] for path in sorted(self.directory.glob("*.log")))

    def _spawn(self, name: str, words: list[str]) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                words,
                env=self._daemons_environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(process)
        return process

    def _wait_until(self, ready: Any) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            dead = [process for process in self._processes if process.poll() is not None]
            assert not dead, f"{dead[0].args!r} ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"the engine does not answer:\n{self.log()}"
            time.sleep(0.2)


@pytest.fixture(scope="session")
def docker(
    tmp_path_factory: pytest.TempPathFactory, rune_program: Path, busybox_rootfs: Path, request: pytest.FixtureRequest
) -> Iterator[Docker]:
    request.getfixturevalue("as_root")
    if missing := [name for name in ("containerd", "dockerd", "docker") if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)} (Debian packages docker.io and containerd)")
    directory = tmp_path_factory.mktemp("docker")
    engine = Docker(
        directory,
        {
            "rune": {"path": str(rune_program)},
            "rune-emulated": {"path": str(rune_program), "runtimeArgs": ["--sgx-platform", "emulated"]},
        },
    )
    try:
        engine.start()
        engine.import_image("busybox", busybox_rootfs, 'CMD ["sh"]', "ENV PATH=/bin")
        yield engine
    finally:
        left = engine.stop()
        shutil.rmtree(directory, ignore_errors=True)
    assert not left


# The machine's own, and the releases of Debian that the others come from. Version 2 has another configuration file.
CONTAINERDS = {"containerd 1.6": None, "containerd 1.7": "trixie", "containerd 2": "forky"}
BUSYBOX, SKELETON = "docker.io/library/busybox:local", "docker.io/library/skeleton:local"


@pytest.fixture(scope="session", params=CONTAINERDS)
def containerd(
    tmp_path_factory: pytest.TempPathFactory,
    busybox_rootfs: Path,
    native: Path,
    checkout: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Containerd]:
    """A daemon that knows the shim, for each version, with an image of busybox and one of the skeleton's enclave."""
    for needed in ("as_root", "rune_program"):
        request.getfixturevalue(needed)
    release = CONTAINERDS[request.param]
    if release is None and shutil.which("containerd") is None:
        pytest.skip("needs containerd (Debian package containerd)")
    programs = unpacked("containerd", release) / "usr/bin" if release else None
    directory = tmp_path_factory.mktemp("containerd")
    engine = Containerd(directory, checkout, programs, pause=BUSYBOX)
    (directory / "skeleton/opt/skeleton").mkdir(parents=True)
    for name in ("encl.bin", "encl.ss"):
        shutil.copy(native / "skeleton" / name, directory / "skeleton/opt/skeleton")
    write_archive(directory / "busybox.tar", BUSYBOX, busybox_rootfs, {"Cmd": ["sleep", "1000"], "Env": ["PATH=/bin"]})
    # Not below /run, where `ctr` has something else mounted.
    skeleton = {"Cmd": ["skeleton"], "WorkingDir": "/opt/skeleton"}
    write_archive(directory / "skeleton.tar", SKELETON, directory / "skeleton", skeleton)
    try:
        engine.start()
        for name, namespace in product(("busybox", "skeleton"), ("default", "k8s.io")):
            engine.ok("--namespace", namespace, "image", "import", directory / f"{name}.tar")
        yield engine
    finally:
        left = engine.stop()
        shutil.rmtree(directory, ignore_errors=True)
    assert not left


@pytest.fixture(autouse=True)
def _containers_end_with_their_test(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "docker" in request.fixturenames:
        engine = request.getfixturevalue("docker")
        engine.remove_containers()
        assert not engine.leftovers()
    if "containerd" in request.fixturenames:
        daemon: Containerd = request.getfixturevalue("containerd")
        daemon.remove_containers()
        left = set(daemon.leftovers())
        fresh, daemon.known_leftovers = left - daemon.known_leftovers, left  # one test's fault is not the next one's
        assert not fresh
