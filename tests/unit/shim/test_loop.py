"""The loop: what waits for what, in which order, and what cancelling does."""

from __future__ import annotations

import os
from typing import Any

import pytest

from inclavare.errors import HostError
from inclavare.log import Log
from inclavare.shim.loop import IN, CancelledError, Future, Lock, Loop, Task
from tests.unit.shim.conftest import run


def spawn(*words: str) -> int:
    return os.posix_spawnp(words[0], words, os.environ)


async def value_of(future: Future) -> Any:
    return await future


def test_a_task_is_its_result(loop: Loop) -> None:
    async def outer() -> int:
        await loop.sleep(0.001)
        return 7

    async def whole() -> int:
        task = loop.task(outer())
        return int(await task) + int(await task)

    assert run(loop, whole()) == 14


def test_an_error_is_raised_where_it_is_waited_for(loop: Loop) -> None:
    async def fails() -> None:
        await loop.sleep(0)
        raise HostError("broken")

    with pytest.raises(HostError, match="broken"):
        run(loop, value_of(loop.task(fails())))


def test_only_the_first_value_of_a_future_counts(loop: Loop) -> None:
    future = Future()
    future.set(1)
    future.set(2)
    future.fail(HostError("late"))
    assert run(loop, value_of(future)) == 1


def test_a_cancelled_task_may_clean_up_and_is_not_cancelled_twice(loop: Loop) -> None:
    steps = []

    async def works() -> None:
        try:
            await Future()
        except CancelledError:
            steps.append("told")
            await loop.sleep(0.02)
            steps.append("done")
            raise

    async def whole() -> None:
        task = loop.task(works())
        task.cancel()
        task.cancel()
        loop.later(0.005, task.cancel)
        with pytest.raises(CancelledError):
            await task
        task.cancel()  # it has ended: nothing

    run(loop, whole())
    assert steps == ["told", "done"]


def test_a_lock_is_passed_on_in_order_also_past_who_gave_up(loop: Loop) -> None:
    lock, order = Lock(), list[str]()

    async def enter(name: str) -> None:
        async with lock:
            order.append(name)
            await loop.sleep(0.005)

    async def whole() -> None:
        tasks: dict[str, Task] = {name: loop.task(enter(name)) for name in "abcd"}
        tasks["c"].cancel()
        for name in "abd":
            await tasks[name]
        await loop.task(enter("e"))

    run(loop, whole())
    assert order == ["a", "b", "d", "e"]


def test_who_gives_up_just_when_its_turn_comes_passes_it_on(loop: Loop) -> None:
    lock, order = Lock(), list[str]()

    async def enter(name: str) -> None:
        async with lock:
            order.append(name)
            await loop.sleep(0)

    async def whole() -> None:
        first, second, third = (loop.task(enter(name)) for name in "abc")
        second.cancel()  # it is thrown when `first` may have left already
        await first
        await third

    run(loop, whole())
    assert order[-1] == "c"


def test_times_come_in_order_and_not_when_they_were_cancelled(loop: Loop) -> None:
    seen = []
    for name, seconds in (("third", 0.03), ("first", 0.01), ("second", 0.02)):
        loop.later(seconds, lambda name=name: seen.append(name))  # type: ignore[misc]
    cancelled = loop.later(0.015, lambda: seen.append("never"))
    cancelled.cancel()
    cancelled.cancel()
    run(loop, loop.sleep(0.04))
    assert seen == ["first", "second", "third"]


def test_cancelled_times_are_not_kept(loop: Loop) -> None:
    for _ in range(10_000):
        loop.later(1000, loop.stop).cancel()
    assert len(loop._times) < 200


def test_the_end_of_a_child_is_told_with_its_code(loop: Loop) -> None:
    async def end_of(words: list[str]) -> int:
        pid = spawn(*words)
        ended = Future()
        loop.on_exit(pid, ended.set)
        return int(await ended)

    assert run(loop, end_of(["sh", "-c", "exit 5"])) == 5
    assert run(loop, end_of(["sh", "-c", "kill -TERM $$"])) == 128 + 15


def test_an_end_before_its_pid_was_known_is_kept_while_it_is_expected(loop: Loop) -> None:
    seen = list[int]()
    loop.expected += 1
    pid = spawn("true")
    run(loop, loop.sleep(0.1))
    loop.on_exit(pid, seen.append)
    loop.end_expectation()
    assert seen == [0]


def test_ends_of_strangers_are_not_kept(loop: Loop) -> None:
    spawn("true")
    run(loop, loop.sleep(0.1))
    loop.expected += 1
    other = spawn("true")
    run(loop, loop.sleep(0.1))
    assert set(loop._strangers) == {other}
    loop.end_expectation()
    assert not loop._strangers


def test_a_file_is_waited_for(loop: Loop) -> None:
    reader, writer = os.pipe()

    def write() -> None:
        os.write(writer, b"x")

    loop.later(0.01, write)
    run(loop, loop.until(reader, IN))
    assert os.read(reader, 1) == b"x"
    assert reader not in loop._files
    os.close(reader)
    os.close(writer)


def test_the_trouble_of_one_callback_is_logged_and_not_the_others(loop: Loop, log: tuple[Log, int]) -> None:
    def broken() -> None:
        raise HostError("one file's trouble")

    async def fails() -> None:
        await loop.sleep(0)
        raise ValueError("nobody waits for it")

    loop.soon(broken)
    loop.later(0, broken)
    loop.start(fails())
    run(loop, loop.sleep(0.02))
    written = os.read(log[1], 1 << 16).decode()
    assert written.count("one file's trouble") == 2
    assert "nobody waits for it" in written
