"""Stdio in every way that containerd has for it."""

from __future__ import annotations

import os
import select
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.containerd_kit.bundle import process
from tests.containerd_kit.containerd import Task, runc_options
from tests.shim.conftest import SLEEP, Engine, eventually, wait_until_gone
from tests.shim.test_life import UNKNOWN, refused

SIZE = 5 << 20
LOGGER = """#!/bin/sh
trap "" TERM
exec >"$1" 2>&1
env | grep CONTAINER_ | sort
echo "$# $*"
exec 5>&-
cat <&3 | sed s/^/out:/
cat <&4 | sed s/^/err:/
echo end
"""


def open_files(task: Task) -> list[str]:
    return sorted(os.readlink(fd) for fd in Path(f"/proc/{task.shim_pid}/fd").iterdir())


def test_output_and_errors_go_their_own_ways(engine: Engine) -> None:
    out, error = engine.output(), engine.output("error")
    task = engine.run(["sh", "-c", "echo out; echo error >&2"], stdout=out.path, stderr=error.path)
    task.wait()
    task.delete()
    assert (out.end(), error.end()) == (b"out\n", b"error\n")


def test_both_may_go_one_way(engine: Engine) -> None:
    out = engine.output()
    task = engine.run(["sh", "-c", "echo out; echo error >&2"], stdout=out.path, stderr=out.path)
    task.wait()
    task.delete()
    assert sorted(out.end().split()) == [b"error", b"out"]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_client_that_begins_to_read_late_gets_all(engine: Engine, *, terminal: bool) -> None:
    path = engine.directory / "late"
    os.mkfifo(path)
    task = engine.run()
    spec = process(["echo", "here"]) | {"terminal": terminal}
    task.add("e", [], spec, terminal=terminal, stdout=str(path), stderr="" if terminal else engine.output("error").path)

    def read() -> bytes:
        time.sleep(0.3)
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
            seen = b""
            eventually(lambda: select.select([reader], [], [], 0)[0])
            while data := os.read(reader.fileno(), 100):
                seen += data
                select.select([reader], [], [])
            return seen

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        task.start("e")
        task.wait("e")
        task.rpc.call("Delete", id=task.id, exec_id="e")
        assert reading.result(20).split() == [b"here"]


def test_nothing_is_lost_of_much(engine: Engine) -> None:
    out = engine.output()
    task = engine.run(["sh", "-c", f"head -c {SIZE} /dev/zero"], **engine.both(out))
    assert task.wait() == 0
    task.delete()
    assert out.end() == bytes(SIZE)


def test_without_any_the_process_has_null(engine: Engine) -> None:
    places = " ".join(f"/proc/$$/fd/{number}" for number in range(3))
    task = engine.run(["sh", "-c", f'test "$(echo $(stat -L -c %t:%T {places}))" = "1:3 1:3 1:3"'])
    assert task.wait() == 0
    task = engine.run(["sh", "-c", "cat; echo x; echo y >&2"])
    assert task.wait() == 0


def test_input_reaches_the_process_and_ends_with_closeio(engine: Engine) -> None:
    stdin, out = engine.input(), engine.output()
    task = engine.run(["sh", "-c", "cat; echo end"], stdin=stdin.path, **engine.both(out))
    stdin.write(b"typed\n")
    out.wait_for(b"typed\n")
    stdin.close()
    time.sleep(0.05)
    assert b"end" not in out.seen  # clients come and go; only CloseIO is the end
    task.rpc.call("CloseIO", id=task.id, stdin=True)
    assert task.wait() == 0
    task.delete()
    assert out.end() == b"typed\nend\n"


def test_much_input_is_read_to_its_end(engine: Engine) -> None:
    stdin, out = engine.input(), engine.output()
    task = engine.run(["wc", "-c"], stdin=stdin.path, **engine.both(out))
    stdin.write(bytes(SIZE))
    stdin.close()
    task.rpc.call("CloseIO", id=task.id, stdin=True)
    assert task.wait() == 0
    assert out.end() == f"{SIZE}\n".encode()


