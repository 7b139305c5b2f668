"""Peers that are hostile, broken, slow or gone: each is answered as ttrpc says, or loses its own connection."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import struct
import time
from pathlib import Path

import pytest

from tests.containerd_kit import schema
from tests.containerd_kit.containerd import Task
from tests.containerd_kit.ttrpc import REQUEST, RESPONSE, TASK_V2, Client, Frames, RpcError, frame, request
from tests.shim.conftest import SLEEP, Engine, eventually
from tests.shim.test_pods import hook

INVALID_ARGUMENT, RESOURCE_EXHAUSTED = 3, 8
MAX = 4 << 20
CONNECT = request(TASK_V2, "Connect", b"")


class Peer:
    """A connection on which anything may be said."""

    def __init__(self, task: Task) -> None:
        assert task.address is not None
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(task.address.path)
        self._frames = Frames()
        self._found: list[tuple[int, int, bytes]] = []

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self) -> tuple[int, int, str]:
        """Give stream, code and message of the next answer."""
        while not self._found:
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionResetError
            self._found += self._frames.feed(data)
        stream, kind, payload = self._found.pop(0)
        assert kind == RESPONSE
        status = schema.message_class("ttrpc.Response").FromString(payload).status
        return stream, status.code, status.message

    def close(self) -> None:
        self.socket.close()


def fds(task: Task) -> int:
    return len(os.listdir(f"/proc/{task.shim_pid}/fd"))


def memory(task: Task) -> int:
    lines = Path(f"/proc/{task.shim_pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) << 10


@pytest.fixture
def task(engine: Engine) -> Task:
    return engine.run()


@pytest.fixture
def rune_task(rune_engine: Engine) -> Task:
    return rune_engine.run()


def test_an_even_stream_is_refused_and_the_connection_goes_on(task: Task) -> None:
    peer = Peer(task)
    peer.say(frame(2, REQUEST, CONNECT) + frame(3, REQUEST, CONNECT))
    answers = sorted((peer.hear(), peer.hear()))
    assert answers[0][:2] == (2, INVALID_ARGUMENT)
    assert "StreamID must be odd for client initiated streams" in answers[0][2]
    assert answers[1] == (3, 0, "")
    peer.close()


@pytest.mark.parametrize("again", [5, 3, 1])
def test_a_stream_is_used_once_and_they_only_grow(rune_task: Task, again: int) -> None:
    # The ttrpc of containerd 1.6 does not look; that of 1.7 refuses it in these words.
    peer = Peer(rune_task)
    peer.say(frame(5, REQUEST, CONNECT))
    assert peer.hear()[:2] == (5, 0)
    peer.say(frame(again, REQUEST, CONNECT))
    stream, code, message = peer.hear()
    assert (stream, code) == (again, INVALID_ARGUMENT)
    assert "StreamID cannot be re-used and must increment" in message
    peer.say(frame(7, REQUEST, CONNECT))
    assert peer.hear()[:2] == (7, 0)
    peer.close()


def test_an_oversized_message_is_refused_and_skipped(task: Task) -> None:
    peer = Peer(task)
    peer.say(struct.pack(">IIBB", MAX + 1, 1, REQUEST, 0) + bytes(MAX + 1) + frame(3, REQUEST, CONNECT))
    answers = sorted((peer.hear(), peer.hear()))
    assert answers[0][:2] == (1, RESOURCE_EXHAUSTED)
    assert answers[0][2].endswith(f"message length {MAX + 1} exceed maximum message size of {MAX}")
    assert answers[1][:2] == (3, 0)
    peer.close()


def test_the_largest_message_is_read(task: Task) -> None:
    peer = Peer(task)
    bare = len(request(TASK_V2, "State", b""))
    payload = schema.make("containerd.task.v2.StateRequest", id="x" * (MAX - bare - 20)).SerializeToString()
    peer.say(frame(1, REQUEST, request(TASK_V2, "State", payload)))
    assert peer.hear()[:2] == (1, 5)
    peer.close()


def test_types_of_frames_that_are_unknown_are_passed_over(rune_task: Task) -> None:
    # So says ttrpc's PROTOCOL.md; the other shim, older than data frames, ends the connection for some.
    peer = Peer(rune_task)
    for kind in (0, RESPONSE, 3, 9, 255):
        peer.say(frame(1, kind, b"whatever"))
    peer.say(frame(3, REQUEST, CONNECT))
    assert peer.hear()[:2] == (3, 0)
    peer.close()


def test_a_request_that_is_no_message_is_refused(task: Task) -> None:
    peer = Peer(task)
    peer.say(frame(1, REQUEST, b"\xff\xff\xff"))
    stream, code, _ = peer.hear()
    assert (stream, code) == (1, INVALID_ARGUMENT)
    peer.say(frame(3, REQUEST, CONNECT))
    assert peer.hear()[:2] == (3, 0)
    peer.close()


@pytest.mark.parametrize(
    "payload",
    [b"\xff\xff", b"\x0a\x05ab", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b", b"\x08\x96\x01", b"\x00\x01"],
    ids=["cut off number", "cut off text", "huge text", "group", "number for text", "field 0"],
)
@pytest.mark.parametrize("method", ["Create", "State", "Kill", "Update", "Exec"])
def test_a_payload_that_is_no_message_is_refused(rune_task: Task, method: str, payload: bytes) -> None:
    # The other shim says Internal (13), or takes a wrong type for a field that it does not know.
    with pytest.raises(RpcError) as error:
        rune_task.rpc.finish_raw(rune_task.rpc.begin_raw(TASK_V2, method, payload))
    assert error.value.code == INVALID_ARGUMENT
    assert rune_task.status() == "running"


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "../../etc", "bundle": "/tmp"},
        {"id": "", "bundle": "/tmp"},
        {"id": "a/b", "bundle": "/tmp"},
        {"id": "x" * 5000, "bundle": "/tmp"},
        {"id": "good", "bundle": ""},
        {"id": "good", "bundle": "relative"},
        {"id": "good", "bundle": "/tmp", "options": {"type_url": "no.such.Options", "value": b"x"}},
        {"id": "good", "bundle": "/tmp", "options": {"type_url": "containerd.runc.v1.Options", "value": b"\xff"}},
    ],
    ids=lambda fields: " ".join(f"{name}={str(value)[:30]}" for name, value in fields.items()),
)
def test_a_creation_of_what_cannot_be_is_refused(rune_task: Task, fields: dict[str, object]) -> None:
    # The other shim trusts containerd, and tries.
    with pytest.raises(RpcError) as error:
        rune_task.rpc.call("Create", fields)
    assert error.value.code == INVALID_ARGUMENT


def test_a_frame_comes_in_pieces(task: Task) -> None:
    peer = Peer(task)
    for byte in frame(1, REQUEST, CONNECT):
        peer.say(bytes((byte,)))
        time.sleep(0.0005)
    assert peer.hear()[:2] == (1, 0)
    peer.close()


def test_a_connection_that_ends_in_the_middle_is_forgotten(rune_task: Task) -> None:
    before = fds(rune_task)
    whole = frame(1, REQUEST, CONNECT)
    for end in (0, 1, 9, 10, 11, len(whole) - 1):
        peer = Peer(rune_task)
        peer.say(whole[:end])
        peer.close()
    eventually(lambda: fds(rune_task) == before)
    assert rune_task.status() == "running"


def test_noise_is_harmless(rune_task: Task) -> None:
    before = fds(rune_task)
    noise = random.Random(7)  # noqa: S311  # it is to be the same each time
    whole = frame(1, REQUEST, request(TASK_V2, "State", b"\x0a\x01x"))
    for turn in range(150):
        peer = Peer(rune_task)
        if turn % 3:
            spoilt = bytearray(whole)
            for _ in range(1 + turn % 5):
                spoilt[noise.randrange(len(spoilt))] = noise.randrange(256)
            data = bytes(spoilt)
        else:
            data = noise.randbytes(noise.randrange(1, 3000))
        with contextlib.suppress(OSError):
            peer.say(data)
        peer.close()
    eventually(lambda: fds(rune_task) == before)
    assert rune_task.status() == "running"


def test_a_thousand_connections_at_once_are_served(rune_task: Task) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 4096)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    resource.prlimit(rune_task.shim_pid, resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        before = fds(rune_task)
        peers = [Peer(rune_task) for _ in range(1000)]
        for peer in peers:
            peer.say(frame(1, REQUEST, CONNECT))
        assert all(peer.hear()[:2] == (1, 0) for peer in peers)
        assert fds(rune_task) == before + 1000
        grown = memory(rune_task)
        for peer in peers:
            peer.close()
        eventually(lambda: fds(rune_task) == before)
        again = [Peer(rune_task) for _ in range(1000)]
        for peer in again:
            peer.close()
        eventually(lambda: fds(rune_task) == before)
        assert memory(rune_task) <= grown + (1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert rune_task.status() == "running"


def test_more_connections_than_files_keep_nobody_from_working(rune_task: Task) -> None:
    limit = fds(rune_task) + 20
    soft, hard = resource.prlimit(rune_task.shim_pid, resource.RLIMIT_NOFILE)
    resource.prlimit(rune_task.shim_pid, resource.RLIMIT_NOFILE, (limit, hard))
    before = fds(rune_task)
    peers = [Peer(rune_task) for _ in range(60)]
    assert rune_task.status() == "running"  # on a connection that was there before
    used = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - used < 0.2
    spent = cpu(rune_task)
    time.sleep(0.3)
    assert cpu(rune_task) - spent <= 3  # it does not spin
    for peer in peers[:40]:
        peer.close()
    peers[59].say(frame(1, REQUEST, CONNECT))
    assert peers[59].hear()[:2] == (1, 0)
    for peer in peers[40:]:
        peer.close()
    eventually(lambda: fds(rune_task) == before)
    resource.prlimit(rune_task.shim_pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_a_shim_that_may_open_nothing_rests_and_goes_on(rune_task: Task) -> None:
    soft, hard = resource.prlimit(rune_task.shim_pid, resource.RLIMIT_NOFILE)
    resource.prlimit(rune_task.shim_pid, resource.RLIMIT_NOFILE, (3, hard))
    for _ in range(2):
        assert rune_task.status() == "running"
        spent = cpu(rune_task)
        time.sleep(1.5)  # an idle shim looks at its own memory, for which it opens a file
        assert cpu(rune_task) - spent <= 3
    assert rune_task.status() == "running"
    resource.prlimit(rune_task.shim_pid, resource.RLIMIT_NOFILE, (soft, hard))


def cpu(task: Task) -> int:
    """Give the clock ticks that a shim has used."""
    fields = Path(f"/proc/{task.shim_pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_peer_that_does_not_read_is_not_read_either(rune_task: Task) -> None:
    before = memory(rune_task)
    peer = Peer(rune_task)
    peer.socket.settimeout(0.5)
    payload = schema.make("containerd.task.v2.StatsRequest", id=rune_task.id).SerializeToString()
    asked = 0
    with contextlib.suppress(TimeoutError):
        while asked < 40_000:
            peer.say(
                b"".join(frame(2 * (asked + n) + 1, REQUEST, request(TASK_V2, "Stats", payload)) for n in range(50))
            )
            asked += 50
    assert asked < 40_000, "it reads without end"
    assert memory(rune_task) - before < 24 << 20
    begin = time.monotonic()
    assert rune_task.status() == "running"
    assert rune_task.execute("e", ["true"]) == 0
    assert time.monotonic() - begin < 5
    peer.socket.settimeout(10)
    for _ in range(asked):
        assert peer.hear()[1] == 0
    peer.close()


def test_a_half_closed_connection_is_given_up(task: Task) -> None:
    peer = Peer(task)
    peer.say(frame(1, REQUEST, CONNECT))
    assert peer.hear()[:2] == (1, 0)
    peer.socket.shutdown(socket.SHUT_WR)
    assert peer.socket.recv(10) == b""
    peer.close()
    assert task.status() == "running"


def test_waits_of_peers_that_have_gone_are_forgotten(rune_task: Task) -> None:
    wait = schema.make("containerd.task.v2.WaitRequest", id=rune_task.id).SerializeToString()
    many = b"".join(frame(2 * number + 1, REQUEST, request(TASK_V2, "Wait", wait)) for number in range(500))

    def come_and_go(times: int) -> int:
        for _ in range(times):
            peer = Peer(rune_task)
            peer.say(many + frame(5001, REQUEST, CONNECT))
            assert peer.hear()[:2] == (5001, 0)
            peer.close()
        eventually(lambda: fds(rune_task) == before)
        return memory(rune_task)

    before = fds(rune_task)
    first = come_and_go(4)
    assert come_and_go(16) - first < 2 << 20
    assert rune_task.status() == "running"


def test_what_a_peer_has_begun_goes_on_without_it(rune_engine: Engine) -> None:
    # The other shim ends its runtime with the connection.
    bundle = rune_engine.bundle(SLEEP)
    bundle.config["hooks"] = hook("createRuntime", "sleep 0.3")
    task = rune_engine.task(bundle)
    task.begin()
    client = task.another_client()
    client.begin("Create", id=task.id, bundle=str(bundle.path), options=rune_engine.options)
    time.sleep(0.1)
    client.close()
    rune_engine.events.wait("TaskCreate", task.id)
    assert task.status() == "created"


def test_metadata_and_unknown_fields_are_passed_over(task: Task) -> None:
    message = schema.message_class("ttrpc.Request").FromString(CONNECT)
    for number in range(50):
        message.metadata.add(key=f"key-{number}", value="x" * 100)
    peer = Peer(task)
    peer.say(frame(1, REQUEST, message.SerializeToString() + b"\xfa\x01\x03abc"))
    assert peer.hear()[:2] == (1, 0)
    peer.close()


def test_a_thousand_calls_on_one_connection_are_all_answered(rune_task: Task) -> None:
    # The other shim reads no more when as many of its answers are not read: their number is its limit, ours is bytes.
    assert rune_task.address is not None
    client = Client(rune_task.address.path)
    calls = [client.begin("State", id=rune_task.id) for _ in range(1000)]
    assert {client.finish(call).pid for call in calls} == {rune_task.pid}
    client.close()
