"""What containerd does with a shim's program, by its version, and the life of a task.

The order of flags, the environment, what is on stdin and which answers are understood are those of containerd's
core/runtime/v2 (runtime/v2 before 2.0) at each version.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.containerd_kit import schema
from tests.containerd_kit.bundle import process
from tests.containerd_kit.events import Events
from tests.containerd_kit.ttrpc import TASK_V2, TASK_V3, Client, RpcError

VERSIONS = ("1.6", "1.7", "2.0", "2.3")  # 2.1 and 2.2 are as 2.0
START_TIMEOUT_S, CLEAN_UP_TIMEOUT_S = 10, 20
PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
RESOURCES_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
LOG_LEVEL_DEBUG, LOG_LEVEL_INFO = -4, 0


class StartError(Exception):
    """The program failed, or containerd would not have understood what it printed."""


class Address:
    """Where a shim listens, and by which version of the Task service it is spoken to."""

    def __init__(self, path: str, version: int) -> None:
        self.path = path
        self.version = version

    @property
    def service(self) -> str:
        return TASK_V3 if self.version == 3 else TASK_V2


class Containerd:
    """One containerd of a version, with a namespace. All that it makes is below `directory`.

    `environment` is what it has itself, beside what the kit's process has.
    """

    def __init__(
        self,
        directory: Path,
        version: str = "1.6",
        namespace: str = "kit",
        environment: dict[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.version = tuple(int(word) for word in version.split("."))
        self.namespace = namespace
        self.debug = False
        self.grpc_address = f"{directory}/containerd.sock"
        self.ttrpc_address = f"{self.grpc_address}.ttrpc"
        self.socket_dir = f"{directory}/s"
        self.environment = environment or {}
        self.events = Events(self.ttrpc_address)

    def close(self) -> None:
        self.events.down()

    def start(self, program: Path, container_id: str, bundle: Path, options: Any | None) -> Address:
        """Have the program start a shim, or tell of the one that there is. Raises StartError."""
        done = self._run(program, container_id, bundle, "start", self._stdin(container_id, options))
        if done.returncode:
            raise StartError(f"start: exit status {done.returncode}: {done.stdout.decode(errors='replace')}")
        return self.understand(done.stdout)

    def delete(self, program: Path, container_id: str, bundle: Path) -> Any:
        """Have the program clean up after a task; give its DeleteResponse. Raises StartError."""
        done = self._run(program, container_id, bundle, "delete", b"")
        if done.returncode:
            raise StartError(f"delete: exit status {done.returncode}: {done.stderr.decode(errors='replace')}")
        return schema.message_class("containerd.task.v2.DeleteResponse").FromString(done.stdout)

    def info(self, program: Path, options: Any | None = None) -> Any:
        """Ask the program what it can do; give its RuntimeInfo. Raises StartError."""
        given = options.SerializeToString() if options is not None else b""
        done = subprocess.run([program, "-info"], input=given, capture_output=True, check=False, timeout=10)
        if done.returncode or done.stderr:
            raise StartError(f"-info: exit status {done.returncode}: {done.stderr.decode(errors='replace')}")
        return schema.message_class("containerd.types.RuntimeInfo").FromString(done.stdout)

    def understand(self, raw: bytes) -> Address:
        """Read what `start` printed, as this version does. Raises StartError."""
        if self.version >= (2, 3):
            with contextlib.suppress(Exception):  # then it is none
                result = schema.message_class("containerd.runtime.bootstrap.v1.BootstrapResult").FromString(raw)
                if result.version and result.address and result.protocol == "ttrpc":
                    return self._checked(result.address, result.version)
        text = raw.decode()
        if self.version >= (1, 7) and text.startswith("{"):
            told = json.loads(text)
            if told["protocol"] != "ttrpc":
                raise StartError(f"unsupported protocol {told['protocol']}")
            return self._checked(told["address"], told["version"])
        return self._checked(text, 2)

    def _checked(self, address: str, version: int) -> Address:
        if version > (3 if self.version >= (2, 0) else 2):
            raise StartError(f"unsupported shim version ({version})")
        if not address.startswith("unix:///"):
            raise StartError(f"no address: {address!r}")
        return Address(address.removeprefix("unix://"), version)

    def _stdin(self, container_id: str, options: Any | None) -> bytes:
        given: bytes = options.SerializeToString() if options is not None else b""
        if self.version < (2, 3):
            return given
        extensions = [schema.make("containerd.runtime.bootstrap.v1.Extension", value=options)] if given else []
        parameters: bytes = schema.make(
            "containerd.runtime.bootstrap.v1.BootstrapParams",
            instance_id=container_id,
            namespace=self.namespace,
            log_level=LOG_LEVEL_DEBUG if self.debug else LOG_LEVEL_INFO,
            containerd_version="2.3.1",
            containerd_ttrpc_address=self.ttrpc_address,
            containerd_grpc_address=self.grpc_address,
            containerd_binary="/usr/bin/containerd",
            extensions=extensions,
            socket_dir=self.socket_dir,
        ).SerializeToString()
        return parameters

    def flags(self, container_id: str, bundle: Path, action: str) -> list[str]:
        """Give the words behind the program's name."""
        words = ["-namespace", self.namespace, "-address", self.grpc_address, "-publish-binary", "/usr/bin/containerd"]
        words += ["-id", container_id]
        debug = ["-debug"] if self.debug else []
        if action == "delete":
            words += ["-bundle", str(bundle), *debug]
        else:
            words += debug
        return [*words, action]

    def _run(
        self, program: Path, container_id: str, bundle: Path, action: str, stdin: bytes
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, **self.environment, "GOMAXPROCS": "2", "TTRPC_ADDRESS": self.ttrpc_address}
        if self.version >= (1, 7):
            environment |= {"GRPC_ADDRESS": self.grpc_address, "NAMESPACE": self.namespace, "MAX_SHIM_VERSION": "2"}
        start = action == "start"
        given: dict[str, Any] = {"input": stdin} if stdin else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            [program, *self.flags(container_id, bundle, action)],
            cwd=bundle,
            env=environment,
            **given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if start else subprocess.PIPE,  # exec.Cmd.CombinedOutput: up to the end of both
            process_group=0,
            check=False,
            timeout=START_TIMEOUT_S if start else CLEAN_UP_TIMEOUT_S,
        )