def test_input_that_was_closed_before_the_start_is_read_all_the_same(rune_engine: Engine) -> None:
    # containerd's shim opens the client's FIFO at Create, and mostly loses what was closed before (shim.md 1.4).
    stdin, out = rune_engine.input(), rune_engine.output()
    stdin.write(b"early\n")
    task = rune_engine.create(["sh", "-c", "cat; echo end"], stdin=stdin.path, stdout=out.path)
    task.rpc.call("CloseIO", id=task.id, stdin=True)
    task.start()
    stdin.close()
    assert task.wait() == 0
    assert out.end() == b"early\nend\n"


def test_closeio_of_an_exec_is_its_own(engine: Engine) -> None:
    stdin, out = engine.input(), engine.output()
    task = engine.run()
    task.add("e", ["wc", "-c"], None, stdin=stdin.path, **engine.both(out))
    task.start("e")
    stdin.write(b"12345")
    stdin.close()
    task.rpc.call("CloseIO", id=task.id, stdin=True)  # the first process has no input: that is nothing
    task.rpc.call("CloseIO", id=task.id, exec_id="e", stdin=True)
    assert task.wait("e") == 0
    assert out.end() == b"5\n"


def test_a_process_that_reads_no_input_ends(engine: Engine) -> None:
    stdin = engine.input()
    task = engine.run(["sh", "-c", "sleep 0.1; exit 3"], stdin=stdin.path, **engine.both(engine.output()))
    stdin.write(bytes(60_000))
    assert task.wait() == 3
    task.delete()


def test_a_reader_that_goes_away_and_comes_back_does_not_end_the_process(engine: Engine) -> None:
    out = engine.output()
    task = engine.run(["sh", "-c", "while :; do echo tick; sleep 0.02; done"], **engine.both(out))
    out.wait_for(b"tick")
    out.close()
    time.sleep(0.1)
    assert task.status() == "running"
    fd = os.open(out.path, os.O_RDONLY)
    assert os.read(fd, 4) == b"tick"
    os.close(fd)
    engine.fifos.remove(out)
    assert task.status() == "running"


def test_a_file_gets_both_at_its_end(engine: Engine) -> None:
    path = engine.directory / "logs/of/it.log"
    path.parent.mkdir(parents=True)
    path.write_text("before\n")
    uri = f"file://{path}"
    task = engine.run(["sh", "-c", "echo out; echo error >&2; sleep 0.1"], stdout=uri, stderr=uri)
    eventually(lambda: path.read_text().count("\n") == 3)  # the other shim copies, and forgets the end of it
    assert task.wait() == 0
    task.delete()
    first, *others = path.read_text().splitlines()
    assert (first, sorted(others)) == ("before", ["error", "out"])


def test_the_directories_of_a_file_are_made(engine: Engine) -> None:
    uri = f"file://{engine.directory}/new/directories/it.log"
    task = engine.run(["echo", "out"], stdout=uri, stderr=uri)
    assert task.wait() == 0
    task.delete()
    eventually(lambda: (engine.directory / "new/directories/it.log").read_text() == "out\n")


@pytest.fixture
def logger(engine: Engine) -> Path:
    path = engine.directory / "logger"
    path.write_text(LOGGER)
    path.chmod(0o755)
    return path


def test_a_logging_program_reads_both(engine: Engine, logger: Path) -> None:
    log = engine.directory / "logged"
    uri = f"binary://{logger}?{log}=value"
    task = engine.run(["sh", "-c", "echo out; echo error >&2"], stdout=uri, stderr=uri)
    assert task.wait() == 0
    task.delete()
    eventually(lambda: log.read_text().endswith("end\n"))
    assert log.read_text().splitlines() == [
        f"CONTAINER_ID={task.id}",
        "CONTAINER_NAMESPACE=kit",
        f"2 {log} value",
        "out:out",
        "err:error",
        "end",
    ]


