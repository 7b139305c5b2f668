"""As much of containerd as a shim needs to be measured: its socket for events, starts, and one call after the other.

It speaks by rune's own codec, and adds little to what a shim costs. What a shim answers is judged by the tests, with
Google's library.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.realpath(__file__ + "/../../src"))

from inclavare.shim import messages as m
from inclavare.wire import protobuf, ttrpc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SERVICE = "containerd.task.v2.Task"
NAMESPACE = "bench"
PROCESS_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/Process"
CHUNK = 1 << 16


class Events:
    """Takes the events of all shims. `exits` counts those of ends."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.exits: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._socket.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        reader = ttrpc.Reader()
        with client:
            while data := client.recv(CHUNK):
                for frame in reader.feed(data):
                    request = protobuf.parse(ttrpc.REQUEST_SCHEMA, frame.payload or b"")
                    envelope = protobuf.parse(m.FORWARD, request["payload"])["envelope"]
                    if envelope["topic"] == "/tasks/exit":
                        event = protobuf.parse(m.EVENTS["TaskExit"][1], envelope["event"]["value"])
                        self.exits.append(event["id"])
                    client.sendall(ttrpc.answer(frame.stream, b""))


class FailedError(Exception):
    """A call was refused."""


class Client:
    """A connection to a shim."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._reader = ttrpc.Reader()
        self._stream = 1

    def call(self, method: str, **fields: object) -> dict[str, Any]:
        """Call a method of the Task service and wait for its answer."""
        asked, answered = m.METHODS[method]
        payload = protobuf.encode(asked, fields)
        metadata = {"containerd-namespace-ttrpc": NAMESPACE}
        self._socket.sendall(ttrpc.request(self._stream, SERVICE, method, payload, 0, metadata))
        self._stream += 2
        while True:
            data = self._socket.recv(CHUNK)
            if not data:
                raise FailedError(f"{method}: the shim has gone")
            for frame in self._reader.feed(data):
                answer = protobuf.parse(ttrpc.RESPONSE_SCHEMA, frame.payload or b"")
                if answer["status"]:
                    raise FailedError(f"{method}: {answer['status'].get('message')}")
                return protobuf.parse(answered, answer["payload"])

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class Shim:
    """A program that is a shim, and the runtime that it shall use ("" for its own)."""

    def __init__(self, name: str, program: str, runtime: str, events: Events, directory: str) -> None:
        self.name = name
        self.program = program
        self.runtime = runtime
        self.root = f"{directory}/state-{name}"
        self._directory = directory
        self._environment = {**os.environ, "TTRPC_ADDRESS": events.path, "GOMAXPROCS": "2"}

    def run(self, container_id: str, bundle: str, *action: str) -> bytes:
        """Run the program as containerd does, with all that it prints on one pipe; give that."""
        words = [self.program, "-namespace", NAMESPACE, "-address", f"{self._directory}/containerd.sock"]
        words += ["-publish-binary", "/bin/true", "-id", container_id, *action]
        done = subprocess.run(
            words,
            cwd=bundle,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            check=False,
        )
        if done.returncode:
            raise FailedError(f"{self.name} {action[-1]}: {done.stdout.decode(errors='replace')}")
        return done.stdout

    def options(self) -> dict[str, object]:
        """Give what Create says of the runtime."""
        values = {"binary_name": self.runtime, "root": self.root}
        return {"type_url": m.RUNC_OPTIONS_TYPE, "value": protobuf.encode(m.RUNC_OPTIONS, values)}


class Task:
    """One container under a shim, from its start to its deletion."""

    def __init__(self, shim: Shim, container_id: str, bundle: str) -> None:
        self.shim = shim
        self.id = container_id
        self.bundle = bundle
        self.shim_pid = 0
        os.mkfifo(f"{bundle}/log")
        self._log = os.open(f"{bundle}/log", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def begin(self) -> None:
        """Start the shim, or find the group's."""
        self.client = Client(self.shim.run(self.id, self.bundle, "start").decode().removeprefix("unix://"))
        self.shim_pid = self.client.call("Connect", id=self.id)["shim_pid"]

    def create(self, **stdio: str) -> None:
        """Make the container."""
        self.client.call("Create", id=self.id, bundle=self.bundle, options=self.shim.options(), **stdio)

    def start(self) -> None:
        """Let it run."""
        self.client.call("Start", id=self.id)

    def execute(self, args: list[str]) -> None:
        """Run another process in it, from Exec to its deletion."""
        process = {"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        spec = {"type_url": PROCESS_TYPE, "value": json.dumps(process).encode()}
        self.client.call("Exec", id=self.id, exec_id="exec", spec=spec)
        for method in ("Start", "Wait", "Delete"):
            self.client.call(method, id=self.id, exec_id="exec")

    def wait(self) -> None:
        """Wait for its end."""
        self.client.call("Wait", id=self.id)

    def kill(self) -> None:
        """End it, and wait for that."""
        self.client.call("Kill", id=self.id, signal=9)
        self.wait()

    def delete(self) -> None:
        """Delete it, and the shim when it was the last: what containerd does after every task."""
        self.client.call("Delete", id=self.id)
        with contextlib.suppress(FailedError, ConnectionError):  # it may be gone before it answers
            self.client.call("Shutdown", id=self.id)
        self.client.close()
        self._end()

    def abandon(self) -> None:
        """Remove what is left of it, if it was not deleted; its shim ends."""
        if self.shim_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.shim_pid, signal.SIGKILL)
            self.client.close()
            self._end()

    def _end(self) -> None:
        self.shim_pid = 0
        os.close(self._log)
        self.shim.run(self.id, self.bundle, "-bundle", self.bundle, "delete")
