"""The agent, spoken to by a raw client: programs, their stdio and signals, reports, and every kind of nonsense."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inclavare.enclave.agent import (
    ATTEST_RESPONSE,
    EXEC_RESPONSE,
    FRAME_MAX,
    attest_request,
    execute_request,
    frame,
    kill_request,
)
from tests.native.pal.runelet import NATIVE, SANITIZED, Client, Event, Program, Runelet, Start, text, texts

Recorder = Callable[..., Path]
TARGET = bytes(range(256)) * 2
THREADS = 3  # the program's, the forwarder's and the agent's


@pytest.fixture(params=[NATIVE / "runelet", SANITIZED], ids=["shipped", "sanitized"])
def runelet(request: pytest.FixtureRequest, start: Start, pal_v3: Path) -> Runelet:
    """Return a runelet whose program waits to be killed."""
    runelet = start(pal_v3, argv=["program", "wait"], program=request.param)
    runelet.start()
    runelet.await_output("waiting")
    return runelet


@pytest.fixture
def client(runelet: Runelet) -> Iterator[Client]:
    client = runelet.connect()
    yield client
    client.close()


def last(runelet: Runelet, call: str) -> Event:
    return runelet.events(call)[-1]


def still_works(runelet: Runelet) -> bool:
    return runelet.execute("x", "exit", "7").wait().response.exit_code == 7


@pytest.mark.parametrize("value", [0, 1, 3, 255])
def test_a_program_has_its_own_exit_code(runelet: Runelet, value: int) -> None:
    response = runelet.execute("program", "exit", str(value)).wait().response
    assert (response.kind, response.exit_code, response.error) == (EXEC_RESPONSE, value, "")


def test_a_program_has_its_own_stdio(runelet: Runelet) -> None:
    reply = runelet.execute("program", "say", "words").wait()
    assert (reply.stdout, reply.stderr) == (b"out words", b"err words")
    assert "words" not in runelet.output.read_text()


def test_input_goes_to_the_program_and_back(runelet: Runelet) -> None:
    assert runelet.execute("program", "cat", stdin=b"\0\xff" * 1000).wait().stdout == b"\0\xff" * 1000


def test_arguments_and_environment_arrive_as_they_are(runelet: Runelet) -> None:
    argv = ["program", "", "a b", "\udcff", "é", "x=1"]
    env = ["A=b c", "EMPTY=", "RAW=\udcff"]
    runelet.execute(*argv, env=env).wait()
    event = last(runelet, "create_process")
    assert text(event["path"]) == "program"
    assert texts(event["argv"]) == argv
    assert texts(event["env"]) == env


def test_the_original_form_of_a_request_is_split_at_blanks(runelet: Runelet, client: Client) -> None:
    client.send(bytes.fromhex("0c0000000a0a0a03612062") + bytes.fromhex("1203583d31"))
    Program(client).wait()
    event = last(runelet, "create_process")
    assert (texts(event["argv"]), texts(event["env"])) == (["a", "b"], ["X=1"])


def test_an_environment_may_be_empty(runelet: Runelet) -> None:
    runelet.execute("program").wait()
    assert last(runelet, "create_process")["env"] == []


def test_a_frame_in_single_bytes_is_one_frame(client: Client) -> None:
    client.send(execute_request(["program", "exit", "9"], ["A=b"]), one_by_one=True)
    assert Program(client).wait().response.exit_code == 9


def test_two_programs_run_at_once_and_end_in_any_order(runelet: Runelet) -> None:
    first = runelet.execute("first", "wait")
    runelet.await_event("exec", 2)
    second = runelet.execute("second", "wait")
    runelet.await_event("exec", 3)
    os.write(second.client.signals, kill_request(10))
    assert second.wait().response.exit_code == 138
    os.write(first.client.signals, kill_request(12))
    assert first.wait().response.exit_code == 140


def test_a_signal_goes_to_the_program_of_its_connection(runelet: Runelet) -> None:
    program = runelet.execute("program", "wait")
    runelet.await_event("exec", 2)
    os.write(program.client.signals, kill_request(15))
    assert program.wait().response.exit_code == 143
    event = last(runelet, "kill")
    assert (event["of"], event["sig"]) == (last(runelet, "exec")["of"], 15)
    assert runelet.process.poll() is None


def test_signals_in_single_bytes_and_in_one_write_arrive(runelet: Runelet) -> None:
    program = runelet.execute("program", "wait")
    runelet.await_event("exec", 2)
    for byte in kill_request(64):
        os.write(program.client.signals, bytes([byte]))
    assert program.wait().response.exit_code == 192
    program = runelet.execute("program", "wait")
    runelet.await_event("exec", 3)
    os.write(program.client.signals, kill_request(1) + kill_request(2))
    program.wait()
    assert [event["sig"] for event in runelet.events("kill")][:2] == [64, 1]


@pytest.mark.parametrize("nonsense", [frame(b"\x12\x02\x08\x41"), frame(b"\x12\0"), frame(b"?"), frame(b"\x1a\0")])
def test_nonsense_in_the_signal_pipe_is_skipped(runelet: Runelet, nonsense: bytes) -> None:
    program = runelet.execute("program", "wait")
    runelet.await_event("exec", 2)
    os.write(program.client.signals, nonsense + kill_request(15))
    assert program.wait().response.exit_code == 143
    assert len(runelet.events("kill")) == 1


def test_a_length_without_sense_in_the_signal_pipe_ends_the_signals_only(runelet: Runelet, client: Client) -> None:
    input_, ours = os.pipe()
    client.send(execute_request(["program", "cat"], []))
    client.send_stdio(input_, 1, 2)
    os.close(input_)
    runelet.await_event("exec", 2)
    os.write(client.signals, b"\xff\xff\xff\xff" + kill_request(15))
    assert still_works(runelet)
    os.close(ours)
    response = client.receive()
    assert response is not None
    assert response.exit_code == 0
    assert runelet.events("kill") == []


@pytest.mark.parametrize("how", ["pipe", "connection"])
def test_a_program_whose_peer_was_killed_is_killed(runelet: Runelet, how: str) -> None:
    program = runelet.execute("program", "wait")
    runelet.await_event("exec", 2)
    if how == "pipe":
        os.close(program.client.signals)
        program.client.signals = -1
    else:
        program.client.socket.close()
    event = runelet.await_event("kill")
    assert (event["of"], event["sig"]) == (last(runelet, "exec")["of"], signal.SIGKILL)


def test_a_peer_that_stalls_within_a_signal_does_not_delay_the_answer(runelet: Runelet) -> None:
    program = runelet.execute("program", "wait")
    runelet.await_event("exec", 2)
    os.write(program.client.signals, kill_request(15) + kill_request(9)[:5])
    assert program.wait().response.exit_code == 143


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["create=-2"], 1, "pal_create_process returned -2 (ENOENT: No such file or directory)"),
        (["exec=-22"], 1, "pal_exec returned -22 (EINVAL: Invalid argument)"),
    ],
)
def test_a_program_that_cannot_run_is_answered_with_a_sentence(
    runelet: Runelet, words: list[str], code: int, error: str
) -> None:
    response = runelet.execute("program", *words).wait().response
    assert (response.exit_code, response.error) == (code, error)
    assert still_works(runelet)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"\0\0\0\0", "the request's length is out of bounds (1 byte to 1 MiB)"),
        ((FRAME_MAX + 1).to_bytes(4, "little"), "the request's length is out of bounds (1 byte to 1 MiB)"),
        (b"\xff\xff\xff\xff", "the request's length is out of bounds (1 byte to 1 MiB)"),
        (frame(b"\xff"), "the request is malformed"),
        (frame(b"\x0a\x05abc"), "the request is malformed"),
        (frame(b"\x0a\x02\x1a\x05"), "the request is malformed"),
        (frame(b"\x0b"), "the request is malformed"),
        (frame(b"\x0a\x03\x1a\x01x\x0a\x03\x1a\x01y"), "the request is malformed"),
        (frame(b"\x22\0"), "the request is neither execute nor kill nor attest"),
        (frame(b"\x08\x01"), "the request is neither execute nor kill nor attest"),
        (frame(b"\x0a\0"), "the request names no program"),
        (frame(b"\x0a\x05\x0a\x03   "), "the request names no program"),
        (frame(b"\x0a\x03\x22\x01A"), "the request names no program"),
        (frame(b"\x0a\x04\x1a\x02a\0"), "an argument or variable in the request is not a string"),
        (frame(b"\x0a\x02\x18\x01"), "an argument or variable in the request is not a string"),
        (frame(b"\x12\0"), "the request names no signal"),
        (frame(b"\x12\x02\x08\x41"), "the request names no signal"),
        (frame(b"\x1a\0"), "the request has no target info of 512 bytes"),
        (frame(b"\x1a\x05\x2a\x03abc"), "the request has no target info of 512 bytes"),
        (
            frame(b"\x1a\x88\x04\x2a\x80\x04" + bytes(512) + b"\x32\x03abc"),
            "the request has report data of another size than 64 bytes",
        ),
    ],
)
def test_nonsense_is_answered_with_a_sentence(runelet: Runelet, client: Client, message: bytes, error: str) -> None:
    client.send(message)
    response = client.receive()
    assert response is not None
    assert (response.exit_code, response.error) == (1, error)
    assert client.receive() is None
    assert len(runelet.events("create_process")) == 1
    assert still_works(runelet)


def test_fields_of_later_versions_are_skipped(client: Client) -> None:
    later = b"\x98\x06\x07\x9a\x06\x01x\x9d\x06abcd\x99\x06abcdefgh"  # numbers 99, of four wire types
    program = later + b"\x1a\x01p\x1a\x04exit\x1a\x016"
    client.send(frame(later + b"\x0a" + bytes([len(program)]) + program))
    assert Program(client).wait().response.exit_code == 6


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_request_without_all_its_descriptors_is_refused(runelet: Runelet, client: Client, count: int) -> None:
    client.send(execute_request(["program"], []))
    with open(os.devnull, "rb") as null:
        for name in ("signal", "stdin", "stdout")[:count]:
            client.send_fd(name, null.fileno())
    client.socket.shutdown(socket.SHUT_WR)
    response = client.receive()
    assert response is not None
    missing = ("signal", "stdin", "stdout", "stderr")[count]
    assert response.error == f"the request came without its file descriptor {missing}"
    assert len(runelet.events("create_process")) == 1


@pytest.mark.parametrize("count", [2, 8, 20])
def test_more_descriptors_than_one_are_nonsense_and_are_closed(runelet: Runelet, count: int) -> None:
    before = descriptors(runelet)
    with contextlib.closing(runelet.connect()) as client, open(os.devnull, "rb") as null:
        client.send(execute_request(["program"], []))
        client.send_fd("signal", *[null.fileno()] * count)
        response = client.receive()
    assert response is not None
    assert response.error == "the request came without its file descriptor signal"
    assert_closed(runelet, before)


def test_a_connection_that_is_over_leaves_no_descriptor_and_no_thread(runelet: Runelet) -> None:
    before = descriptors(runelet)
    for _ in range(20):
        assert still_works(runelet)
    assert_closed(runelet, before)


def descriptors(runelet: Runelet) -> int:
    return len(os.listdir(f"/proc/{runelet.process.pid}/fd"))


def assert_closed(runelet: Runelet, before: int) -> None:
    """The agent closes after its answer, so it may take a moment."""
    deadline = time.monotonic() + 5
    while (now := (descriptors(runelet), len(os.listdir(f"/proc/{runelet.process.pid}/task")))) != (before, THREADS):
        assert time.monotonic() < deadline, f"{now} descriptors and threads, {(before, THREADS)} before"
        time.sleep(0.01)


def test_a_peer_that_hangs_up_within_a_request_is_forgotten(runelet: Runelet, client: Client) -> None:
    client.send(execute_request(["program"], [])[:-1])
    client.close()
    assert still_works(runelet)
    assert len(runelet.events("create_process")) == 2


def test_hundred_thousands_of_empty_arguments_are_no_burden(runelet: Runelet) -> None:
    words = ["program", "exit", "3", *[""] * 500_000]
    assert runelet.execute(*words).wait().response.exit_code == 3


def test_a_request_to_kill_goes_to_the_whole_enclave(runelet: Runelet, client: Client) -> None:
    client.send(kill_request(15))
    assert client.receive() is None
    assert runelet.wait() == 143
    assert (last(runelet, "kill")["of"], last(runelet, "kill")["sig"]) == (-1, 15)


def test_a_report_is_made_for_the_target(runelet: Runelet, client: Client) -> None:
    client.send(attest_request(TARGET))
    response = client.receive()
    assert response is not None
    assert (response.kind, response.exit_code, response.error) == (ATTEST_RESPONSE, 0, "")
    assert response.report == TARGET[:432]
    event = last(runelet, "get_local_report")
    assert (event["sizes"], event["aligned"]) == ([512, 432], 1)


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ("report=-22", "pal_get_local_report returned -22 (EINVAL: Invalid argument)"),
        ("report=1", "pal_get_local_report returned 1"),
        ("report_len=431", "pal_get_local_report gave a report of 431 bytes, not 432"),
    ],
)
def test_a_report_that_fails_is_answered_with_a_sentence(start: Start, pal_v3: Path, args: str, error: str) -> None:
    runelet = start(pal_v3, args=args, argv=["program", "wait"])
    runelet.start()
    with contextlib.closing(runelet.connect()) as client:
        client.send(attest_request(TARGET))
        response = client.receive()
    assert response is not None
    assert (response.kind, response.exit_code, response.error, response.report) == (ATTEST_RESPONSE, 1, error, b"")


@pytest.mark.parametrize(("version", "macros"), [(1, []), (2, []), (3, ["WITHOUT_GET_LOCAL_REPORT"])])
def test_a_runtime_without_reports_says_so(start: Start, recorder: Recorder, version: int, macros: list[str]) -> None:
    library = recorder(version, *macros)
    runelet = start(library, argv=["program", "wait"])
    runelet.start()
    with contextlib.closing(runelet.connect()) as client:
        client.send(attest_request(TARGET))
        response = client.receive()
    assert response is not None
    assert response.error == (f"{library} has pal api version {version} and no pal_get_local_report: it cannot attest")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_program_may_run_before_the_container_is_started(start: Start, recorder: Recorder, version: int) -> None:
    runelet = start(recorder(version))
    runelet.created()
    assert runelet.execute("early", "exit", "4").wait().response.exit_code == 4


def test_a_request_before_the_runtime_is_initialised_waits(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2, args="hang")
    runelet.await_event("init")
    program = runelet.execute("early")
    program.client.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        program.client.receive()
    assert runelet.calls()[-1] == "init"


def test_programs_end_with_the_container_and_are_answered_for(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2, argv=["program", "exit", "5"])
    runelet.created()
    programs = [runelet.execute("program", "wait") for _ in range(3)]
    runelet.await_event("exec", 3)
    runelet.start()
    assert [program.wait().response.exit_code for program in programs] == [137] * 3
    assert runelet.wait() == 5
    assert runelet.calls()[-2:] == ["kill", "destroy"]
    assert (last(runelet, "kill")["of"], last(runelet, "kill")["sig"]) == (-1, 9)


@pytest.mark.parametrize("verb", ["wait", "lock"])
@pytest.mark.parametrize("macros", [[], ["WITHOUT_KILL"]])
def test_programs_that_do_not_end_do_not_keep_the_container(
    start: Start, recorder: Recorder, macros: list[str], verb: str
) -> None:
    runelet = start(recorder(2, *macros), args="kill=0", argv=["program", "exit", "5"])
    runelet.created()
    program = runelet.execute("program", verb)
    assert os.read(program.stdout, 8) == b"waiting\n"
    runelet.start()
    assert runelet.wait() == 5
    assert runelet.calls()[-1] == "destroy"
    assert program.client.receive() is None


def test_a_program_whose_reader_went_away_gets_an_error_and_no_signal(runelet: Runelet, client: Client) -> None:
    (input_, ours), (reader, output) = os.pipe(), os.pipe()
    client.send(execute_request(["program", "cat"], []))
    client.send_stdio(input_, output, output)
    for fd in (input_, output, reader):
        os.close(fd)
    os.write(ours, b"words")
    response = client.receive()
    os.close(ours)
    assert response is not None
    assert response.exit_code == 1
    assert still_works(runelet)


def test_version_1_runs_programs_through_the_agent_too(start: Start, pal_v1: Path) -> None:
    runelet = start(pal_v1, argv=["program", "wait"])
    runelet.start()
    reply = runelet.execute("program", "say", "hi", env=["A=b"]).wait()
    assert (reply.stdout, reply.response.exit_code) == (b"out hi", 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200))
def test_random_messages_are_answered_or_run_and_harm_nothing(runelet: Runelet, message: bytes) -> None:
    with contextlib.closing(runelet.connect()) as client:
        client.send(frame(message))
        client.socket.shutdown(socket.SHUT_WR)
        client.receive()
    assert runelet.process.poll() is None
