"""Tasks that containerd runs through our shim, as `ctr run --runtime io.containerd.rune.v2` starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.conftest import BUSYBOX, SKELETON
from tests.integration.containerd import RUNTIME, Containerd

GREETING = "Hello Inclavare Containers!"
SUCCESS = "Enclave runtime skeleton initialization succeeded"


def options(containerd: Containerd, name: str = "task") -> list[str]:
    """Return the options of `ctr run` for our runtime, in a cgroup of the tests'."""
    return ["--runtime", RUNTIME, "--cgroup", f"{containerd.cgroup_parent}/{name}"]


def enclave(native: Path, version: int = 3) -> list[str]:
    """Return the options of `ctr run` that make an enclave container of one of the skeleton's image."""
    values = {"TYPE": "intelSgx", "RUNTIME_PATH": f"{native}/liberpal-skeleton-v{version}.so", "RUNTIME_ARGS": "debug"}
    return [word for name, value in values.items() for word in ("--env", f"ENCLAVE_{name}={value}")]


def running(containerd: Containerd, name: str = "task", *words: str, more: tuple[str, ...] = ()) -> int:
    """Start a task that goes on, and return its pid."""
    containerd.ok("run", "--detach", *options(containerd, name), *more, BUSYBOX, name, *(words or ("sleep", "1000")))
    pid, status = containerd.tasks()[name]
    assert status == "RUNNING"
    return pid


def delete(containerd: Containerd, name: str = "task", *words: str) -> int:
    """Delete a task, and return the status that its program ended with, which ctr tells in words."""
    done = containerd("task", "delete", *words, name)
    status = re.search(r"exit with non-zero exit code (\d+)", done.stderr)
    assert status or not done.stderr, done.stderr
    return int(status[1]) if status else 0


def lives(pid: int) -> bool:
    """Tell whether a process runs. The machine's first process takes its time to reap what it has inherited."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def events(containerd: Containerd) -> Iterator[Path]:
    """Return the file to which containerd's events are written."""
    path = containerd.directory / "events"
    with path.open("wb") as file:
        process = subprocess.Popen(containerd.command("events"), stdin=subprocess.DEVNULL, stdout=file)
        try:
            time.sleep(0.2)  # until it listens, which it does not tell
            yield path
        finally:
            process.kill()
            process.wait()


def topics(events: Path, task: str, last: str) -> list[tuple[str, dict[str, object]]]:
    """Return the events of a task, waiting until there is one of the topic `last`."""
    deadline = time.monotonic() + 10
    while True:
        found = []
        for line in events.read_text().splitlines():
            match = re.search(r" (/tasks/\S+) (\{.*)", line)
            if match and (value := json.loads(match[2])).get("container_id") == task:
                found.append((match[1].removeprefix("/tasks/"), value))
        if last in [topic for topic, _ in found] or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


