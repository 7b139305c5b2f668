"""`rune events`: statistics and the news of an end of memory."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import pytest

from tests.kernel.conftest import Bundle, Rune

MIB = 1 << 20
# All that runc prints, and where Docker and containerd read it.
MEMBERS = {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"}


@pytest.fixture
def running(rune: Rune, bundle: Bundle) -> Bundle:
    bundle.shell("while :; do i=$((i+1)); done")
    bundle.linux["resources"] = {"memory": {"limit": 64 * MIB}, "pids": {"limit": 20}}
    rune.create(bundle)
    assert rune("start", "c").status == 0
    return bundle


def stats(text: str) -> dict[str, Any]:
    event = json.loads(text)
    assert (event["type"], event["id"]) == ("stats", "c")
    data: dict[str, Any] = event["data"]
    return data


def test_statistics_tell_what_the_container_uses(rune: Rune, running: Bundle) -> None:
    del running
    before = stats(rune("events", "--stats", "c").out)
    time.sleep(0.1)
    after = stats(rune("events", "--stats", "c").out)
    assert set(after) == MEMBERS
    assert after["cpu"]["usage"]["total"] > before["cpu"]["usage"]["total"] > 0
    assert set(after["cpu"]["throttling"]) == {"periods", "throttledPeriods", "throttledTime"}
    assert after["memory"]["usage"]["limit"] == 64 * MIB
    assert 0 < after["memory"]["usage"]["usage"] <= after["memory"]["usage"]["limit"]
    assert after["memory"]["raw"]
    assert after["pids"] == {"current": 1, "limit": 20}


def test_statistics_come_at_intervals_until_the_container_ends(rune: Rune, running: Bundle) -> None:
    del running
    command = rune.command("events", "--interval", "20ms", "c")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as events:
        assert events.stdout is not None
        totals = [stats(events.stdout.readline())["cpu"]["usage"]["total"] for _ in range(3)]
        assert totals == sorted(totals)
        assert rune("kill", "c", "KILL").status == 0
        assert events.wait(10) == 0


def test_an_end_of_memory_is_told(rune: Rune, bundle: Bundle) -> None:
    bundle.shell("read go < /go; x=0123456789; while :; do x=$x$x; done")
    bundle.linux["resources"] = {"memory": {"limit": 16 * MIB}}
    go = bundle.path / "rootfs/go"
    subprocess.run(["mkfifo", go], check=True)
    rune.create(bundle)
    assert rune("start", "c").status == 0
    with subprocess.Popen(rune.command("events", "c"), stdout=subprocess.PIPE, text=True) as events:
        time.sleep(0.5)
        go.write_text("go\n")
        out, _ = events.communicate(timeout=60)
    assert events.returncode == 0
    assert {"type": "oom", "id": "c"} in [json.loads(line) for line in out.splitlines()]


def test_a_stopped_container_has_no_events(rune: Rune, bundle: Bundle) -> None:
    bundle.shell("true")
    rune.create(bundle)
    assert rune("start", "c").status == 0
    rune.wait_for("stopped")
    done = rune("events", "--stats", "c")
    assert done.status == 1
    assert "container not running" in done.error


@pytest.mark.parametrize("interval", ["5", "x", "0s", "-1s", "1.s2"])
def test_an_interval_is_a_time(rune: Rune, running: Bundle, interval: str) -> None:
    del running
    done = rune("events", "--interval", interval, "c")
    assert done.status == 1
    assert "is not a time above 0" in done.error
