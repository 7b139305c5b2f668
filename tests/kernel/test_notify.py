"""Containers that tell the service manager of rune when they are ready ($NOTIFY_SOCKET)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Bundle, Rune

READY = "READY=1"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the built notify.c."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    program = tmp_path_factory.mktemp("notify") / "notify"
    source = Path(__file__).parent / "notify.c"
    subprocess.run(["gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    return program


@pytest.fixture
def service(bundle: Bundle, program: Path) -> Bundle:
    shutil.copy(program, bundle.path / "rootfs/bin/notify")
    bundle.process["args"] = ["notify", READY]
    return bundle


class Manager:
    """A service manager: hears messages with their senders, and closes the fds that come with them."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.settimeout(20)
        self.address = address

    def hear(self) -> tuple[str, int]:
        """Return the next message and its sender's pid."""
        message, ancillary, _, _ = self._socket.recvmsg(4096, 128)
        sender = 0
        for _, kind, content in ancillary:
            if kind == socket.SCM_RIGHTS:
                os.close(int.from_bytes(content[:4], "little"))
            elif kind == socket.SCM_CREDENTIALS:
                sender = int.from_bytes(content[:4], "little")
        return message.decode(), sender

    def has_heard_all(self) -> bool:
        self._socket.setblocking(False)
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "host.sock") if request.param == "path" else f"@inclavare-{os.getpid()}")
    yield manager
    manager.close()


@pytest.fixture
def environment(manager: Manager) -> dict[str, str]:
    return {**os.environ, "NOTIFY_SOCKET": manager.address}


def begin(rune: Rune, environment: dict[str, str], *words: str | Path) -> subprocess.Popen[bytes]:
    """Begin a command with output to a file: a pipe would stay open as long as the container."""
    with (rune.directory / "out").open("wb") as out, (rune.directory / "error").open("wb") as error:
        return subprocess.Popen(
            rune.command(*words), stdin=subprocess.DEVNULL, stdout=out, stderr=error, env=environment
        )


def test_a_detached_container_names_its_process_when_it_is_ready(
    rune: Rune, service: Bundle, manager: Manager, environment: dict[str, str]
) -> None:
    service.process["args"] = ["notify", "STATUS=soon\nMAINPID=1", "MAINPID=1\nREADY=1\nFDSTORE=1"]
    service.process["user"] = {"uid": 1000, "gid": 1000}
    with begin(rune, environment, "run", "-d", "--bundle", service.write(), "c") as running:
        message, sender = manager.hear()
        assert message == f"READY=1\nMAINPID={rune.state()['pid']}"
        assert sender == running.pid
        assert manager.hear() == ("BARRIER=1", running.pid)
        assert running.wait(20) == 0
    assert manager.has_heard_all()
    assert not list((rune.root / "c/notify").iterdir())


def test_rune_stays_until_its_message_has_been_dealt_with(
    rune: Rune, service: Bundle, manager: Manager, environment: dict[str, str]
) -> None:
    with begin(rune, environment, "run", "-d", "--bundle", service.write(), "c") as running:
        manager.hear()
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.5)
        manager.hear()
        assert running.wait(20) == 0


def test_the_foreground_is_itself_the_service(
    rune: Rune, service: Bundle, manager: Manager, environment: dict[str, str]
) -> None:
    with begin(rune, environment, "run", "--bundle", service.write(), "c") as running:
        assert manager.hear() == (READY, running.pid)
        running.terminate()
        rune("kill", "c", "KILL")
        assert running.wait(20) in (143, 137)
    assert manager.has_heard_all()


def test_create_does_not_wait_and_start_does(
    rune: Rune, service: Bundle, manager: Manager, environment: dict[str, str]
) -> None:
    with begin(rune, environment, "create", "--bundle", service.write(), "c") as creating:
        assert creating.wait(20) == 0
    with begin(rune, environment, "start", "c") as starting:
        assert manager.hear()[0] == f"READY=1\nMAINPID={rune.state()['pid']}"
        assert manager.hear()[0] == "BARRIER=1"
        assert starting.wait(20) == 0
    again = rune("start", "c", env=environment)
    assert again.status == 1
    assert "cannot start a running container" in again.error


def test_a_container_that_ends_unready_is_not_waited_for(
    rune: Rune, service: Bundle, manager: Manager, environment: dict[str, str]
) -> None:
    service.process["args"] = ["true"]
    with begin(rune, environment, "run", "-d", "--bundle", service.write(), "c") as running:
        assert running.wait(20) == 0
    assert manager.has_heard_all()


def test_the_container_sees_its_own_socket_and_cannot_replace_it(
    rune: Rune, service: Bundle, manager: Manager, environment: dict[str, str]
) -> None:
    service.process["env"].append("NOTIFY_SOCKET=/else/where")
    service.shell("echo $NOTIFY_SOCKET; ls /run/notify; rm /run/notify/notify.sock; touch /run/notify/x; true")
    result = rune("run", "--bundle", service.write(), "c", env=environment)
    assert result.out == "/run/notify/notify.sock\nnotify.sock\n"
    assert result.error.count("Read-only file system") == 2
    assert manager.address not in result.out


def test_a_signal_while_it_waits_takes_the_container_away(
    rune: Rune, service: Bundle, manager: Manager, environment: dict[str, str]
) -> None:
    service.process["args"] = ["sleep", "60"]
    with begin(rune, environment, "run", "-d", "--bundle", service.write(), "c") as running:
        while rune("state", "c").status or rune.state()["status"] != "running":
            assert running.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.5)
        running.terminate()
        assert running.wait(20) == 143
    assert rune.leftovers() == []
    assert manager.has_heard_all()


def test_a_service_manager_that_is_gone_is_only_warned_about(rune: Rune, service: Bundle, tmp_path: Path) -> None:
    environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "gone")}
    with begin(rune, environment, "run", "-d", "--bundle", service.write(), "c") as running:
        assert running.wait(20) == 0
    assert "/gone that c is ready: No such file or directory" in rune.error
    assert rune.state()["status"] == "running"


def test_an_address_that_is_none_is_refused(rune: Rune, service: Bundle) -> None:
    refused = rune.run(service, env={**os.environ, "NOTIFY_SOCKET": "vsock:2:1"})
    assert refused.status == 1
    assert "NOTIFY_SOCKET is 'vsock:2:1'" in refused.error
    assert rune.leftovers() == []


def test_start_says_when_create_knew_of_no_socket(rune: Rune, service: Bundle) -> None:
    rune.create(service)
    result = rune("start", "c", env={**os.environ, "NOTIFY_SOCKET": "/gone"})
    assert result.status == 0
    assert "c was created without NOTIFY_SOCKET" in result.error


def test_messages_behind_the_first_are_not_kept(
    rune: Rune, service: Bundle, manager: Manager, environment: dict[str, str]
) -> None:
    # A socket that nobody reads would block the program after some messages.
    service.process["args"] = ["notify", READY, *["WATCHDOG=1"] * 100]
    with begin(rune, environment, "run", "--bundle", service.write(), "c") as running:
        assert manager.hear()[0] == READY
        waiting = threading.Event()
        while "WATCHDOG" not in rune.out:
            assert not waiting.wait(0.05)
            assert running.poll() is None
        assert len(rune.out.splitlines()) == 101
        rune("kill", "c", "KILL")
        assert running.wait(20) == 137
