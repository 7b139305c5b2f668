"""A containerd of the tests' own, of any version, in namespaces that end with it, and its shims.

The namespaces are held by a process of their own: containerd may die and come back, and find its tasks.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.client import Client, end

START_TIMEOUT_S = 60
RUNTIME = "io.containerd.rune.v2"
HOLD = "ip link set lo up && mount -t tmpfs tmpfs /run && touch $0 && exec sleep infinity"
CONFIG = """
    version = {version}
    oom_score = 0
    root = "{directory}/root"
    state = "{directory}/state"
    [grpc]
    address = "{directory}/containerd.sock"
    [plugins."io.containerd.internal.v1.opt"]
    path = "{directory}/opt"
    """
# The plugins that changed their names with version 3 of the configuration, which is containerd 2's.
CRI = {
    2: """
    [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "{pause}"
    restrict_oom_score_adj = true
    """,
    3: """
    [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"
    [plugins."io.containerd.cri.v1.runtime"]
    restrict_oom_score_adj = true
    """,
}


class Containerd(Client):
    """A daemon. `programs` has its binaries, None for the machine's; `bin` has our shim."""

    def __init__(self, directory: Path, checkout: Path, programs: Path | None, *, pause: str) -> None:
        self.directory = directory
        self.socket = directory / "containerd.sock"
        self.cgroup_parent = f"/inclavare-containerd-{os.getpid()}"
        self.known_leftovers: set[str] = set()
        self._holder: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._path = ":".join(map(str, [*([programs] if programs else []), checkout / "build/bin", os.environ["PATH"]]))
        self.environment = {"PATH": self._path, "HOME": str(directory)}
        # "containerd PACKAGE VERSION REVISION"
        self.version = tuple(map(int, re.findall(r"\d+", self._where("containerd", "--version").split()[2])[:3]))
        self._config = directory / "containerd.toml"
        version = 3 if self.version >= (2,) else 2
        text = (CONFIG + CRI[version]).format(version=version, directory=directory, pause=pause)
        self._config.write_text(re.sub(r"^ +", "", text, flags=re.MULTILINE).lstrip())
        shim = checkout / "build/bin/containerd-shim-rune-v2"
        register: list[str | Path] = ["register", "containerd", "--config", self._config, "--shim", shim]
        subprocess.run([checkout / "build/bin/runectl", *register], check=True, stdout=subprocess.DEVNULL, timeout=60)

    def start(self, platform: str = "emulated") -> None:
        """Start the daemon and wait until it answers. Raises when it ends, with the end of its log.

        `platform` is what it tells its shims about enclaves.
        """
        if self._holder is None:
            ready = self.directory / "ready"
            isolated = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", HOLD, str(ready)]
            self._holder = subprocess.Popen(isolated, stdin=subprocess.DEVNULL, start_new_session=True)
            self.wait_until(ready.exists)
        with (self.directory / "containerd.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [*self.place(), "containerd", "--config", str(self._config)],
                env=self.environment | {"RUNE_SGX_PLATFORM": platform},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait_until(lambda: self("version").returncode == 0)

    def place(self) -> list[str]:
        """Return the words that run a command where the daemon is."""
        assert self._holder is not None
        return ["nsenter", f"--target={self._holder.pid}", "--net", "--mount", "--"]

    def kill(self) -> None:
        """End the daemon as a crash would; its tasks stay."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait()
        self._daemon = None

    def stop(self) -> list[str]:
        """Remove all that the tests made, end the daemon, and tell what is left on the machine."""
        left = ["a daemon that does not answer"]
        if self._daemon is not None and self("version").returncode == 0:
            self.remove_containers()
            left = self.leftovers()
        left += end(process for process in (self._daemon, self._holder) if process is not None)
        for parent in Path("/sys/fs/cgroup").glob(f"*{self.cgroup_parent}"):
            for directory, _, _ in os.walk(parent, topdown=False):
                Path(directory).rmdir()
        return left

    # --- the client ------------------------------------------------------------------------------------------------

    def command(self, *words: str | Path) -> list[str]:
        return [*self.place(), "ctr", "--address", str(self.socket), *map(str, words)]

    # --- what is there ---------------------------------------------------------------------------------------------

    def shims(self) -> list[int]:
        """Return the pids of all shims of this daemon, without the children that carry out their operations."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                parent = int((process / "stat").read_text().rpartition(") ")[2].split()[1])
            except OSError:  # it ended
                continue
            if b"containerd-shim-" in words[0] and os.fsencode(self.socket) in words and b"delete" not in words:
                found[int(process.name)] = parent
        return [pid for pid, parent in found.items() if parent not in found]

    def tasks(self, namespace: str = "default") -> dict[str, tuple[int, str]]:
        """Return pid and status of each task, by its name."""
        lines = self.ok("--namespace", namespace, "task", "list").splitlines()[1:]
        return {name: (int(pid), status) for name, pid, status in (line.split() for line in lines)}

    def remove_containers(self) -> None:
        for namespace in self.ok("namespace", "list", "--quiet").split():
            ctr = ("--namespace", namespace)
            for task in self.ok(*ctr, "task", "list", "--quiet").split():
                self(*ctr, "task", "delete", "--force", task)
            for container in self.ok(*ctr, "container", "list", "--quiet").split():
                self(*ctr, "container", "delete", container)

    def leftovers(self, patience_s: float = 10) -> list[str]:
        """What containers left: state of the runtime, bundles, sockets, mounts, cgroups, shims.

        A shim ends a moment after its last event was taken, and what dead ones have left is removed in the background:
        `patience_s` is for that.
        """
        deadline = time.monotonic() + patience_s
        while (left := self._leftovers()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left

    def _leftovers(self) -> list[str]:
        assert self._holder is not None
        run = Path(f"/proc/{self._holder.pid}/root/run/containerd")
        left = [f"state {path}" for path in run.glob("runc/*/[!.]*")]
        left += [f"socket {path}" for path in run.glob("s/*")]
        left += [f"bundle {path}" for path in self.directory.glob("state/io.containerd.runtime.v2.task/*/*")]
        left += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"*{self.cgroup_parent}/*/")]
        for mount in Path(f"/proc/{self._holder.pid}/mountinfo").read_text().splitlines():
            if f" {self.directory}/" in mount:
                left.append(f"mount {mount}")
        return left + [f"shim {pid}" for pid in self.shims()]

    def log(self) -> str:
        """Return the last lines of what the daemon wrote."""
        return (self.directory / "containerd.log").read_text()[-6000:]

    def wait_until(self, ready: Callable[[], object], timeout_s: float = START_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            for process in (self._holder, self._daemon):
                assert process is None or process.poll() is None, f"{process.args!r} ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"it does not come to pass:\n{self.log()}"
            time.sleep(0.05)

    def _where(self, *words: str) -> str:
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout
