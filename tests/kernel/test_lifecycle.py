"""create, start, state, kill, delete, list, exec: the ways through a container's life."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import socket
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.kernel.conftest import Bundle, Rune


def test_a_created_container_waits_for_start(rune: Rune, bundle: Bundle) -> None:
    bundle.shell("echo started; sleep 60")
    rune.create(bundle)
    state = rune.state()
    assert state["status"] == "created"
    assert state["id"] == "c"
    assert state["bundle"] == str(bundle.path)
    assert Path(f"/proc/{state['pid']}").exists()
    assert rune.out == ""
    assert rune("start", "c").status == 0
    rune.wait_for("running")
    deadline = time.monotonic() + 10
    while rune.out != "started\n":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_container_ends_as_stopped_and_keeps_its_state_until_delete(rune: Rune, bundle: Bundle) -> None:
    rune.create(bundle)
    rune("start", "c")
    rune.wait_for("stopped")
    assert rune.state()["pid"] == 0
    assert rune("delete", "c").status == 0
    assert "container does not exist" in rune("state", "c").error


def test_start_works_only_once(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    assert rune("start", "c").status == 0
    again = rune("start", "c")
    assert again.status == 1
    assert "cannot start a running container" in again.error


def test_a_stopped_container_cannot_be_started_or_killed(rune: Rune, bundle: Bundle) -> None:
    rune.create(bundle)
    rune("start", "c")
    rune.wait_for("stopped")
    assert "cannot start a container that has stopped" in rune("start", "c").error
    killed = rune("kill", "c", "TERM")
    assert killed.status == 1
    assert "container not running" in killed.error


def test_an_id_can_be_used_once(rune: Rune, bundle: Bundle) -> None:
    rune.create(bundle)
    again = rune("create", "--bundle", bundle.path, "c")
    assert again.status == 1
    assert "container with given ID already exists" in again.error
    assert rune.state()["status"] == "created"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a b", "ü"])
def test_odd_ids_are_refused(rune: Rune, bundle: Bundle, name: str) -> None:
    result = rune.run(bundle, name)
    assert result.status == 1
    assert "invalid container ID format" in result.error


@pytest.mark.parametrize("command", ["state", "start", "kill", "delete", "ps"])
def test_an_unknown_container_is_said_to_be_unknown(rune: Rune, command: str) -> None:
    result = rune(command, "nobody")
    assert result.status == 1
    assert "does not exist" in result.error


def test_delete_with_force_of_an_unknown_container_is_done_already(rune: Rune) -> None:
    assert rune("delete", "--force", "nobody").status == 0


def test_a_running_container_is_deleted_only_by_force(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    rune("start", "c")
    refused = rune("delete", "c")
    assert refused.status == 1
    assert "that is not stopped: running" in refused.error
    assert rune("delete", "--force", "c").status == 0
    assert rune.leftovers() == []


def test_a_created_container_can_be_deleted(rune: Rune, bundle: Bundle) -> None:
    rune.create(bundle)
    pid = rune.state()["pid"]
    assert rune("delete", "c").status == 0
    assert not Path(f"/proc/{pid}/root").exists() or not os.path.exists(f"/proc/{pid}/exe")


@pytest.mark.parametrize("signal", ["TERM", "SIGTERM", "15", "sigterm"])
def test_kill_sends_a_signal_by_name_or_number(rune: Rune, bundle: Bundle, signal: str) -> None:
    bundle.shell("trap 'exit 0' TERM; while :; do sleep 0.02; done")
    rune.create(bundle)
    rune("start", "c")
    time.sleep(0.2)
    assert rune("kill", "c", signal).status == 0
    rune.wait_for("stopped")


def test_an_unknown_signal_is_refused_by_name(rune: Rune, bundle: Bundle) -> None:
    rune.create(bundle)
    result = rune("kill", "c", "SIGNONSENSE")
    assert result.status == 1
    assert "SIGNONSENSE" in result.error


def test_kill_of_everyone_reaches_all_processes(rune: Rune, bundle: Bundle) -> None:
    bundle.shell("sleep 60 & sleep 60 & wait")
    rune.create(bundle)
    rune("start", "c")
    rune.wait_for("running")
    deadline = time.monotonic() + 10
    while len(json.loads(rune("ps", "--format", "json", "c").out)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert rune("kill", "--all", "c", "KILL").status == 0
    rune.wait_for("stopped")


def test_list_tells_every_container(rune: Rune, bundle: Bundle) -> None:
    rune.create(bundle, "one")
    bundle.linux["cgroupsPath"] += "-two"
    rune.create(bundle, "two")
    assert rune("list", "--quiet").out == "one\ntwo\n"
    documents = json.loads(rune("list", "--format", "json").out)
    assert [(document["id"], document["status"]) for document in documents] == [("one", "created"), ("two", "created")]
    lines = rune("list").out.splitlines()
    assert lines[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert [line.split()[0] for line in lines[1:]] == ["one", "two"]


def test_list_of_nothing_is_empty(rune: Rune) -> None:
    assert rune("list", "--format", "json").out == "[]\n"


@pytest.fixture
def running(rune: Rune, bundle: Bundle) -> Rune:
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    assert rune("start", "c").status == 0
    return rune


def test_exec_runs_in_the_namespaces_of_the_container(running: Rune) -> None:
    pid = running.state()["pid"]
    names = ("pid", "mnt", "uts", "ipc", "net")
    inside = running("exec", "c", "sh", "-c", "; ".join(f"readlink /proc/self/ns/{name}" for name in names)).out.split()
    assert inside == [os.readlink(f"/proc/{pid}/ns/{name}") for name in names]


@pytest.mark.parametrize("status", [0, 9, 255])
def test_exec_ends_with_the_status_of_the_program(running: Rune, status: int) -> None:
    assert running("exec", "c", "sh", "-c", f"exit {status}").status == status


def test_exec_takes_environment_directory_and_user(running: Rune) -> None:
    words = ("exec", "--env", "A=b c", "--cwd", "/tmp", "--user", "1000:7", "--additional-gids", "8", "c")
    script = 'echo "$A $HOME $(pwd) $(id -u) $(id -g) $(id -G)"'
    assert running(*words, "sh", "-c", script).out == "b c /home/user /tmp 1000 7 7 8\n"


def test_exec_of_an_unknown_program_gives_255_and_names_it(running: Rune) -> None:
    result = running("exec", "c", "nowhere")
    assert result.status == 255
    assert 'exec: "nowhere": executable file not found in $PATH' in result.error


def test_exec_reads_a_process_from_a_file(running: Rune, tmp_path: Path) -> None:
    process = {
        "args": ["sh", "-c", "echo $X; exit 4"],
        "env": ["PATH=/bin", "X=y"],
        "cwd": "/",
        "user": {"uid": 0, "gid": 0},
    }
    (tmp_path / "process.json").write_text(json.dumps(process))
    result = running("exec", "--process", tmp_path / "process.json", "c")
    assert (result.status, result.out) == (4, "y\n")


def test_exec_needs_a_running_container(rune: Rune, bundle: Bundle) -> None:
    rune.create(bundle)
    rune("start", "c")
    rune.wait_for("stopped")
    result = rune("exec", "c", "true")
    assert result.status == 255
    assert "stopped container" in result.error


def test_exec_keeps_capabilities_and_no_new_privileges(running: Rune) -> None:
    result = running("exec", "c", "grep", "-E", "CapEff|NoNewPrivs", "/proc/self/status")
    assert result.out.split() == ["CapEff:", "0000000020000420", "NoNewPrivs:", "1"]


def test_a_detached_exec_goes_on(running: Rune, tmp_path: Path) -> None:
    pid_file = tmp_path / "exec.pid"
    done = subprocess.run(
        running.command("exec", "--detach", "--pid-file", pid_file, "c", "sleep", "60"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0
    pid = int(pid_file.read_text())
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x0060\0"


def test_a_dry_run_prints_every_step_and_changes_nothing(rune: Rune, bundle: Bundle) -> None:
    for command in ("create", "run"):
        result = rune(command, "--dry-run", "--bundle", bundle.write(), "c")
        assert result.status == 0
        lines = result.out.splitlines()
        assert [int(line.split()[0]) for line in lines] == list(range(len(lines)))
        assert any("report that all is set up" in line for line in lines)
        assert 'execute "true"' in lines[-1]
        assert ("wait for start" in result.out) == (command == "create")
    assert not rune.root.exists()


def test_a_foreground_terminal_is_a_terminal_of_the_right_size(rune: Rune, bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    bundle.shell("tty; stty size; test -c /dev/console && echo console; read line; echo got $line; exit 6")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
    child = subprocess.Popen(
        rune.command("run", "--bundle", bundle.write(), "c"), stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    seen = b""
    answered = False
    try:
        while chunk := os.read(master, 1000):
            seen += chunk
            if b"console\r\n" in seen and not answered:
                os.write(master, b"hello\n")
                answered = True
    except OSError:
        pass
    os.close(master)
    assert child.wait(20) == 6
    text = seen.decode().replace("\r", "")
    assert "/dev/pts/0\n33 77\nconsole\n" in text
    assert "got hello\n" in text


def test_the_console_socket_receives_the_master(rune: Rune, bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["terminal"] = True
    bundle.process["consoleSize"] = {"height": 11, "width": 22}
    bundle.shell("stty size; sleep 60")
    path = tmp_path / "s"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)
    done = subprocess.run(
        rune.command("create", "--bundle", bundle.write(), "--console-socket", path, "c"),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    connection, _ = server.accept()
    _, descriptors, _, _ = socket.recv_fds(connection, 100, 1)
    rune("start", "c")
    assert os.read(descriptors[0], 100) == b"11 22\r\n"
    os.close(descriptors[0])
    server.close()
    connection.close()


@pytest.mark.parametrize(
    ("terminal", "words", "message"),
    [
        (True, ["create"], "cannot allocate tty if rune will detach without setting console socket"),
        (True, ["run", "--console-socket", "/x"], "cannot use console socket if rune will not detach"),
        (False, ["create", "--console-socket", "/x"], "cannot use console socket if no tty is allocated"),
    ],
)
def test_terminal_and_console_socket_must_fit(
    rune: Rune, bundle: Bundle, terminal: bool, words: list[str], message: str
) -> None:
    bundle.process["terminal"] = terminal
    result = rune(*words, "--bundle", bundle.write(), "c")
    assert result.status == 1
    assert message in result.error


def test_hooks_run_in_order_with_the_state_on_stdin(rune: Rune, bundle: Bundle) -> None:
    notes = bundle.path / "notes"
    script = f'read -r line; echo "$1 $line" >> {notes}'
    bundle.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", script, "sh", kind]}]
        for kind in ("prestart", "createRuntime", "poststart", "poststop")
    }
    assert rune.run(bundle).status == 0
    lines = [line.split(" ", 1) for line in notes.read_text().splitlines()]
    assert [kind for kind, _ in lines] == ["prestart", "createRuntime", "poststart", "poststop"]
    states = [json.loads(state) for _, state in lines]
    assert all(state["id"] == "c" and state["bundle"] == str(bundle.path) for state in states)
    assert states[0]["pid"] > 0
    assert states[-1]["status"] == "stopped"


def test_a_failed_prestart_hook_undoes_the_container(rune: Rune, bundle: Bundle) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo no network >&2; exit 3"]}
    bundle.config["hooks"] = {"prestart": [hook]}
    result = rune.run(bundle)
    assert result.status == 1
    assert "error running prestart hook #0 (/bin/sh): exit status 3, stdout: , stderr: no network" in result.error
    assert rune.leftovers() == []


def test_a_hook_that_takes_too_long_is_killed(rune: Rune, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]}
    result = rune.run(bundle)
    assert result.status == 1
    assert "hook ran past specified timeout of 1.0s" in result.error
