"""Processes of this machine, told apart by their start time; and signals by their names."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.errors import UsageError
from inclavare.linux.process import is_same, send_signal, signal_number, start_time

NOBODY = 1 << 22  # the largest pid_max: never a pid


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def started(process: subprocess.Popen[bytes]) -> int:
    time_of_start = start_time(process.pid)
    assert time_of_start is not None
    return time_of_start


def test_a_process_is_the_one_that_started_then(sleeper: subprocess.Popen[bytes]) -> None:
    assert is_same(sleeper.pid, started(sleeper))
    assert not is_same(sleeper.pid, started(sleeper) + 1)


def test_start_times_count_from_boot(sleeper: subprocess.Popen[bytes]) -> None:
    seconds = started(sleeper) / os.sysconf("SC_CLK_TCK")
    assert abs(time.clock_gettime(time.CLOCK_BOOTTIME) - seconds) < 30


def test_a_zombie_is_nobody_although_its_pid_is_taken(sleeper: subprocess.Popen[bytes]) -> None:
    since = started(sleeper)
    pidfd = os.pidfd_open(sleeper.pid)
    sleeper.kill()
    select.select([pidfd], [], [], 10)
    os.close(pidfd)
    assert start_time(sleeper.pid) == since
    assert not is_same(sleeper.pid, since)


def test_there_is_no_start_time_of_nobody() -> None:
    assert start_time(NOBODY) is None
    assert not is_same(NOBODY, 0)


@pytest.mark.parametrize("name", ["a b", "a) R 1 (b", ") Z 0", "((", "\n"])
def test_any_name_of_a_program_is_skipped(name: str) -> None:
    program = f"import os; f = open('/proc/self/comm', 'w'); f.write({name!r}); f.close(); print(); input()"
    command = ["/usr/bin/python3", "-u", "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert is_same(process.pid, started(process))
        assert abs(started(process) - (start_time(os.getpid()) or 0)) < 10**9
        process.kill()


def test_a_signal_reaches_the_process_and_no_later_one(sleeper: subprocess.Popen[bytes]) -> None:
    assert not send_signal(sleeper.pid, started(sleeper) + 1, signal.SIGTERM)
    assert sleeper.poll() is None
    assert send_signal(sleeper.pid, started(sleeper), signal.SIGTERM)
    assert sleeper.wait(10) == -signal.SIGTERM
    assert not send_signal(NOBODY, 0, signal.SIGTERM)


def test_asking_leaves_no_descriptor_open(sleeper: subprocess.Popen[bytes]) -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        send_signal(sleeper.pid, started(sleeper), 0)
        send_signal(sleeper.pid, 0, 0)
        send_signal(NOBODY, 0, 0)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("15", 15),
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("KILL", 9),
        ("9", 9),
        ("0", 0),
        ("64", 64),
        ("HUP", 1),
        ("USR1", 10),
        ("WINCH", 28),
        ("RTMIN", 34),
        ("SIGRTMIN+1", 35),
        ("RTMIN+30", 64),
        ("RTMAX", 64),
        ("SIGRTMAX-30", 34),
    ],
)
def test_signals_have_names_and_numbers(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", [name for name in dir(signal) if name.startswith("SIG") and "_" not in name])
def test_every_signal_of_the_system_is_known(text: str) -> None:
    assert signal_number(text) == getattr(signal, text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "SIG", "FOO", "65", "-1", "1.0", "999999999999", "SIGSIGTERM", "SIG_DFL", "_DFL", "KILL ", "٣", "²"),
        *("RTMIN+31", "RTMAX-31", "RTMAX+1", "RTMIN-1", "RTMIN+", "RTMIN1"),
    ],
)
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="unknown signal"):
        signal_number(text)


def test_the_error_is_runcs() -> None:
    with pytest.raises(UsageError) as caught:
        signal_number("FOO")
    assert caught.value.message == 'unknown signal "FOO"'


@given(text=st.text())
def test_any_text_is_a_signal_or_an_error(text: str) -> None:
    try:
        assert 0 <= signal_number(text) <= 64
    except UsageError:
        return
