"""A runelet on a plan of three steps (load, initialise, run), and PALs that record what is done to them.

No namespaces, no rune: the tests answer the plan's sync point themselves and speak to the agent's socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from inclavare.container.plan import (
    CALL_END_SYNC,
    CALL_PAL_INIT,
    CALL_PAL_LOAD,
    CALL_PAL_RUN,
    CALL_SYNC,
    MSG,
    MSG_ERROR,
    MSG_LOG,
    MSG_SYNC,
    Plan,
)
from inclavare.enclave.agent import Response, execute_request, message_size, parse_response
from inclavare.enclave.implicit import FORWARDED_SIGNALS

ROOT = Path(__file__).parents[3]
NATIVE = ROOT / "src/inclavare/_native"
SANITIZED = ROOT / "build/runelet-sanitized"
SYNC_READY = 3
DEADLINE_S = 20

Event = dict[str, Any]
Start = Callable[..., "Runelet"]


def text(coded: str) -> str:
    """Take a string of a record out of its hexadecimal form."""
    return os.fsdecode(bytes.fromhex(coded))


def texts(coded: list[str]) -> list[str]:
    return [text(word) for word in coded]


class Failure(NamedTuple):
    """What a plan's step answered: its index, the errno, and the sentence."""

    step: int
    errno: int
    text: str


class Reply(NamedTuple):
    """How a program that the agent ran ended, and what it wrote."""

    response: Response
    stdout: bytes
    stderr: bytes


class Client:
    """A connection to the agent. `signals` is our end of the signal pipe once fds were sent."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(path)
        self.signals = -1

    def send(self, data: bytes, *, one_by_one: bool = False) -> None:
        if not one_by_one:
            self.socket.sendall(data)
            return
        for byte in data:
            self.socket.sendall(bytes([byte]))
            time.sleep(0.001)

    def send_fd(self, name: str, *fds: int) -> None:
        socket.send_fds(self.socket, [name.encode()], fds)

    def send_stdio(self, stdin: int, stdout: int, stderr: int) -> None:
        theirs, self.signals = os.pipe()
        self.send_fd("signal", theirs)
        os.close(theirs)
        for name, fd in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            self.send_fd(name, fd)

    def receive(self) -> Response | None:
        """Read the agent's answer, None when it hangs up instead."""
        head = self._read(4)
        return parse_response(self._read(message_size(head))) if head else None

    def close(self) -> None:
        self.socket.close()
        if self.signals >= 0:
            os.close(self.signals)
            self.signals = -1

    def _read(self, size: int) -> bytes:
        got = b""
        while len(got) < size:
            part = self.socket.recv(size - len(got))
            if not part:
                break
            got += part
        return got


class Program:
    """A program that the agent runs, with pipes as its output."""

    def __init__(self, client: Client, stdin: bytes | None = None) -> None:
        self.client = client
        self.stdin, input_ = None, os.open(os.devnull, os.O_RDONLY)
        if stdin is not None:
            os.close(input_)
            input_, self.stdin = os.pipe()
        self.stdout, output = os.pipe()
        self.stderr, errors = os.pipe()
        client.send_stdio(input_, output, errors)
        for fd in (input_, output, errors):
            os.close(fd)
        if self.stdin is not None and stdin is not None:
            os.write(self.stdin, stdin)
            os.close(self.stdin)

    def wait(self) -> Reply:
        """Read its output to the end, then the agent's answer: in this order, which must not block."""
        written = []
        for fd in (self.stdout, self.stderr):
            with os.fdopen(fd, "rb") as pipe:
                written.append(pipe.read())
        response = self.client.receive()
        assert response is not None
        self.client.close()
        return Reply(response, *written)


