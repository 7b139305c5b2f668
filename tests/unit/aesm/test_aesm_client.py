"""The client against real sockets: what a daemon may answer, and what it may do instead."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inclavare.aesm.client import LEGACY_SOCKET, AesmClient
from inclavare.aesm.codec import FRAME_MAX, HEAD_SIZE, decode_request, encode, message_size
from inclavare.aesm.errors import (
    CODES,
    AesmError,
    AesmMalformedError,
    AesmTimeoutError,
    AesmUnreachableError,
    code_named,
    meaning,
)
from inclavare.aesm.messages import InitQuoteRequest, InitQuoteResponse, Request

ANSWER = InitQuoteResponse(error_code=0, target_info=bytes(512), gid=b"1234")


class OneAnswer:
    """Listens on a socket, keeps the request of the one connection it takes, and does with it what it is told."""

    def __init__(self, address: str | bytes, behave: Callable[[socket.socket], None]) -> None:
        self.request: Request | None = None
        self._behave = behave
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen()
        self._listener.settimeout(20)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            head = connection.recv(HEAD_SIZE, socket.MSG_WAITALL)
            self.request = decode_request(connection.recv(message_size(head), socket.MSG_WAITALL))
            self._behave(connection)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "aesm.socket")


@pytest.fixture
def daemon() -> Iterator[Callable[[str | bytes, Callable[[socket.socket], None]], OneAnswer]]:
    started: list[OneAnswer] = []

    def start(address: str | bytes, behave: Callable[[socket.socket], None]) -> OneAnswer:
        started.append(OneAnswer(address, behave))
        return started[-1]

    yield start
    for one in started:
        one.close()


Start = Callable[[str | bytes, Callable[[socket.socket], None]], OneAnswer]


def ask(path: str | None, timeout_s: float = 10) -> InitQuoteResponse:
    return AesmClient(path, timeout_s).ask("get the target info", InitQuoteRequest(timeout=1), InitQuoteResponse)


def test_a_request_is_sent_whole_and_its_answer_returned(daemon: Start, path: str) -> None:
    one = daemon(path, lambda connection: connection.sendall(encode(ANSWER)))
    assert ask(path) == ANSWER
    assert one.request == InitQuoteRequest(timeout=1)


def test_an_answer_that_comes_in_single_bytes_is_read_to_its_end(daemon: Start, path: str) -> None:
    def slowly(connection: socket.socket) -> None:
        for byte in encode(ANSWER):
            connection.send(bytes([byte]))

    daemon(path, slowly)
    assert ask(path) == ANSWER


def test_the_abstract_socket_of_old_releases_is_tried_when_the_file_is_not_there(daemon: Start) -> None:
    if Path("/var/run/aesmd/aesm.socket").exists():
        pytest.skip("this host has a daemon")
    daemon(LEGACY_SOCKET, lambda connection: connection.sendall(encode(ANSWER)))
    assert ask(None) == ANSWER


def test_an_error_code_is_told_with_its_name_cause_and_next_step(daemon: Start, path: str) -> None:
    daemon(path, lambda connection: connection.sendall(encode(InitQuoteResponse(error_code=44))))
    with pytest.raises(AesmError) as caught:
        ask(path)
    assert str(caught.value) == (
        "cannot get the target info: AESM error 44 (AESM_NO_PLATFORM_CERT_DATA): there is no PCK certificate for this"
        " platform"
    )
    assert "Register the platform" in caught.value.hint


def test_the_time_out_is_for_the_whole_answer(daemon: Start, path: str) -> None:
    def drip(connection: socket.socket) -> None:
        for byte in encode(ANSWER)[:60]:
            try:
                connection.send(bytes([byte]))
            except OSError:
                return
            time.sleep(0.05)

    daemon(path, drip)
    begin = time.monotonic()
    with pytest.raises(AesmTimeoutError, match=r"no answer from .* within 0.3 s"):
        ask(path, timeout_s=0.3)
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"", "closed the connection after 0 of 4 bytes"),
        (b"\5\0", "closed the connection after 2 of 4 bytes"),
        (b"\5\0\0\0\12", "closed the connection after 1 of 5 bytes"),
        ((FRAME_MAX + 1).to_bytes(4, "little"), "announces a message of 1048577 bytes"),
        (b"\2\0\0\0\x12\0", "has no member 1"),
    ],
)
def test_an_answer_that_is_none_is_told(daemon: Start, path: str, answer: bytes, what: str) -> None:
    daemon(path, lambda connection: connection.sendall(answer))
    with pytest.raises(AesmMalformedError, match=what):
        ask(path)


def test_without_a_daemon_the_error_says_how_to_start_it(path: str) -> None:
    with pytest.raises(AesmUnreachableError, match=f"cannot connect to {path}: No such file or directory") as caught:
        ask(path)
    assert "systemctl start aesmd" in caught.value.hint


def test_a_socket_that_nobody_listens_on_is_called_left_over(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with pytest.raises(AesmUnreachableError, match="Connection refused") as caught:
        ask(path)
    assert "left over" in caught.value.hint


def test_a_path_too_long_for_a_socket_is_told() -> None:
    with pytest.raises(AesmUnreachableError, match="cannot connect to /aaa"):
        ask("/" + "a" * 200)


def test_every_code_has_a_name_a_cause_and_a_next_step() -> None:
    assert sorted(CODES) == list(range(52))
    assert len({entry.name for entry in CODES.values()}) == 52
    for entry in CODES.values():
        assert entry.name.startswith("AESM_")
        assert entry.cause
        assert entry.next_step or entry.code == 0
        assert code_named(entry.name) == entry.code


def test_a_code_that_nobody_knows_is_told_by_its_number() -> None:
    assert meaning(4711)[:2] == (4711, "AESM_UNKNOWN")
