"""Filters that ask an agent: a real one answers in the place of the kernel."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inclavare.linux.syscalls import numbers
from tests.kernel.conftest import Bundle, Rune

MKDIR = numbers()[0]["mkdir"]
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101  # linux/seccomp.h
NOTIF_SIZE = 80
LIE = errno.EXDEV  # what mkdir(2) never answers


class Agent:
    """Takes listeners from rune, one after the other, and answers LIE to everything that it is asked."""

    def __init__(self, path: Path) -> None:
        self.states: list[dict[str, Any]] = []
        self.asked: list[int] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._end, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        os.close(self._stop)
        self._thread.join()
        self._server.close()
        os.close(self._end)

    def _serve(self) -> None:
        server = self._server.fileno()
        waiting = select.poll()
        listeners = {server, self._end}
        for fd in listeners:
            waiting.register(fd, select.POLLIN)
        while True:
            for fd, events in waiting.poll():
                if fd == self._end:
                    for listener in listeners - {server, self._end}:
                        os.close(listener)
                    return
                if fd == server:
                    listener = self._take()
                    listeners.add(listener)
                    waiting.register(listener, select.POLLIN)
                elif not events & select.POLLIN:  # nobody is left who could ask; to receive would wait for ever
                    waiting.unregister(fd)
                    listeners.remove(fd)
                    os.close(fd)
                else:
                    self._answer(fd)

    def _take(self) -> int:
        with self._server.accept()[0] as connection:
            text, fds, _, _ = socket.recv_fds(connection, 1 << 16, 8)
            while part := connection.recv(1 << 16):
                text += part
        self.states.append(json.loads(text))
        (listener,) = fds
        return listener

    def _answer(self, listener: int) -> None:
        request = array.array("B", bytes(NOTIF_SIZE))
        fcntl.ioctl(listener, NOTIF_RECV, request)
        number, _, _, call = struct.unpack_from("<QIIi", request)
        self.asked.append(call)
        fcntl.ioctl(listener, NOTIF_SEND, struct.pack("<QqiI", number, 0, -LIE, 0))


@pytest.fixture
def agent(rune: Rune) -> Iterator[Agent]:
    agent = Agent(rune.directory / "agent")
    yield agent
    agent.close()


def ask(rune: Rune, bundle: Bundle, *, bare: bool = False, **more: object) -> None:
    """Let mkdir(2) ask the agent. `bare`: without no_new_privs the filter is loaded before capabilities are dropped."""
    bundle.process["noNewPrivileges"] = not bare
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": str(rune.directory / "agent"),
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        **more,
    }


@pytest.mark.parametrize("bare", [False, True], ids=["no_new_privs", "bare"])
def test_the_agent_answers_for_the_kernel(rune: Rune, bundle: Bundle, agent: Agent, *, bare: bool) -> None:
    bundle.config["annotations"] = {"who": "me"}
    ask(rune, bundle, bare=bare, listenerMetadata="for the agent")
    bundle.process["args"] = ["mkdir", "/tmp/made"]
    result = rune.run(bundle)
    assert (result.status, result.error) == (
        1,
        "mkdir: can't create directory '/tmp/made': Invalid cross-device link\n",
    )
    assert agent.asked == [MKDIR]
    (state,) = agent.states
    assert state["fds"] == ["seccompFd"]
    assert state["metadata"] == "for the agent"
    assert state["pid"] == state["state"]["pid"] > 1
    assert state["state"]["status"] == "creating"
    assert (state["state"]["id"], state["state"]["bundle"]) == ("c", str(bundle.path))
    assert state["state"]["annotations"]["who"] == "me"


@pytest.mark.parametrize("bare", [False, True], ids=["no_new_privs", "bare"])
def test_each_process_of_exec_has_a_listener_of_its_own(
    rune: Rune, bundle: Bundle, agent: Agent, *, bare: bool
) -> None:
    ask(rune, bundle, bare=bare)
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    assert rune("start", "c").status == 0
    result = rune("exec", "c", "mkdir", "/tmp/made")
    assert (result.status, result.error) == (
        1,
        "mkdir: can't create directory '/tmp/made': Invalid cross-device link\n",
    )
    first, second = agent.states
    assert "metadata" not in first
    assert second["state"]["status"] == "running"
    assert second["state"]["pid"] == first["pid"] != second["pid"]


def test_a_hook_in_the_container_is_judged_like_it(rune: Rune, bundle: Bundle, agent: Agent) -> None:
    ask(rune, bundle)
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/mkdir", "args": ["mkdir", "/tmp/made"]}]}
    bundle.process["args"] = ["true"]
    result = rune.run(bundle)
    assert result.status == 1
    assert "Invalid cross-device link" in result.error
    assert agent.asked == [MKDIR]


def test_threads_and_waiting_are_synchronized_as_asked(rune: Rune, bundle: Bundle, agent: Agent) -> None:
    flags = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    ask(rune, bundle, flags=flags)
    bundle.process["args"] = ["mkdir", "/tmp/made"]
    assert "Invalid cross-device link" in rune.run(bundle).error
    assert agent.asked == [MKDIR]


@pytest.mark.parametrize("command", ["create", "run"])
@pytest.mark.parametrize("bare", [False, True], ids=["no_new_privs", "bare"])
def test_without_its_agent_a_container_is_not_made(rune: Rune, bundle: Bundle, command: str, *, bare: bool) -> None:
    ask(rune, bundle, bare=bare)
    result = rune(command, "--bundle", bundle.write(), "c")
    assert result.status == 1
    failure = f"cannot send the seccomp listener to {rune.directory}/agent: No such file or directory\nhint: "
    assert result.error.startswith(f"rune: linux.seccomp.listenerPath: {failure}")
    assert rune("state", "c").status == 1


@pytest.mark.usefixtures("agent")
def test_without_its_agent_nothing_is_executed(rune: Rune, bundle: Bundle) -> None:
    ask(rune, bundle)
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    assert rune("start", "c").status == 0
    (rune.directory / "agent").unlink()
    result = rune("exec", "c", "touch", "/tmp/executed")
    assert result.status == 255
    assert "linux.seccomp.listenerPath" in result.error
    assert not (bundle.path / "rootfs/tmp/executed").exists()


@pytest.mark.parametrize(
    ("member", "value", "complaint"),
    [
        ("defaultAction", "SCMP_ACT_NOTIFY", "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be used as default"),
        ("listenerPath", None, "linux.seccomp.syscalls[0].action: SCMP_ACT_NOTIFY needs linux.seccomp.listenerPath"),
        (
            "syscalls",
            [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}],
            "linux.seccomp.syscalls[0].names: SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (
            "syscalls",
            [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY", "errnoRet": 5}],
            "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_NOTIFY has no errno",
        ),
    ],
)
def test_what_no_agent_could_do_is_refused(
    rune: Rune, bundle: Bundle, member: str, value: object, complaint: str
) -> None:
    ask(rune, bundle)
    profile = bundle.linux["seccomp"]
    if value is None:
        del profile[member]
    else:
        profile[member] = value
    result = rune.run(bundle)
    assert result.status == 1
    assert complaint in result.error


def test_a_profile_may_insist_on_names_that_are_known(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "not_yet_a_call"], "action": "SCMP_ACT_ERRNO"}],
    }
    bundle.process["args"] = ["true"]
    assert rune.run(bundle).status == 0
    bundle.config["annotations"] = {"run.oci.seccomp_fail_unknown_syscall": "1"}
    result = rune.run(bundle)
    assert result.status == 1
    assert "linux.seccomp.syscalls[0].names[1]: unknown system call not_yet_a_call" in result.error