def runc_options(**fields: object) -> Any:
    """Give options as `ctr` and engines send them to runc's shim."""
    return schema.pack("containerd.runc.v1.Options", **fields)


class Task:
    """One container under a shim. `options` is what the container's runtime options are, None for none.

    The bundle's directory has the name of the container, as containerd's have.
    """

    def __init__(
        self, containerd: Containerd, program: Path, container_id: str, bundle: Path, options: Any = None
    ) -> None:
        assert bundle.name == container_id, "shims take the one from the other"
        self.containerd = containerd
        self.program = program
        self.id = container_id
        self.bundle = bundle
        self.options = options
        self.shim_pid = self.pid = 0
        self.address: Address | None = None
        self.client: Client | None = None
        self._log = -1

    # --- the shim ----------------------------------------------------------------------------------------------------

    def begin(self, sandbox: Task | None = None) -> None:
        """Start the shim, or find the group's; connect. containerd 2 takes that of a `sandbox` without asking."""
        if not (self.bundle / "log").exists():
            os.mkfifo(self.bundle / "log", 0o700)
        self._log = os.open(self.bundle / "log", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        if sandbox is not None:
            self.address = sandbox.address
        else:
            self.address = self.containerd.start(self.program, self.id, self.bundle, self.options)
        self.connect()

    def connect(self) -> None:
        """Connect to its shim, again if containerd was gone."""
        if self.client is not None:
            self.client.close()
        self.client = self.another_client()
        self.shim_pid = self.client.call("Connect", id=self.id).shim_pid

    def another_client(self) -> Client:
        """Give a connection to its shim beside its own."""
        assert self.address is not None
        return Client(self.address.path, self.address.service, self.containerd.namespace)

    @property
    def rpc(self) -> Client:
        assert self.client is not None, "begin() comes first"
        return self.client

    def log(self) -> str:
        """Give what the shim has written to its log since the last time."""
        text = b""
        with contextlib.suppress(BlockingIOError):
            while self._log >= 0 and (data := os.read(self._log, 1 << 16)):
                text += data
        return text.decode(errors="replace")

    # --- the task ----------------------------------------------------------------------------------------------------

    def create(self, **fields: object) -> int:
        """Make the container; give its pid. Fields are those of CreateTaskRequest."""
        fields = {"bundle": str(self.bundle), "options": self.options} | fields
        self.pid = self.rpc.call("Create", fields, id=self.id).pid
        return self.pid

    def start(self, exec_id: str = "") -> int:
        """Let it run; give the pid."""
        pid: int = self.rpc.call("Start", id=self.id, exec_id=exec_id).pid
        self.pid = self.pid if exec_id else pid
        return pid

    def add(self, exec_id: str, args: Sequence[str], spec: Mapping[str, object] | None = None, **stdio: object) -> None:
        """Add another process. `spec` is a process of its own; the others are fields of ExecProcessRequest."""
        described = json.dumps(process(args) if spec is None else spec).encode()
        wanted = schema.make("google.protobuf.Any", type_url=PROCESS_TYPE, value=described)
        self.rpc.call("Exec", stdio, id=self.id, exec_id=exec_id, spec=wanted)

    def execute(self, exec_id: str, args: Sequence[str], **stdio: str) -> int:
        """Run another process to its end and delete it; give its exit status."""
        self.add(exec_id, args, None, **stdio)
        self.start(exec_id)
        status = self.wait(exec_id)
        self.rpc.call("Delete", id=self.id, exec_id=exec_id)
        return status

    def wait(self, exec_id: str = "", timeout_s: float = 30.0) -> int:
        """Wait for the end; give the exit status."""
        status: int = self.rpc.call("Wait", id=self.id, exec_id=exec_id, timeout_s=timeout_s).exit_status
        return status

    def kill(self, number: int = signal.SIGKILL, exec_id: str = "", *, everyone: bool = False) -> None:
        self.rpc.call("Kill", id=self.id, exec_id=exec_id, signal=int(number), all=everyone)

    def state(self, exec_id: str = "") -> Any:
        return self.rpc.call("State", id=self.id, exec_id=exec_id)

    def status(self, exec_id: str = "") -> str:
        """Give the status as a word."""
        return schema.STATUS[self.state(exec_id).status]

    def update(self, resources: dict[str, object]) -> None:
        value = json.dumps(resources).encode()
        self.rpc.call("Update", id=self.id, resources={"type_url": RESOURCES_TYPE, "value": value})

    def delete(self) -> Any:
        """Delete it, and the shim when it was the last, then clean up: what containerd does after every task."""
        answer = self.rpc.call("Delete", id=self.id)
        self.shut_down()
        self.clean_up()
        return answer

    def shut_down(self) -> None:
        """Tell the shim to end, if it has nothing left, and hang up."""
        with contextlib.suppress(ConnectionError):  # it may be gone before it answers
            self.rpc.call("Shutdown", id=self.id)
        self.rpc.close()
        self.client = None

    def clean_up(self) -> Any:
        """Have the program clean up; give its answer."""
        self._close_log()
        return self.containerd.delete(self.program, self.id, self.bundle)

    def abandon(self) -> None:
        """Remove what a failed test has left of it."""
        if self._log >= 0:
            if self.client is not None:
                self.client.close()
                self.client = None
            if self.shim_pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.shim_pid, signal.SIGKILL)
                    wait_until_gone(self.shim_pid)
            with contextlib.suppress(StartError):
                self.clean_up()
            self._close_log()

    def _close_log(self) -> None:
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def until(self, status: str, exec_id: str = "", timeout_s: float = 10.0) -> None:
        """Wait until it has a status."""
        deadline = time.monotonic() + timeout_s
        while (now := self.status(exec_id)) != status:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.id} is {now}, not {status}")
            time.sleep(0.01)


def wait_until_gone(pid: int, timeout_s: float = 10.0) -> None:
    """Wait until there is no such process, or its parent need only ask for its end."""
    deadline = time.monotonic() + timeout_s
    while is_there(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} does not end")
        time.sleep(0.005)


def is_there(pid: int) -> bool:
    """Tell whether there is a process, which is more than a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


__all__ = [
    "VERSIONS",
    "Address",
    "Containerd",
    "RpcError",
    "StartError",
    "Task",
    "is_there",
    "runc_options",
    "wait_until_gone",
]
