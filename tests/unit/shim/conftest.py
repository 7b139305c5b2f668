"""A loop of this process, which takes the signals of its children as long as a test lasts."""

from __future__ import annotations

import os
import signal
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from inclavare.log import Log
from inclavare.shim.loop import Future, Loop


@pytest.fixture
def log() -> Iterator[tuple[Log, int]]:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    yield Log(writer), reader
    os.close(reader)
    os.close(writer)


@pytest.fixture
def loop(log: tuple[Log, int]) -> Iterator[Loop]:
    before = signal.getsignal(signal.SIGCHLD), signal.getsignal(signal.SIGPIPE)
    yield Loop(log[0])
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, before[0])
    signal.signal(signal.SIGPIPE, before[1])


def run(loop: Loop, coroutine: Coroutine[Future, None, Any], timeout_s: float = 5) -> Any:
    """Run a coroutine to its end; give its result."""
    loop._stopped = False
    task = loop.task(coroutine)
    task.then(loop.stop)
    timer = loop.later(timeout_s, loop.stop)
    loop.run()
    timer.cancel()
    assert task.done, "it took too long"
    if task.error is not None:
        raise task.error
    return task.value