def test_a_logging_program_has_nothing_else_of_the_shim(engine: Engine) -> None:
    path, log = engine.directory / "logger", engine.directory / "logged"
    path.write_text('#!/bin/sh\nls -l /proc/self/fd >"$1"; env >>"$1"; exec 5>&-; cat <&3 >/dev/null\n')
    path.chmod(0o755)
    uri = f"binary://{path}?{log}"
    task = engine.run(["true"], stdout=uri, stderr=uri)
    task.wait()
    task.delete()
    listed = log.read_text()
    assert "socket:" not in listed
    assert "TTRPC" not in listed
    assert "GOMAXPROCS" not in listed


def test_a_logging_program_of_version_2_says_that_it_is_ready(rune_engine: Engine) -> None:
    # binary-v2:// is of containerd 2.3.
    path, log = rune_engine.directory / "logger", rune_engine.directory / "logged"
    path.write_text('#!/bin/sh\nprintf . >&5\ncat <&3 >"$1"\n')
    path.chmod(0o755)
    uri = f"binary-v2://{path}?{log}"
    task = rune_engine.run(["echo", "out"], stdout=uri, stderr=uri)
    assert task.wait() == 0
    task.delete()
    eventually(lambda: log.read_text() == "out\n")


def test_a_logging_program_that_is_not_there_is_named(engine: Engine) -> None:
    task = engine.task(["true"])
    task.begin()
    uri = "binary:///no/such/logger"
    with refused(UNKNOWN, "/no/such/logger"):
        task.create(stdout=uri, stderr=uri)


def test_a_logging_program_that_ends_before_it_is_ready_fails_the_creation(rune_engine: Engine) -> None:
    # containerd's shim takes the end of the pipe for readiness.
    task = rune_engine.task(["true"])
    task.begin()
    with refused(UNKNOWN, "the logging program ended with status 1 before it was ready"):
        task.create(stdout="binary:///bin/false", stderr="binary:///bin/false")


def test_a_logging_program_that_does_not_end_is_made_to(rune_engine: Engine) -> None:
    path, log = rune_engine.directory / "logger", rune_engine.directory / "logged"
    path.write_text('#!/bin/sh\ntrap "echo asked >$1; exit" TERM\nexec 5>&-\nwhile :; do sleep 0.05; done\n')
    path.chmod(0o755)
    uri = f"binary://{path}?{log}"
    task = rune_engine.run(["true"], stdout=uri, stderr=uri)
    task.wait()
    task.delete()
    wait_until_gone(task.shim_pid)  # not before
    assert log.read_text() == "asked\n"


def test_pipes_belong_to_whom_the_options_say(engine: Engine) -> None:
    out, stdin = engine.output(), engine.input()
    engine.options = runc_options(
        binary_name="" if engine.is_rune else "runc", root=str(engine.state), io_uid=1000, io_gid=1001
    )
    task = engine.run(
        ["sh", "-c", "stat -L -c '%u %g' /proc/self/fd/0 /dev/fd/1"], stdin=stdin.path, **engine.both(out)
    )
    assert task.wait() == 0
    # runc then gives them to the user of the process, who is root here.
    assert out.end() == (b"1000 1001\n" if engine.is_rune else b"0 1001\n") * 2


# --- terminals -------------------------------------------------------------------------------------------------------


def terminal(engine: Engine, script: str) -> Task:
    bundle = engine.bundle(["sh", "-c", script])
    bundle.config["process"]["terminal"] = True
    return engine.task(bundle)


def test_a_terminal_is_one_and_its_output_is_passed_on(engine: Engine) -> None:
    out = engine.output()
    task = terminal(engine, "test -t 0 && test -t 1 && test -t 2 && tty && echo error >&2")
    task.begin()
    task.create(terminal=True, stdout=out.path)
    assert task.state().terminal
    task.start()
    assert task.wait() == 0
    task.delete()
    assert out.end() == b"/dev/pts/0\r\nerror\r\n"


