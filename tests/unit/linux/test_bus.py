"""The connection and the codec against a real dbus-daemon, which drops who sends it anything malformed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inclavare.errors import HostError
from inclavare.linux import dbus, systemd_cgroup
from inclavare.linux.bus import BUS, BUS_PATH, CallError, Connection, parse_addresses
from inclavare.linux.dbus import Message, encode_message
from inclavare.linux.systemd_cgroup import Manager
from tests.unit.linux.test_dbus import typed

CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("dbus-daemon")
    if program is None:
        pytest.skip("needs dbus-daemon (Debian package of that name)")
    directory = tmp_path_factory.mktemp("bus")
    (directory / "configuration").write_text(CONFIGURATION.format(socket=directory / "socket"))
    with subprocess.Popen(
        [program, "--nofork", "--print-address", f"--config-file={directory}/configuration"],
        stdout=subprocess.PIPE,
        text=True,
    ) as daemon:
        assert daemon.stdout is not None
        yield daemon.stdout.readline().strip()
        daemon.terminate()


@pytest.fixture
def connection(address: str) -> Iterator[Connection]:
    made = Connection(address, timeout_s=10)
    yield made
    made.close()


def own_name(connection: Connection) -> str:
    """Return the unique name, from the signal that comes with it."""
    message = connection.wait_for_signal(lambda one: one.fields[dbus.MEMBER] == "NameAcquired", "our name")
    return str(message.body[0])


def test_a_call_gives_what_the_method_returns(connection: Connection) -> None:
    assert connection.call(BUS, BUS_PATH, BUS, "GetConnectionUnixUser", "s", (own_name(connection),)) == (os.geteuid(),)
    (names,) = connection.call(BUS, BUS_PATH, BUS, "ListNames")
    assert BUS in names
    (credentials,) = connection.call(BUS, BUS_PATH, BUS, "GetConnectionCredentials", "s", (BUS,))
    assert credentials["ProcessID"].signature == "u"


def test_an_error_is_ours_with_its_name(connection: Connection) -> None:
    with pytest.raises(CallError, match=r"GetNameOwner: .*no.such.name") as caught:
        connection.call(BUS, BUS_PATH, BUS, "GetNameOwner", "s", ("no.such.name",))
    assert caught.value.name == "org.freedesktop.DBus.Error.NameHasNoOwner"


def test_a_signal_that_came_during_a_call_is_kept(connection: Connection) -> None:
    name = own_name(connection)
    connection.subscribe(f"type='signal',interface='{BUS}',member='NameOwnerChanged'")
    connection.call(BUS, BUS_PATH, BUS, "RequestName", "su", ("inclavare.test", 0))
    connection.call(BUS, BUS_PATH, BUS, "GetId")
    message = connection.wait_for_signal(
        lambda one: one.fields[dbus.MEMBER] == "NameOwnerChanged" and one.body[0] == "inclavare.test", "a name"
    )
    assert message.body[2] == name


def test_a_signal_that_does_not_come_is_given_up(address: str) -> None:
    connection = Connection(address, timeout_s=0.2)
    with pytest.raises(HostError, match="cannot wait for a job: timed out"):
        connection.wait_for_signal(lambda one: one.fields[dbus.MEMBER] == "Never", "a job")
    connection.close()


@pytest.fixture(scope="module")
def mirror(address: str) -> Iterator[tuple[Connection, str]]:
    """A connection and its name, to send itself something through the daemon."""
    made = Connection(address, timeout_s=10)
    yield made, own_name(made)
    made.close()


@given(pairs=st.lists(typed(), max_size=4))
@settings(max_examples=100, deadline=None)
def test_the_daemon_takes_every_message_of_ours_and_gives_it_back_unchanged(
    mirror: tuple[Connection, str], pairs: list[tuple[str, Any]]
) -> None:
    connection, name = mirror
    signature, body = "".join([kind for kind, _ in pairs]), tuple(value for _, value in pairs)
    fields = {dbus.PATH: "/a", dbus.INTERFACE: "a.b", dbus.MEMBER: "Echo", dbus.DESTINATION: name}
    connection._socket.sendall(encode_message(Message(dbus.SIGNAL, 7, fields, signature, body)))
    message = connection.wait_for_signal(lambda one: one.fields[dbus.MEMBER] == "Echo", "the echo")
    assert (message.signature, message.body) == (signature, body)
    assert message.fields[dbus.SENDER] == name


def test_no_daemon_is_an_error_that_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=rf"cannot connect to the D-Bus daemon: {tmp_path}/none: No such file"):
        Connection(f"unix:path={tmp_path}/none")
    with pytest.raises(HostError, match="no unix socket in 'tcp:host=a'"):
        Connection("tcp:host=a")


@pytest.mark.parametrize(
    "answer", [b"REJECTED EXTERNAL\r\n", b"", b"x" * 5000, b"OK 1\r\n" + b"junk" * 10, b"\xff\r\n"]
)
def test_a_peer_that_is_no_daemon_is_an_error(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(100)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(HostError):
            Connection(f"unix:path={tmp_path}/socket", timeout_s=5)
        thread.join()


@pytest.mark.parametrize(
    ("text", "sockets"),
    [
        ("unix:path=/run/bus", ["/run/bus"]),
        ("tcp:host=a,port=1;unix:path=/a%20b,guid=12", ["/a b"]),
        ("unix:abstract=/tmp/x", ["\0/tmp/x"]),
        ("unix:dir=/tmp", []),
        ("", []),
        ("unix:path=/a%zz", ["/a%zz"]),
    ],
)
def test_addresses_are_read(text: str, sockets: list[str]) -> None:
    assert parse_addresses(text) == sockets


@given(st.text())
def test_any_text_is_a_list_of_addresses(text: str) -> None:
    assert all(isinstance(one, str) for one in parse_addresses(f"unix:path={text};{text}"))


def test_a_bus_without_systemd_says_so(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.setenv(name, address)
    with pytest.raises(HostError, match=r"cannot reach systemd: .*Properties\.Get: .*org\.freedesktop\.systemd1"):
        Manager()


def test_a_host_without_a_bus_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.setenv(name, f"unix:path={tmp_path}/none")
    with pytest.raises(HostError, match="cannot reach systemd: cannot connect to the D-Bus daemon") as caught:
        Manager()
    assert "leave out --systemd-cgroup" in caught.value.hint


def test_the_users_bus_is_the_one_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/a")
    assert systemd_cgroup._address(user=True) == "unix:path=/a"
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert systemd_cgroup._address(user=True) == "unix:path=/run/user/7/bus"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(HostError, match="neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set"):
        systemd_cgroup._address(user=True)
