"""The container's program: what the runtime is told, how the runelet ends, and which signals arrive."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from inclavare.container.plan import PAL_WAIT_STATUS
from inclavare.enclave.implicit import FORWARDED_SIGNALS
from tests.native.pal.runelet import Start, text, texts

Recorder = Callable[..., Path]
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGALRM]


def test_version_1_runs_a_program_in_one_call(start: Start, pal_v1: Path) -> None:
    runelet = start(pal_v1)
    assert runelet.run() == 0
    assert runelet.calls() == ["load", "get_version", "init", "exec", "destroy"]


@pytest.mark.parametrize("version", [2, 3])
def test_later_versions_create_it_and_then_wait_for_it(start: Start, recorder: Recorder, version: int) -> None:
    runelet = start(recorder(version))
    assert runelet.run() == 0
    assert runelet.calls() == ["load", "get_version", "init", "create_process", "exec", "destroy"]
    assert runelet.events("exec")[0]["of"] == 1000


def test_nothing_is_run_before_start(start: Start, pal: Path) -> None:
    runelet = start(pal)
    runelet.created()
    assert runelet.calls() == ["load", "get_version", "init"]


def test_path_arguments_and_stdio_arrive_as_they_are(start: Start, pal: Path) -> None:
    argv = ["program", "", "a b", "\udcff\udcfe", "é", "-x=1"]
    runelet = start(pal, path="/bin/program", argv=argv)
    assert runelet.run() == 0
    event = runelet.events("create_process" if runelet.events("create_process") else "exec")[0]
    assert text(event["path"]) == "/bin/program"
    assert texts(event["argv"]) == argv
    assert event["stdio"] == [0, 1, 2]


def test_the_environment_arrives_as_it_is(start: Start, pal_v2: Path) -> None:
    env = ["A=b c", "EMPTY=", "RAW=\udcff", "A=twice"]
    runelet = start(pal_v2, env=env)
    assert runelet.run() == 0
    assert texts(runelet.events("create_process")[0]["env"])[1:] == env


@pytest.mark.parametrize(
    ("value", "code"), [("0", 0), ("3", 3), ("255", 255), ("256", 0), ("-1", 255), ("0x0300", 0), ("9", 9)]
)
def test_the_exit_code_is_the_low_byte_of_the_value(start: Start, pal: Path, value: str, code: int) -> None:
    assert start(pal, argv=["program", "exit", value]).run() == code


@pytest.mark.parametrize(
    ("value", "code"), [("0", 0), ("0x0300", 3), ("0xff00", 255), ("9", 137), ("0x0086", 134), ("15", 143)]
)
def test_a_wait_status_is_decoded_where_the_runtime_returns_one(start: Start, pal: Path, value: str, code: int) -> None:
    assert start(pal, argv=["program", "exit", value], flags=PAL_WAIT_STATUS).run() == code


def test_a_program_that_cannot_be_created_ends_the_container_with_1_and_a_sentence(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2, argv=["program", "create=-2"])
    assert runelet.run() == 1
    assert runelet.output.read_text() == "rune: pal_create_process returned -2 (ENOENT: No such file or directory)\n"
    assert runelet.calls()[-2:] == ["create_process", "destroy"]


def test_a_program_that_cannot_be_run_ends_the_container_with_1_and_a_sentence(start: Start, pal: Path) -> None:
    runelet = start(pal, argv=["program", "exec=-8"])
    assert runelet.run() == 1
    assert runelet.output.read_text() == "rune: pal_exec returned -8 (ENOEXEC: Exec format error)\n"
    assert runelet.calls()[-1] == "destroy"


def test_minus_one_is_explained_by_errno(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2, argv=["program", "exec=-1", "2"])
    assert runelet.run() == 1
    assert runelet.output.read_text() == "rune: pal_exec returned -1 (errno is ENOENT: No such file or directory)\n"


def test_a_failing_destroy_is_told_and_keeps_the_exit_code(start: Start, pal: Path) -> None:
    runelet = start(pal, args="destroy=-38", argv=["program", "exit", "5"])
    assert runelet.run() == 5
    assert runelet.output.read_text() == "rune: pal_destroy returned -38 (ENOSYS: Function not implemented)\n"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_reaches_the_runtime_with_pid_minus_one(start: Start, pal_v2: Path, number: signal.Signals) -> None:
    runelet = start(pal_v2, argv=["program", "wait"])
    runelet.start()
    runelet.await_output("waiting")
    runelet.kill(number)
    assert runelet.wait() == 128 + number
    (event,) = runelet.events("kill")
    assert (event["of"], event["sig"]) == (-1, number)


def test_signals_before_start_reach_the_runtime_at_once(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2)
    runelet.created()
    runelet.kill(signal.SIGTERM)
    assert runelet.await_event("kill")["sig"] == signal.SIGTERM
    assert runelet.process.poll() is None


def test_sigkill_ends_the_runelet_and_the_runtime_hears_nothing(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2, argv=["program", "wait"])
    runelet.start()
    runelet.await_output("waiting")
    runelet.kill(signal.SIGKILL)
    assert runelet.wait() == -signal.SIGKILL
    assert runelet.calls()[-1] == "exec"


@pytest.mark.parametrize("number", SIGNALS)
def test_without_pal_kill_a_signal_ends_the_container_as_it_ends_a_program(
    start: Start, recorder: Recorder, number: signal.Signals
) -> None:
    for library in (recorder(1), recorder(2, "WITHOUT_KILL")):
        runelet = start(library, argv=["program", "wait"])
        runelet.start()
        runelet.await_output("waiting")
        runelet.kill(number)
        assert runelet.wait() == 128 + number
        assert "destroy" not in runelet.calls()


def test_a_runtime_whose_pal_kill_says_enosys_counts_as_one_without(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2, args=f"kill={-38}", argv=["program", "wait"])
    runelet.start()
    runelet.await_output("waiting")
    runelet.kill(signal.SIGTERM)
    assert runelet.wait() == 128 + signal.SIGTERM


def test_a_failing_pal_kill_harms_nobody(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2, args="kill=-22", argv=["program", "wait"])
    runelet.start()
    runelet.await_output("waiting")
    runelet.kill(signal.SIGTERM)
    runelet.await_event("kill")
    runelet.kill(signal.SIGTERM)
    runelet.await_event("kill", 2)
    assert runelet.process.poll() is None


def test_sigcont_ends_nothing(start: Start, pal_v1: Path) -> None:
    runelet = start(pal_v1, argv=["program", "wait"])
    runelet.start()
    runelet.await_output("waiting")
    runelet.kill(signal.SIGCONT)
    runelet.kill(signal.SIGTERM)
    assert runelet.wait() == 128 + signal.SIGTERM


def test_the_child_of_a_runtime_has_no_blocked_signals(start: Start, pal: Path) -> None:
    runelet = start(pal, argv=["program", "mask"])
    assert runelet.run() == 0
    assert runelet.output.read_text() == ""


def test_the_runelet_blocks_what_it_forwards_and_no_fault(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2)
    runelet.created()
    status = Path(f"/proc/{runelet.process.pid}/status").read_text()
    mask = int(status.split("SigBlk:\t")[1].split()[0], 16)
    blocked = {number for number in range(1, 65) if mask >> (number - 1) & 1}
    assert blocked == {*FORWARDED_SIGNALS, signal.SIGPIPE}