def test_what_is_typed_reaches_a_terminal(engine: Engine) -> None:
    stdin, out = engine.input(), engine.output()
    task = terminal(engine, "stty -echo; echo ready; read line; echo got $line; cat")
    task.begin()
    task.create(terminal=True, stdin=stdin.path, stdout=out.path)
    task.start()
    out.wait_for(b"ready")
    stdin.write(b"words\n")
    out.wait_for(b"got words")
    stdin.write(b"\x04")  # the end of input, as a terminal says it
    assert task.wait() == 0


def test_a_terminal_has_the_size_that_it_was_given(engine: Engine) -> None:
    stdin, out = engine.input(), engine.output()
    task = terminal(engine, "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done")
    task.begin()
    task.create(terminal=True, stdin=stdin.path, stdout=out.path)
    task.rpc.call("ResizePty", id=task.id, width=80, height=25)
    task.start()
    out.wait_for(b"ready")
    task.rpc.call("ResizePty", id=task.id, width=132, height=43)
    out.wait_for(b"43 132")
    assert b"25 80" not in out.seen


def test_an_exec_may_have_a_terminal_though_its_spec_says_no(engine: Engine) -> None:
    out = engine.output()
    task = engine.run()
    task.add("e", ["sh", "-c", "test -t 1 && sleep 0.3 && stty size"], None, terminal=True, stdout=out.path)
    task.start("e")
    task.rpc.call("ResizePty", id=task.id, exec_id="e", width=99, height=11)
    assert task.wait("e") == 0
    task.rpc.call("Delete", id=task.id, exec_id="e")
    assert out.end() == b"11 99\r\n"


def test_a_size_for_what_has_no_terminal_is_nothing(engine: Engine) -> None:
    task = engine.run()
    task.rpc.call("ResizePty", id=task.id, width=80, height=25)


def test_much_output_of_a_terminal_is_all_there_before_the_deletion_is_answered(engine: Engine) -> None:
    out = engine.output()
    task = terminal(engine, "for n in $(seq 20000); do echo $n; done")
    task.begin()
    task.create(terminal=True, stdout=out.path)
    task.start()
    assert task.wait() == 0
    task.delete()
    assert out.end().split() == [str(number).encode() for number in range(1, 20001)]


def test_the_output_of_a_terminal_may_be_a_file(rune_engine: Engine) -> None:
    # That of containerd 1.6 knows no files here; those after it do.
    path = rune_engine.directory / "it.log"
    task = terminal(rune_engine, "echo out; echo error >&2")
    task.begin()
    task.create(terminal=True, stdout=f"file://{path}")
    task.start()
    assert task.wait() == 0
    task.delete()
    eventually(lambda: path.read_bytes() == b"out\r\nerror\r\n")


def test_the_output_of_a_terminal_may_be_a_logging_program(engine: Engine, logger: Path) -> None:
    log = engine.directory / "logged"
    task = terminal(engine, "echo out; echo error >&2")
    task.begin()
    task.create(terminal=True, stdout=f"binary://{logger}?{log}=value")
    task.start()
    assert task.wait() == 0
    task.delete()
    eventually(lambda: log.read_bytes().endswith(b"end\n"))
    assert log.read_bytes().splitlines()[3:] == [b"out:out", b"out:error", b"end"]


def test_a_terminal_outlives_its_logging_program(rune_engine: Engine) -> None:
    # The other shim copies no more then, and the process waits for ever when it writes.
    path = rune_engine.directory / "logger"
    path.write_text("#!/bin/sh\nexec 5>&-\nhead -n 1 <&3 >/dev/null\n")
    path.chmod(0o755)
    task = terminal(rune_engine, "for n in $(seq 20000); do echo $n; done; exit 4")
    task.begin()
    task.create(terminal=True, stdout=f"binary://{path}")
    task.start()
    assert task.wait() == 4
    task.delete()