# --- a task in the foreground -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 7, 255])
def test_run_exits_with_the_programs_status_and_keeps_its_outputs_apart(containerd: Containerd, status: int) -> None:
    script = f"echo out; echo error >&2; exit {status}"
    done = containerd("run", "--rm", *options(containerd), BUSYBOX, "task", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (status, "out\n", "error\n")


def test_the_shim_can_be_named_by_its_path(containerd: Containerd, checkout: Path) -> None:
    runtime = ["--runtime", str(checkout / "build/bin/containerd-shim-rune-v2")]
    group = ["--cgroup", f"{containerd.cgroup_parent}/task"]
    assert containerd.ok("run", "--rm", *runtime, *group, BUSYBOX, "task", "echo", "here") == "here"


def test_a_program_that_does_not_exist_is_named(containerd: Containerd) -> None:
    done = containerd("run", "--rm", *options(containerd), BUSYBOX, "task", "no-such-program")
    assert done.returncode == 1
    assert 'exec: "no-such-program": executable file not found in $PATH' in done.stderr


def test_run_on_a_terminal(containerd: Containerd) -> None:
    status, shown = containerd.terminal(
        *("run", "--rm", "-t", *options(containerd), BUSYBOX, "task", "sh"),
        typed="sleep 0.3; tty; stty size; exit 3\n",  # the client tells the size after the start
        size=(33, 99),
    )
    assert status == 3
    assert re.search(r"^/dev/pts/0\r+\n33 99\r+$", shown, re.MULTILINE), shown  # as with containerd's own shim


def test_the_program_sees_the_end_of_its_input_every_time(containerd: Containerd) -> None:
    """The client says CloseIO as soon as it has written all, which may be before the task is known."""
    for _ in range(12):
        words = ("run", "--rm", *options(containerd), BUSYBOX, "task", "wc", "-w")
        assert containerd.ok(*words, input="a b c\n", timeout=20) == "3"


def test_much_goes_in_and_comes_out_unchanged(containerd: Containerd) -> None:
    text = "".join(f"line {number}\n" for number in range(200_000))
    words = ("run", "--rm", *options(containerd), BUSYBOX, "task", "cat")
    assert containerd(*words, input=text).stdout == text


def test_twenty_tasks_at_once(containerd: Containerd) -> None:
    def run(number: int) -> str:
        name = f"task-{number}"
        return containerd.ok("run", "--rm", *options(containerd, name), BUSYBOX, name, "echo", f"number {number}")

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(run, range(20))) == [f"number {number}" for number in range(20)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_the_program_and_shows_in_the_status(containerd: Containerd, number: signal.Signals) -> None:
    words = ["run", "--rm", *options(containerd), BUSYBOX, "task", "sh", "-c", "trap 'exit 5' TERM; sleep 1000 & wait"]
    with subprocess.Popen(containerd.command(*words), stdin=subprocess.DEVNULL) as client:
        containerd.wait_until(lambda: containerd.tasks().get("task", (0, ""))[1] == "RUNNING")
        time.sleep(0.1)  # until the trap is set
        containerd.ok("task", "kill", "--signal", number.name, "task")
        assert client.wait(20) == {signal.SIGTERM: 5, signal.SIGKILL: 137}[number]


def test_output_goes_to_a_file_that_the_client_names(containerd: Containerd, tmp_path: Path) -> None:
    log = tmp_path / "logs/out"
    words = ("run", "--detach", "--log-uri", f"file://{log}", *options(containerd), BUSYBOX, "task")
    containerd.ok(*words, "sh", "-c", "echo out; echo error >&2")
    containerd.wait_until(lambda: containerd.tasks()["task"][1] == "STOPPED")
    assert log.read_text() == "out\nerror\n"


def test_output_goes_to_a_program_that_the_client_names(containerd: Containerd, tmp_path: Path) -> None:
    program = tmp_path / "logger"
    program.write_text(
        f"#!/bin/sh\nexec >{tmp_path}/log 2>&1\necho $CONTAINER_NAMESPACE $CONTAINER_ID $@\nexec 5>&-\n"
        "cat <&3 & cat <&4\nwait\necho end\n"
    )
    program.chmod(0o755)
    words = ("run", "--detach", "--log-uri", f"binary://{program}?color=red", *options(containerd), BUSYBOX, "task")
    containerd.ok(*words, "sh", "-c", "echo out; sleep 0.1; echo error >&2")
    containerd.wait_until(lambda: "end" in (tmp_path / "log").read_text())
    assert (tmp_path / "log").read_text() == "default task color red\nout\nerror\nend\n"


# --- a task that goes on ----------------------------------------------------------------------------------------------


def test_what_every_test_looks_for_at_its_end_can_be_found(containerd: Containerd) -> None:
    running(containerd)
    kinds = {left.split()[0] for left in containerd.leftovers(patience_s=0)}
    assert kinds == {"state", "socket", "bundle", "cgroup", "mount", "shim"}


def test_the_life_of_a_task(containerd: Containerd, events: Path) -> None:
    pid = running(containerd)
    assert containerd.ok("task", "exec", "--exec-id", "e", "task", "echo", "inside") == "inside"
    containerd.ok("task", "pause", "task")
    assert containerd.tasks()["task"] == (pid, "PAUSED")
    assert "paused" in containerd("task", "exec", "--exec-id", "f", "task", "true").stderr
    containerd.ok("task", "resume", "task")
    assert containerd.tasks()["task"] == (pid, "RUNNING")
    assert "memory" in containerd.ok("task", "metrics", "task")
    assert [line.split()[0] for line in containerd.ok("task", "ps", "task").splitlines()] == ["PID", str(pid)]
    assert "running" in containerd("task", "delete", "task").stderr
    containerd.ok("task", "kill", "--signal", "KILL", "task")
    containerd.wait_until(lambda: containerd.tasks()["task"] == (pid, "STOPPED"))
    assert delete(containerd) == 137
    containerd.ok("container", "delete", "task")
    told = topics(events, "task", "delete")
    expected = ["create", "start", "exec-added", "exec-started", "exit", "paused", "resumed", "exit", "delete"]
    assert [topic for topic, _ in told] == expected
    assert [(event["id"], event.get("exit_status", 0)) for topic, event in told if topic == "exit"] == [
        ("e", 0),
        ("task", 137),
    ]


def test_exec_has_a_status_an_input_and_a_terminal_of_its_own(containerd: Containerd) -> None:
    running(containerd)
    words = ("task", "exec", "--exec-id", "e")
    assert containerd(*words, "task", "sh", "-c", "exit 9").returncode == 9
    assert "executable file not found in $PATH" in containerd(*words, "task", "no-such-program").stderr
    for _ in range(5):
        assert containerd.ok(*words, "task", "wc", "-c", input="12345") == "5"
    status, shown = containerd.terminal(*words, "-t", "task", "sh", typed="tty; exit 4\n")
    assert status == 4
    assert "/dev/pts/" in shown


def test_tasks_of_a_group_share_a_shim(containerd: Containerd) -> None:
    group = ("--annotation", "io.containerd.runc.v2.group=together")
    for name in ("one", "two", "three"):
        running(containerd, name, more=group)
    running(containerd, "alone")
    assert len(containerd.shims()) == 2
    for name in ("one", "two"):
        assert delete(containerd, name, "--force") == 137
    assert containerd.ok("task", "exec", "--exec-id", "e", "three", "echo", "inside") == "inside"
    containerd("task", "delete", "--force", "three")
    containerd.wait_until(lambda: len(containerd.shims()) == 1)


def test_a_task_that_wants_too_much_memory_is_ended_and_told_of(containerd: Containerd, events: Path) -> None:
    words = ("run", "--rm", "--memory-limit", str(16 << 20), *options(containerd), BUSYBOX, "task")
    done = containerd(*words, "sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done")
    assert done.returncode == 137
    assert [topic for topic, _ in topics(events, "task", "delete")] == ["create", "start", "oom", "exit", "delete"]


# --- crashes ----------------------------------------------------------------------------------------------------------


def test_tasks_outlive_a_crash_of_containerd(containerd: Containerd) -> None:
    pid = running(containerd)
    running(containerd, "short", "sh", "-c", "until [ -e /go ]; do sleep 0.05; done; exit 6")
    containerd.kill()
    (bundle,) = containerd.directory.glob("state/io.containerd.runtime.v2.task/default/short/rootfs")
    subprocess.run([*containerd.place(), "touch", bundle / "go"], check=True)
    time.sleep(0.5)  # it ends while nobody listens
    containerd.start()
    assert containerd.tasks() == {"task": (pid, "RUNNING"), "short": (containerd.tasks()["short"][0], "STOPPED")}
    assert delete(containerd, "short") == 6
    assert containerd.ok("task", "exec", "--exec-id", "e", "task", "echo", "inside") == "inside"
    containerd.ok("task", "kill", "--signal", "KILL", "task")
    containerd.wait_until(lambda: containerd.tasks()["task"][1] == "STOPPED")
    assert delete(containerd) == 137


def test_events_from_the_time_without_containerd_come_later(containerd: Containerd) -> None:
    running(containerd, "task", "sh", "-c", "until [ -e /go ]; do sleep 0.05; done; exit 6")
    (rootfs,) = containerd.directory.glob("state/io.containerd.runtime.v2.task/default/task/rootfs")
    containerd.kill()
    containerd.start()
    log = containerd.directory / "events"
    with log.open("wb") as file, subprocess.Popen(containerd.command("events"), stdout=file) as listener:
        try:
            time.sleep(0.2)
            subprocess.run([*containerd.place(), "touch", rootfs / "go"], check=True)
            ((topic, event),) = topics(log, "task", "exit")
        finally:
            listener.kill()
    assert (topic, event["exit_status"]) == ("exit", 6)


def test_a_killed_shim_takes_its_task_along_and_leaves_nothing(containerd: Containerd, events: Path) -> None:
    words = ["run", "--rm", *options(containerd), BUSYBOX, "task", "sleep", "1000"]
    with subprocess.Popen(containerd.command(*words), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        containerd.wait_until(lambda: containerd.tasks().get("task", (0, ""))[1] == "RUNNING")
        pid = containerd.tasks()["task"][0]
        (shim,) = containerd.shims()
        os.kill(shim, signal.SIGKILL)
        client.wait(20)
    exits = [event for topic, event in topics(events, "task", "delete") if topic == "exit"]
    assert [(event["pid"], event["exit_status"]) for event in exits] == [(pid, 137)]
    assert containerd.tasks() == {}
    assert not lives(pid)
    assert not containerd.leftovers()


def test_a_shim_that_died_while_containerd_was_away_is_cleaned_up(containerd: Containerd) -> None:
    pid = running(containerd)
    (shim,) = containerd.shims()
    containerd.kill()
    os.kill(shim, signal.SIGKILL)
    containerd.start()
    containerd.wait_until(lambda: containerd.tasks() == {}, 10)
    assert not lives(pid)
    assert not containerd.leftovers()


# --- enclaves ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_enclave_container_prints_what_its_enclave_says(containerd: Containerd, native: Path, version: int) -> None:
    done = containerd("run", "--rm", *options(containerd), *enclave(native, version), SKELETON, "task")
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    assert {GREETING, SUCCESS, "platform: emulated"} <= set(lines)


def test_an_enclave_container_by_annotations(containerd: Containerd, native: Path) -> None:
    values = {"type": "intelSgx", "runtime.path": f"{native}/liberpal-skeleton-v3.so"}
    words = [word for name, value in values.items() for word in ("--annotation", f"enclave.{name}={value}")]
    assert GREETING in containerd.ok("run", "--rm", *options(containerd), *words, SKELETON, "task")


def test_an_enclave_container_on_a_terminal(containerd: Containerd, native: Path) -> None:
    status, shown = containerd.terminal("run", "--rm", "-t", *options(containerd), *enclave(native), SKELETON, "task")
    assert status == 0, shown
    assert GREETING in shown
    assert SUCCESS in shown


def test_exec_into_an_enclave_container_and_its_end(containerd: Containerd, native: Path) -> None:
    words = ("skeleton", "wait_timeout", "100")
    containerd.ok("run", "--detach", *options(containerd), *enclave(native), SKELETON, "task", *words)
    done = containerd("task", "exec", "--exec-id", "e", "task", "skeleton")
    assert done.returncode == 0, done.stderr
    assert SUCCESS in done.stdout + done.stderr
    containerd.ok("task", "pause", "task")
    containerd.ok("task", "resume", "task")
    containerd.ok("task", "kill", "task")
    containerd.wait_until(lambda: containerd.tasks()["task"][1] == "STOPPED")
    assert delete(containerd) == 143


def test_without_a_word_for_emulation_an_enclave_container_is_refused(containerd: Containerd, native: Path) -> None:
    containerd.kill()
    containerd.start(platform="")
    try:
        done = containerd("run", "--rm", *options(containerd), *enclave(native), SKELETON, "task")
    finally:
        containerd.kill()
        containerd.start()
    assert done.returncode == 1
    assert "this host has no SGX device" in done.stderr
    assert "RUNE_SGX_PLATFORM=emulated" in done.stderr
