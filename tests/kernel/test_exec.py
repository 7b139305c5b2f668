"""The options of exec, as runc understands them, and the pidfds of new processes."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Bundle, Rune


@pytest.fixture
def running(rune: Rune, bundle: Bundle) -> Bundle:
    bundle.process["args"] = ["sleep", "60"]
    bundle.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [7]}
    rune.create(bundle)
    assert rune("start", "c").status == 0
    return bundle


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "1000 1000 1000 7"),
        (["--user", "5"], "5 1000 1000 7"),
        (["--user", "5:6", "--additional-gids", "9"], "5 6 6 7 9"),
    ],
)
@pytest.mark.usefixtures("running")
def test_a_user_without_group_keeps_the_containers_group(rune: Rune, options: list[str], told: str) -> None:
    assert rune("exec", *options, "c", "sh", "-c", "echo $(id -u) $(id -g) $(id -G)").out.strip() == told


@pytest.mark.parametrize("variable", ["NAME", "=value", ""])
@pytest.mark.usefixtures("running")
def test_what_is_no_variable_is_refused(rune: Rune, variable: str) -> None:
    refused = rune("exec", "--env", variable, "c", "true")
    assert refused.status == 255
    assert f"--env: {variable!r} is no variable" in refused.error


@pytest.mark.usefixtures("running")
def test_a_working_directory_is_an_absolute_path(rune: Rune) -> None:
    refused = rune("exec", "--cwd", "tmp", "c", "true")
    assert refused.status == 255
    assert "--cwd: 'tmp' is no absolute path" in refused.error


@pytest.mark.parametrize(("options", "told"), [([], "1"), (["--no-new-privs"], "1"), (["--no-new-privs=false"], "0")])
@pytest.mark.usefixtures("running")
def test_new_privileges_are_as_the_container_has_them_unless_said(rune: Rune, options: list[str], told: str) -> None:
    assert rune("exec", *options, "c", "grep", "NoNewPrivs", "/proc/self/status").out.split()[1] == told


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({}, ["0000000000000020", "77"]),
        ({"capabilities": {}, "oomScoreAdj": 0}, ["0000000000000000", "0"]),
        ({"capabilities": {"bounding": ["CAP_CHOWN"]}, "oomScoreAdj": 78}, ["0000000000000001", "78"]),
    ],
    ids=["neither", "none", "others"],
)
def test_what_a_process_leaves_out_is_the_containers(
    rune: Rune, bundle: Bundle, tmp_path: Path, members: dict[str, object], told: list[str]
) -> None:
    bundle.process["capabilities"] = {"bounding": ["CAP_KILL"]}
    bundle.process["oomScoreAdj"] = 77
    rune.create(bundle)
    document = tmp_path / "process.json"
    args = ["sh", "-c", "grep CapBnd /proc/self/status; cat /proc/self/oom_score_adj"]
    document.write_text(json.dumps({"args": args, "cwd": "/", "env": ["PATH=/bin"], **members}))
    assert rune("exec", "--process", document, "c").out.split()[1:] == told


@pytest.mark.usefixtures("running")
def test_a_process_waits_with_a_paused_container_only_if_told_so(rune: Rune) -> None:
    assert rune("pause", "c").status == 0
    refused = rune("exec", "c", "true")
    assert refused.status == 255
    assert "cannot exec in a paused container" in refused.error
    with subprocess.Popen(
        rune.command("exec", "--ignore-paused", "c", "echo", "goes on"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        assert rune("resume", "c").status == 0
        out, _ = waiting.communicate(timeout=20)
    assert (waiting.returncode, out) == (0, b"goes on\n")


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "pidfd.sock"))
        server.listen()
        server.settimeout(20)
        yield server


def take(listener: socket.socket) -> tuple[bytes, int]:
    """Return the words and the pidfd that came."""
    way, _ = listener.accept()
    with way:
        words, fds, _, _ = socket.recv_fds(way, 64, 2)
    (pidfd,) = fds
    return words, pidfd


def pid_of(pidfd: int) -> int:
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pid:")))


def test_create_and_exec_send_the_pidfds_of_their_processes(
    rune: Rune, bundle: Bundle, listener: socket.socket, tmp_path: Path
) -> None:
    bundle.process["args"] = ["sleep", "60"]
    path = tmp_path / "pidfd.sock"
    with (tmp_path / "out").open("wb") as out:
        words = rune.command("create", "--pidfd-socket", path, "--bundle", bundle.write(), "c")
        subprocess.run(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True, timeout=60)
        said, pidfd = take(listener)
        try:
            assert (said, pid_of(pidfd)) == (b"standard", rune.state()["pid"])
            assert rune("start", "c").status == 0
            words = rune.command(
                "exec", "-d", "--pidfd-socket", path, "--pid-file", tmp_path / "pid", "c", "sleep", "9"
            )
            subprocess.run(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True, timeout=60)
            said, other = take(listener)
            assert (said, pid_of(other)) == (b"setns", int((tmp_path / "pid").read_text()))
            os.close(other)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            assert poll.poll(10_000)
        finally:
            os.close(pidfd)
    rune.wait_for("stopped")


def test_a_pidfd_that_nobody_takes_ends_what_was_begun(rune: Rune, bundle: Bundle, tmp_path: Path) -> None:
    absent = tmp_path / "absent.sock"
    pid_file = tmp_path / "pid"
    refused = rune("run", "-d", "--pidfd-socket", absent, "--pid-file", pid_file, "--bundle", bundle.write(), "c")
    assert refused.status == 1
    assert f"cannot send the pidfd to the socket {absent}: No such file or directory" in refused.error
    assert not pid_file.exists()
    assert rune.leftovers() == []
