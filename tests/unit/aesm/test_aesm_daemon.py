"""The daemon over its socket: what it refuses, what it bounds, and what neither stops it nor leaks."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inclavare.aesm.codec import FRAME_MAX, encode
from inclavare.aesm.listener import inherited, opened, remove
from inclavare.aesm.messages import (
    REQUESTS,
    CheckUpdateStatusRequest,
    GetLaunchTokenRequest,
    GetQuoteRequest,
    GetSupportedAttKeyIDNumRequest,
    GetSupportedAttKeyIDNumResponse,
    GetWhiteListRequest,
    GetWhiteListResponse,
    GetWhiteListSizeRequest,
    GetWhiteListSizeResponse,
    InitQuoteExRequest,
    InitQuoteRequest,
    ReportAttestationErrorRequest,
    Request,
    SelectAttKeyIDRequest,
    SGXGetExtendedEpidGroupIdRequest,
    SGXRegisterRequest,
    SGXSwitchExtendedEpidGroupRequest,
    members,
)
from inclavare.errors import EnclaveError, HostError
from tests.unit.aesm.serving import Serving, read_all

ONE_KEY = GetSupportedAttKeyIDNumResponse(error_code=0, att_key_id_num=1)
RETIRED = [
    InitQuoteRequest(),
    GetQuoteRequest(report=bytes(432), quote_type=0, spid=bytes(16), buf_size=2048),
    ReportAttestationErrorRequest(platform_info=bytes(101), attestation_error_code=1, update_info_size=0),
    CheckUpdateStatusRequest(update_info_size=0, config=0),
    SGXGetExtendedEpidGroupIdRequest(),
    SGXSwitchExtendedEpidGroupRequest(x_group_id=1),
]


class NoPlatform:
    """A host that has lost its platform: whatever is asked of it fails."""

    def att_key_id(self) -> NoReturn:
        raise EnclaveError("the platform is gone")

    def qe_target_info(self) -> NoReturn:
        raise EnclaveError("the platform is gone")

    def pub_key_id(self) -> NoReturn:
        raise EnclaveError("the platform is gone")

    def quote_size(self) -> NoReturn:
        raise EnclaveError("the platform is gone")

    def quote(self, report: bytes) -> NoReturn:
        raise EnclaveError(f"the platform is gone, {len(report)}")

    def qe_report(self, target_info: bytes, reportdata: bytes) -> NoReturn:
        raise EnclaveError(f"the platform is gone, {len(target_info)}, {len(reportdata)}")

    def launch_token(self, mrenclave: bytes, modulus: bytes, attributes: bytes) -> NoReturn:
        raise ZeroDivisionError(mrenclave + modulus + attributes)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path, NoPlatform())
    yield serving
    serving.close()


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path, NoPlatform(), timeout_s=0.3)
    yield serving
    serving.close()


def well(daemon: Serving) -> bool:
    return daemon.ask(GetSupportedAttKeyIDNumRequest()) == ONE_KEY


@pytest.mark.parametrize("request_", RETIRED, ids=lambda request: type(request).__name__)
def test_epid_is_refused_and_the_log_says_why(daemon: Serving, request_: Request) -> None:
    assert daemon.ask(request_) == request_.RESPONSE(error_code=30)
    assert "AESM_SERVICE_UNAVAILABLE (Intel has retired EPID" in daemon.log.read_text()


@pytest.mark.parametrize(
    "request_",
    [
        GetQuoteRequest(report=bytes(431), quote_type=0, spid=bytes(16), buf_size=2048),
        GetQuoteRequest(report=bytes(432), quote_type=2, spid=bytes(16), buf_size=2048),
        GetQuoteRequest(report=bytes(432), quote_type=0, spid=bytes(15), buf_size=2048),
        GetQuoteRequest(report=bytes(432), quote_type=0, spid=bytes(16), nonce=b"", buf_size=2048),
        GetLaunchTokenRequest(mr_enclave=bytes(31), mr_signer=bytes(384), se_attributes=bytes(16)),
        GetLaunchTokenRequest(mr_enclave=bytes(32), mr_signer=bytes(32), se_attributes=bytes(16)),
        GetLaunchTokenRequest(mr_enclave=bytes(32), mr_signer=bytes(384), se_attributes=bytes(17)),
        InitQuoteExRequest(b_pub_key_id=False),
        InitQuoteExRequest(b_pub_key_id=False, att_key_id=bytes(255)),
        GetWhiteListRequest(white_list_size=1),
    ],
    ids=lambda request: type(request).__name__,
)
def test_wrong_sizes_are_the_parameter_error(daemon: Serving, request_: Request) -> None:
    assert daemon.ask(request_) == request_.RESPONSE(error_code=3)


def test_the_launch_enclave_has_an_empty_list_and_takes_no_other(daemon: Serving) -> None:
    assert daemon.ask(GetWhiteListSizeRequest()) == GetWhiteListSizeResponse(error_code=0, white_list_size=0)
    assert daemon.ask(GetWhiteListRequest(white_list_size=0)) == GetWhiteListResponse(error_code=0, white_list=b"")
    refused = daemon.ask(SGXRegisterRequest(buf=b"x", data_type=0))
    assert refused.error_code == 30


def test_a_request_without_a_required_member_is_the_unexpected_error(daemon: Serving) -> None:
    for kind in REQUESTS:
        tag = bytes([kind.NUMBER << 3 | 2]) if kind.NUMBER < 16 else bytes([kind.NUMBER << 3 & 0x7F | 0x82, 1])
        payload = tag + b"\0"
        answer = daemon.raw(len(payload).to_bytes(4, "little") + payload)
        assert answer, kind
        lacks = f"{kind.__name__}: AESM_UNEXPECTED_ERROR ({kind.__name__} lacks its member" in daemon.log.read_text()
        assert lacks == any(required for _, _, required in members(kind).values()), kind


def test_a_platform_that_fails_is_the_unexpected_error_and_logged(daemon: Serving) -> None:
    assert daemon.ask(SelectAttKeyIDRequest()).error_code == 1
    assert "AESM_UNEXPECTED_ERROR (the platform is gone)" in daemon.log.read_text()


def test_a_fault_of_the_daemon_closes_one_connection_and_is_logged(daemon: Serving) -> None:
    request = GetLaunchTokenRequest(mr_enclave=bytes(32), mr_signer=bytes(384), se_attributes=bytes(16))
    assert daemon.raw(encode(request)) == b""
    assert "level=error" in daemon.log.read_text()
    assert "ZeroDivisionError" in daemon.log.read_text()
    assert well(daemon)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\5\0",
        b"\0\0\0\0",
        b"\5\0\0\0\x0a\x03",
        b"\2\0\0\0\xa2\x01",
        b"\3\0\0\0\xa2\x01\0",
        (FRAME_MAX + 1).to_bytes(4, "little") + b"x",
        b"\xff\xff\xff\xff" + bytes(1000),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_request_is_closed_without_an_answer(daemon: Serving, data: bytes) -> None:
    assert daemon.raw(data) == b""
    assert well(daemon)


def test_a_request_in_single_bytes_is_answered(daemon: Serving) -> None:
    with daemon.connect() as connection:
        for byte in encode(GetSupportedAttKeyIDNumRequest(timeout=5)):
            connection.send(bytes([byte]))
        assert read_all(connection) == encode(ONE_KEY)


def test_the_largest_message_is_read(daemon: Serving) -> None:
    request = SelectAttKeyIDRequest(att_key_id_list=bytes(FRAME_MAX - 9))
    assert daemon.ask(request).error_code == 1  # the platform is asked for its key first


def test_one_connection_gets_one_answer(daemon: Serving) -> None:
    assert daemon.raw(encode(GetSupportedAttKeyIDNumRequest()) * 3) == encode(ONE_KEY)


def test_slow_clients_are_closed_when_their_time_is_over_and_hold_up_nobody(impatient: Serving) -> None:
    slow = [impatient.connect() for _ in range(50)]
    for connection in slow:
        connection.send(b"\5\0")
    begin = time.monotonic()
    assert well(impatient)
    assert time.monotonic() - begin < 0.25
    assert [read_all(connection) for connection in slow] == [b""] * 50
    for connection in slow:
        connection.close()
    assert "closed after 0.3 s" in impatient.log.read_text()


def test_a_thousand_clients_at_once_are_all_answered_and_nothing_is_left(daemon: Serving) -> None:
    assert well(daemon)
    before = len(os.listdir("/proc/self/fd"))
    frame = encode(GetSupportedAttKeyIDNumRequest())
    with ThreadPoolExecutor(100) as pool:
        waiting: list[socket.socket] = []
        for _ in range(400):  # half a frame each, while the others come and go
            waiting.append(daemon.connect())
            waiting[-1].send(frame[:3])
        answers = list(pool.map(daemon.raw, [frame] * 600))
        for connection in waiting:
            connection.send(frame[3:])
        answers += [read_all(connection) for connection in waiting]
        for connection in waiting:
            connection.close()
    assert answers == [encode(ONE_KEY)] * 1000
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_and_descriptors_do_not_grow(daemon: Serving) -> None:
    def round_of_everything() -> None:
        for _ in range(100):
            assert well(daemon)
            daemon.raw(b"\5\0")
            daemon.raw((1 << 20).to_bytes(4, "little") + bytes(1 << 16))

    def size() -> tuple[int, int]:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return len(os.listdir("/proc/self/fd")), pages

    round_of_everything()
    fds, pages = size()
    for _ in range(3):
        round_of_everything()
    after = size()
    assert after[0] == fds
    assert after[1] - pages < 512  # 2 MiB


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(payload=st.binary(min_size=1, max_size=120))
def test_random_messages_do_no_harm(daemon: Serving, payload: bytes) -> None:
    daemon.raw(len(payload).to_bytes(4, "little") + payload)
    assert "internal error" not in daemon.log.read_text()


def test_the_socket_is_for_everybody_and_its_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "aesm.socket"
    listener = opened(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o777
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    remove(listener, str(path), path.stat().st_ino)
    assert not path.exists()


def test_a_socket_left_over_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "aesm.socket")
    opened(path).close()
    with opened(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_where_a_daemon_answers_a_second_is_refused(daemon: Serving) -> None:
    with pytest.raises(HostError, match="a daemon answers there") as caught:
        opened(daemon.path)
    assert "Stop it first" in caught.value.hint
    assert well(daemon)


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(HostError, match="no socket"):
        opened(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_socket_of_another_daemon_is_not_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "aesm.socket"
    first = opened(str(path))
    inode = path.stat().st_ino
    path.rename(tmp_path / "away")
    with opened(str(path)):
        remove(first, str(path), inode)
        assert path.exists()


@pytest.mark.parametrize("environment", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}])
def test_without_a_socket_of_systemd_for_this_process_there_is_none(environment: dict[str, str]) -> None:
    assert inherited(environment, 4711) is None


@pytest.mark.parametrize(
    ("prepare", "count", "answer"),
    [
        ("s = socket.socket(socket.AF_UNIX); s.bind('p'); s.listen(); os.dup2(s.fileno(), 3)", 1, "listens"),
        ("s = socket.socket(socket.AF_UNIX); os.dup2(s.fileno(), 3)", 1, "descriptor 3 is not a listening"),
        ("s = socket.socket(); s.listen(); os.dup2(s.fileno(), 3)", 1, "descriptor 3 is not a listening"),
        ("pass", 2, "expected one socket of systemd, found 2"),
    ],
)
def test_the_socket_of_systemd_is_taken_if_it_is_one(tmp_path: Path, prepare: str, count: int, answer: str) -> None:
    program = (
        "import os, socket\n"
        f"{prepare}\n"
        "from inclavare.aesm.listener import inherited\n"
        "from inclavare.errors import HostError\n"
        "try:\n"
        f"    found = inherited({{'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '{count}'}}, os.getpid())\n"
        "    print('listens', os.get_inheritable(3), found.fileno())\n"
        "except HostError as error:\n"
        "    print(error)\n"
    )
    source = str(Path(__file__).parents[3] / "src")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer in done.stdout