class Runelet:
    """A runelet under way. `logs` are the lines it sent while somebody listened."""

    def __init__(self, folder: Path, pal: Path | str, **settings: Any) -> None:
        """Start it. Settings: args, log_level, argv, env, preload, signals, flags, emulator, seed, between (a function
        that adds steps to the plan between loading and initialising), program (another build of the runelet).
        """
        self.logs: list[str] = []
        self._created = False
        self.folder = folder
        self.agent_path = str(folder / "agent.sock")
        self._record = folder / "record"
        self.output = folder / "output"
        with contextlib.ExitStack() as stack:
            agent = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            agent.bind(self.agent_path)
            agent.listen()
            record = os.open(self._record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            stack.callback(os.close, record)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(theirs)
            plan = _plan(str(pal), agent.fileno(), record, settings)
            plan_file = stack.enter_context(tempfile.TemporaryFile())
            plan_file.write(plan.encode(theirs.fileno()))
            plan_file.flush()
            self.process = subprocess.Popen(
                ["init-runelet", str(plan_file.fileno()), "0"],
                executable=settings.get("program", NATIVE / "runelet"),
                env={},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stack.enter_context(self.output.open("wb")),
                stderr=subprocess.STDOUT,
                pass_fds=(agent.fileno(), record, theirs.fileno(), plan_file.fileno()),
            )
        self._sync = ours
        self._sync.settimeout(DEADLINE_S)

    def created(self) -> None:
        """Wait until the runtime is initialised; the program has not begun."""
        message = self._receive()
        assert message == (MSG_SYNC, SYNC_READY), message
        self._created = True

    def start(self) -> None:
        """Let the program begin."""
        if not self._created:
            self.created()
        self._sync.send(MSG.pack(MSG_SYNC, 0, SYNC_READY, 0))
        assert self._sync.recv(1) == b""

    def fails(self) -> Failure:
        """Wait for the failure of a step, and for the end, with status 1."""
        message = self._receive()
        assert isinstance(message, Failure), message
        assert self.wait() == 1
        return message

    def dies(self) -> int:
        """Wait for an end without any message; give the status (negative for a signal)."""
        assert self._receive() is None
        return self.wait()

    def run(self) -> int:
        """Run the program to its end and give the exit code."""
        self.start()
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)

    def kill(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def events(self, call: str | None = None) -> list[Event]:
        events = [json.loads(line) for line in self._record.read_text().splitlines()]
        return [event for event in events if call in (None, event["call"])]

    def calls(self) -> list[str]:
        return [event["call"] for event in self.events()]

    def await_event(self, call: str, count: int = 1) -> Event:
        """Wait until a call was made `count` times, and give the last."""
        deadline = time.monotonic() + DEADLINE_S
        while len(found := self.events(call)) < count:
            assert time.monotonic() < deadline, f"{call} was not called {count} times"
            assert self.process.poll() is None, "the runelet ended"
            time.sleep(0.01)
        return found[count - 1]

    def await_output(self, words: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while words not in self.output.read_text():
            assert time.monotonic() < deadline, f"{words!r} was not written"
            time.sleep(0.01)

    def connect(self) -> Client:
        return Client(self.agent_path)

    def execute(self, *words: str, env: list[str] | None = None, stdin: bytes | None = None) -> Program:
        client = self.connect()
        client.send(execute_request(list(words), env or []))
        return Program(client, stdin)

    def end(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._sync.close()

    def _receive(self) -> tuple[int, int] | Failure | None:
        while True:
            try:
                message = self._sync.recv(8192)
            except ConnectionResetError:
                return None
            if not message:
                return None
            kind, step, value, size = MSG.unpack_from(message)
            words = message[MSG.size : MSG.size + size].decode()
            if kind == MSG_ERROR:
                return Failure(step, value, words)
            if kind != MSG_LOG:
                return kind, value
            self.logs.append(words)


def _plan(pal: str, agent_fd: int, record_fd: int, settings: dict[str, Any]) -> Plan:
    plan = Plan()
    env = plan.strings([f"RECORD={record_fd}", *settings.get("env", [])])
    signals = plan.data(
        b"".join(number.to_bytes(4, "little") for number in (*settings.get("signals", FORWARDED_SIGNALS), 0))
    )
    what = plan.words64(
        [
            plan.string(pal),
            plan.string(settings.get("args", "")),
            plan.string(settings.get("log_level", "info")),
            plan.strings(settings.get("preload", [])),
            plan.string(settings["emulator"]) if "emulator" in settings else 0,
            plan.data(settings["seed"]) if "seed" in settings else 0,
            env,
            signals,
            agent_fd | settings.get("flags", 0) << 32,
        ]
    )
    argv = settings.get("argv", ["program"])
    plan.add(CALL_PAL_LOAD, what, words="load")
    if "between" in settings:
        settings["between"](plan)
    plan.add(CALL_PAL_INIT, what, words="initialise")
    plan.add(CALL_SYNC, SYNC_READY, words="report")
    plan.add(CALL_END_SYNC, words="take leave")
    plan.add(CALL_PAL_RUN, plan.string(settings.get("path", argv[0])), plan.strings(argv), env, words="run")
    return plan
