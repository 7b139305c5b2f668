"""Our shim as containerd starts it, in namespaces of its own, and a client that speaks to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.containerd_kit import schema
from tests.containerd_kit.ttrpc import Client, RpcError

BOOTSTRAP = "containerd.runtime.bootstrap.v1"
ANSWER_TIMEOUT_S = 90

# Where the shim runs: /etc and /run are its own, and end with it.
PREPARE = """
set -e
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$0/etc,workdir=$0/work" /etc
mount -t tmpfs tmpfs /run
exec "$@"
"""


class Shim:
    """`containerd-shim-rune-v2 start`, and calls of the Task service that it serves then."""

    def __init__(self, program: Path, directory: Path, settings: str) -> None:
        self._program = program
        self._directory = directory
        self._place = tempfile.mkdtemp(prefix="shim-")  # a socket's path is short
        for name in ("etc/inclavare-containers", "work"):
            (directory / name).mkdir(parents=True)
        config = directory / "etc/inclavare-containers/config.toml"
        config.write_text(settings)
        self.log = b""
        self.pid = 0
        self.environment = {"PATH": os.environ["PATH"]}
        self._address = ""

    def start(self, bundle: Path, container: str) -> None:
        """Start the shim of a bundle, as containerd 2.3 does."""
        os.mkfifo(bundle / "log")
        log = os.open(bundle / "log", os.O_RDWR | os.O_CLOEXEC)
        threading.Thread(target=self._read_log, args=(log,), daemon=True).start()
        asked = schema.make(
            f"{BOOTSTRAP}.BootstrapParams", instance_id=container, namespace="test", socket_dir=self._place
        )
        words = [str(self._program), "-namespace", "test", "-id", container, "-address", "/none", "start"]
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", PREPARE, str(self._directory), *words],
            cwd=bundle,
            input=asked.SerializeToString(),
            env=self.environment,
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
        answer = schema.message_class(f"{BOOTSTRAP}.BootstrapResult").FromString(done.stdout)
        self._address = answer.address.removeprefix("unix://")
        self.pid = self.call("Connect", id=container).shim_pid

    def call(self, method: str, **values: Any) -> Any:
        """Carry out a call. Raises RpcError."""
        answer = self.begin(method, **values)()
        if isinstance(answer, RpcError):
            raise answer
        return answer

    def begin(self, method: str, timeout_s: float = 60, **values: Any) -> Callable[[], Any]:
        """Begin a call on a connection of its own; the function that is returned waits for its answer or refusal."""
        client = Client(self._address)
        call = client.begin(method, int(timeout_s * 1e9), **values)

        def answer() -> Any:
            try:
                return client.finish(call, ANSWER_TIMEOUT_S)
            except RpcError as error:
                return error
            finally:
                client.close()

        return answer

    def mounts(self) -> list[str]:
        """Return the mounts on our files that the shim sees."""
        lines = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        return [line for line in lines if f"{self._directory}/bundle" in line]

    def children(self) -> list[int]:
        """Return what the shim has started, and what that has."""
        found, parents = [], [self.pid]
        while parents:
            parent = parents.pop()
            try:
                words = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            except OSError:  # it has ended
                words = []
            new = [int(word) for word in words]
            found += new
            parents += new
        return found

    def lives(self) -> bool:
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
        except OSError:
            return False

    def end(self) -> None:
        if self.pid and self.lives():
            for pid in [self.pid, *self.children()]:
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._place)

    def _read_log(self, fd: int) -> None:
        while True:
            self.log += os.read(fd, 1 << 16)


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
