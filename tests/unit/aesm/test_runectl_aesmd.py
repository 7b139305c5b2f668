"""`runectl aesmd` as a process: started, asked by runectl's other commands, and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inclavare.aesm.client import AesmClient
from inclavare.aesm.messages import GetSupportedAttKeyIDNumRequest, GetSupportedAttKeyIDNumResponse
from inclavare.aesm.quoting import qe_target_info, quote
from inclavare.cli.runectl import main
from inclavare.sgx.arch import TargetInfo
from inclavare.sgx.quote import parse_quote
from inclavare.sgx.softkeys import LAUNCH_ENCLAVE, SoftKeys
from tests.unit.aesm.soft_platform import SEED, write_platform

SOURCE = Path(__file__).parents[3] / "src"
SIGSTRUCT = Path(__file__).parents[2] / "vectors" / "sigstruct" / "hello-world.sig"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.chdir(tmp_path)
    started: list[subprocess.Popen[str]] = []

    def begin(*options: str, platform: str = "platform") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "inclavare.cli.runectl", "aesmd"),
                *("--socket", "aesm.socket", "--platform", platform, *options),
            ],
            env={"PYTHONPATH": str(SOURCE)},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    assert "serves AESM on" in process.stderr.readline()


def keys() -> int | None:
    client = AesmClient("aesm.socket", 60)
    return client.ask("ask", GetSupportedAttKeyIDNumRequest(), GetSupportedAttKeyIDNumResponse).att_key_id_num


def test_a_daemon_serves_logs_and_stops_cleanly(start: Start, tmp_path: Path) -> None:
    write_platform(tmp_path / "platform")
    daemon = start("--no-daemon", "--no-syslog")
    until_ready(daemon)
    assert keys() == 1
    daemon.send_signal(signal.SIGTERM)
    _, log = daemon.communicate(timeout=10)
    assert daemon.returncode == 0
    assert f"pid {os.getpid()} uid {os.getuid()}: GetSupportedAttKeyIDNumRequest: AESM_SUCCESS" in log
    assert log.endswith('level=info msg="stopped"\n')
    assert not (tmp_path / "aesm.socket").exists()


def test_runectl_gets_target_info_quote_and_token(start: Start, tmp_path: Path) -> None:
    write_platform(tmp_path / "platform")
    until_ready(start())
    assert main(["gen-qe-target-info", "--socket", "aesm.socket", "--targetinfo", "target"]) == 0
    target = TargetInfo.from_bytes((tmp_path / "target").read_bytes())
    report = SoftKeys(SEED).report(LAUNCH_ENCLAVE, target, bytes(range(64)))
    (tmp_path / "report").write_bytes(report.to_bytes())
    assert main(["gen-quote", "--socket", "aesm.socket", "--report", "report"]) == 0
    assert parse_quote((tmp_path / "quote.bin").read_bytes()).body.mrenclave == LAUNCH_ENCLAVE.mrenclave
    assert main(["gen-token", "--socket", "aesm.socket", "--signature", str(SIGSTRUCT), "--token", "token"]) == 0
    assert (tmp_path / "token").stat().st_size == 304


def test_runectl_is_told_of_a_forged_report_and_of_epid(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_platform(tmp_path / "platform")
    until_ready(start())
    (tmp_path / "report").write_bytes(bytes(432))
    assert main(["gen-quote", "--socket", "aesm.socket", "--report", "report"]) == 1
    assert "AESM error 47 (AESM_INVALID_REPORT)" in capsys.readouterr().err
    assert main(["gen-quote", "--socket", "aesm.socket", "--report", "report", "--spid", "00" * 16]) == 1
    error = capsys.readouterr().err
    assert "AESM error 30 (AESM_SERVICE_UNAVAILABLE)" in error
    assert "Intel has retired EPID" in error


def test_a_quote_from_a_daemon_that_was_started_anew_needs_no_new_target_info(start: Start, tmp_path: Path) -> None:
    write_platform(tmp_path / "platform")
    first = start()
    until_ready(first)
    target = TargetInfo.from_bytes(qe_target_info(AesmClient("aesm.socket"), "ecdsa"))
    first.terminate()
    first.wait(10)
    until_ready(start())
    report = SoftKeys(SEED).report(LAUNCH_ENCLAVE, target, bytes(64))
    assert parse_quote(quote(AesmClient("aesm.socket"), "ecdsa", report.to_bytes()))


def test_a_second_daemon_is_refused_and_one_after_a_crash_is_not(start: Start, tmp_path: Path) -> None:
    write_platform(tmp_path / "platform")
    first = start()
    until_ready(first)
    second = start()
    assert "a daemon answers there" in second.communicate(timeout=10)[1]
    assert second.returncode == 1
    first.kill()
    first.wait()
    assert (tmp_path / "aesm.socket").exists()
    until_ready(start())
    assert keys() == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda platform: (platform / "seed").unlink(), "there is no software platform: platform/seed is missing"),
        (lambda platform: (platform / "seed").write_bytes(b"short"), "32 bytes, found 5"),
        (lambda platform: (platform / "seed").write_bytes(bytes(32)), "platform/pck.pem is not for the seed beside it"),
        (lambda platform: (platform / "seed").chmod(0o644), "can be read by others"),
        (lambda platform: (platform / "pck.pem").write_bytes(b"x"), "does not begin with a certificate"),
    ],
)
def test_a_platform_that_is_damaged_is_told_before_anything_is_served(
    start: Start, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(write_platform(tmp_path / "platform"))
    daemon = start()
    assert message in daemon.communicate(timeout=10)[1]
    assert daemon.returncode == 1
    assert not (tmp_path / "aesm.socket").exists()


def test_systemds_socket_is_used_left_in_place_and_readiness_told(tmp_path: Path) -> None:
    write_platform(tmp_path / "platform")
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify"))
    notify.settimeout(20)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "aesm.socket"))
    listener.listen()
    program = (
        f"import os, sys; os.dup2({listener.fileno()}, 3);"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
        "os.execv(sys.executable, [sys.executable, '-m', 'inclavare.cli.runectl', 'aesmd', '--platform', 'platform'])"
    )
    daemon = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(SOURCE), "NOTIFY_SOCKET": str(tmp_path / "notify")},
        pass_fds=[listener.fileno()],
    )
    with notify, listener:
        assert notify.recv(100) == b"READY=1"
        client = AesmClient(str(tmp_path / "aesm.socket"), 10)
        answer = client.ask("ask", GetSupportedAttKeyIDNumRequest(), GetSupportedAttKeyIDNumResponse)
        assert answer.att_key_id_num == 1
        daemon.terminate()
        assert notify.recv(100) == b"STOPPING=1"
        assert daemon.wait(10) == 0
    assert (tmp_path / "aesm.socket").exists()


def test_a_thousand_clients_neither_stop_the_daemon_nor_make_it_grow(start: Start, tmp_path: Path) -> None:
    write_platform(tmp_path / "platform")
    daemon = start("--log-level", "warning")
    for _ in range(200):
        if (tmp_path / "aesm.socket").exists():
            break
        time.sleep(0.05)
    assert keys() == 1

    def size() -> tuple[int, int]:
        folder = Path(f"/proc/{daemon.pid}")
        return len(os.listdir(folder / "fd")), int((folder / "statm").read_text().split()[1])

    def thousand() -> None:
        with ThreadPoolExecutor(200) as pool:
            assert list(pool.map(lambda _: keys(), range(1000))) == [1] * 1000

    thousand()
    fds, pages = size()
    thousand()
    thousand()
    time.sleep(0.1)
    after = size()
    assert after[0] <= fds
    assert after[1] - pages < 512  # 2 MiB
