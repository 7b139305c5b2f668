"""Events that containerd does not take: how many are kept, and for how long."""

from __future__ import annotations

import os
from pathlib import Path

from inclavare.shim.log import ShimLog
from inclavare.shim.loop import Loop
from inclavare.shim.publisher import QUEUE_MAX, Publisher
from tests.containerd_kit.events import Events
from tests.unit.shim.conftest import run


def test_the_oldest_events_are_lost_when_there_are_too_many(loop: Loop, tmp_path: Path) -> None:
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    events = Events(str(tmp_path / "s"))
    events.down()
    publisher = Publisher(loop, f"unix://{tmp_path}/s", "kit", ShimLog(log))
    excess = 5
    for number in range(QUEUE_MAX + excess):
        publisher.publish("TaskStart", container_id="c", pid=number)
    events.up()
    run(loop, _empty(publisher), 20)
    pids = [event.body.pid for event in events.of("c")]
    assert pids == list(range(excess, QUEUE_MAX + excess))
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line for line in lines if "/tasks/start is lost" in line] == lines
    assert len(lines) == excess
    assert not events.faults
    events.down()
    os.close(log)


def test_without_an_address_there_is_nobody_to_tell(loop: Loop, tmp_path: Path) -> None:
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    publisher = Publisher(loop, "", "kit", ShimLog(log))
    publisher.publish("TaskStart", container_id="c", pid=1)
    assert publisher.empty.done
    os.close(log)


async def _empty(publisher: Publisher) -> None:
    await publisher.empty