def test_a_terminal_whose_output_is_not_there_leaves_nothing(rune_engine: Engine) -> None:
    # The other shim makes the container first, and then forgets it.
    task = terminal(rune_engine, "true")
    task.begin()
    with refused(UNKNOWN, "cannot open the terminal's output /no/such/fifo: No such file or directory"):
        task.create(terminal=True, stdout="/no/such/fifo")
    assert not rune_engine.cgroup(task, "memory").exists()
    task.create(terminal=True)
    task.add("e", ["true"], None, terminal=True, stdout="/no/such/fifo")
    with refused(UNKNOWN, "/no/such/fifo"):
        task.start("e")
    assert len(task.rpc.call("Pids", id=task.id).processes) == 1


def test_a_terminal_that_nobody_reads_does_not_stop_the_others(rune_engine: Engine) -> None:
    path = rune_engine.directory / "unread"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    task = terminal(rune_engine, "while :; do echo much; done")
    task.begin()
    task.create(terminal=True, stdout=str(path))
    task.start()
    time.sleep(0.2)
    begin = time.monotonic()
    assert task.status() == "running"
    assert task.execute("e", ["true"]) == 0
    assert time.monotonic() - begin < 2
    task.kill()
    assert task.wait() == 137
    os.close(reader)


def test_a_deletion_waits_for_what_is_not_passed_on_yet_but_not_for_ever(rune_engine: Engine) -> None:
    path = rune_engine.directory / "unread"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    task = terminal(rune_engine, "while :; do echo much; done")
    task.begin()
    task.create(terminal=True, stdout=str(path))
    task.start()
    time.sleep(0.1)
    task.kill()
    task.wait()
    deletion = task.rpc.begin("Delete", id=task.id)
    assert not task.rpc.is_answered(deletion, 0.5)
    assert task.rpc.is_answered(deletion, 12)
    os.close(reader)


def test_an_exec_whose_output_nobody_reads_keeps_its_container_waiting_for_nothing(rune_engine: Engine) -> None:
    # The other shim, too, waits for it in the deletion of that exec alone.
    path = rune_engine.directory / "unread"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    task = rune_engine.run()
    task.add("e", ["sh", "-c", "while :; do echo much; done"], None, terminal=True, stdout=str(path))
    task.start("e")
    time.sleep(0.1)
    task.kill(exec_id="e")
    task.wait("e")
    deletion = task.rpc.begin("Delete", id=task.id, exec_id="e")
    task.rpc.call("Pause", id=task.id)
    task.rpc.call("Resume", id=task.id)
    assert not task.rpc.is_answered(deletion)
    os.read(reader, 1 << 20)
    os.close(reader)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    while not task.rpc.is_answered(deletion, 0.01):
        os.read(reader, 1 << 20)
    os.close(reader)


def test_nothing_stays_open_of_a_deleted_task(rune_engine: Engine) -> None:
    pod = rune_engine.run(rune_engine.bundle(SLEEP, "pod"))
    before = open_files(pod)
    for number in range(3):
        stdin, out = rune_engine.input(), rune_engine.output()
        bundle = rune_engine.bundle(["cat"], "pod")
        bundle.config["process"]["terminal"] = number == 1
        task = rune_engine.run(bundle, terminal=number == 1, stdin=stdin.path, stdout=out.path)
        task.add("e", ["true"], None, stdin=rune_engine.input().path, stdout=rune_engine.output().path)
        task.start("e")
        task.wait("e")
        task.kill()
        task.wait()
        task.delete()
    eventually(lambda: open_files(pod) == before)


def test_a_fifo_stays_one(engine: Engine) -> None:
    out = engine.output()
    task = engine.run(["true"], **engine.both(out))
    task.wait()
    task.delete()
    wait_until_gone(task.shim_pid)
    assert stat.S_ISFIFO(os.stat(out.path).st_mode)
