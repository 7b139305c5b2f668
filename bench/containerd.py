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
    """Takes the events of all shims; `exits` has the ids of those that ended."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.exits: list[str] = []
        self._clients: set[socket.socket] = set()
        self.up()

    def up(self) -> None:
        """Listen."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen(1024)
        threading.Thread(target=self._accept, args=(self._socket,), daemon=True).start()

    def down(self) -> None:
        """Be gone, at once, for all."""
        os.unlink(self.path)
        for each in (self._socket, *self._clients):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with listener, contextlib.suppress(OSError):  # it is down
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        reader = ttrpc.Reader()
        self._clients.add(client)
        with client, contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                for frame in reader.feed(data):
                    self._take(protobuf.parse(ttrpc.REQUEST_SCHEMA, frame.payload or b"")["payload"])
                    client.sendall(ttrpc.answer(frame.stream, b""))
        self._clients.discard(client)

    def _take(self, payload: bytes) -> None:
        envelope = protobuf.parse(m.FORWARD, payload)["envelope"]
        if envelope["topic"] == "/tasks/exit":
            self.exits.append(protobuf.parse(m.EVENTS["TaskExit"][1], envelope["event"]["value"])["id"])


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

    def hang_up(self) -> None:
        """End the connection, also for who waits for an answer."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Be done with it."""
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
            said = done.stdout.decode(errors="replace")
            raise FailedError(f"{self.name} {action[-1]}: status {done.returncode}: {said}")
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
        self.deleted = b""  # what `delete` answered
        self.shim_pid = self.pid = 0
        self.client: Client | None = None
        os.mkfifo(f"{bundle}/log")
        self._log = os.open(f"{bundle}/log", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def begin(self) -> None:
        """Start the shim, or find the group's."""
        self._path = self.shim.run(self.id, self.bundle, "start").decode().removeprefix("unix://")
        self.connect()

    def connect(self) -> None:
        """Connect to its shim, again if containerd was gone."""
        if self.client is not None:
            self.client.close()
        self.client = Client(self._path)
        self.shim_pid = self.client.call("Connect", id=self.id)["shim_pid"]

    def create(self, **stdio: str) -> None:
        """Make the container."""
        request = {"id": self.id, "bundle": self.bundle, "options": self.shim.options(), **stdio}
        self.pid = self.client.call("Create", **request)["pid"]

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
        self.deleted = self.shim.run(self.id, self.bundle, "-bundle", self.bundle, "delete")
