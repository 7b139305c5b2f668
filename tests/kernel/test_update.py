"""`rune update`, `rune pause`, `rune resume` on real control groups."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from inclavare.linux.cgroups import paths_for, read_layout
from tests.kernel.conftest import Bundle, Rune

MIB = 1 << 20


@pytest.fixture
def running(rune: Rune, bundle: Bundle) -> Bundle:
    """A container that runs until it is killed, with a limit of memory."""
    bundle.shell("i=0; while :; do i=$((i+1)); echo $i > /count; done")
    bundle.linux["resources"] = {"memory": {"limit": 64 * MIB}, "pids": {"limit": 20}}
    rune.create(bundle)
    assert rune("start", "c").status == 0
    return bundle


def read(bundle: Bundle, controller: str, v1: str, v2: str) -> str:
    layout = read_layout()
    paths = paths_for(layout, bundle.linux["cgroupsPath"], "c")
    if layout.is_v2:
        return (Path(next(iter(paths.values()))) / v2).read_text().strip()
    path = next(path for name, path in paths.items() if controller in name.split(","))
    return (Path(path) / v1).read_text().strip()


def memory(bundle: Bundle) -> str:
    return read(bundle, "memory", "memory.limit_in_bytes", "memory.max")


def count(bundle: Bundle) -> str:
    return (bundle.path / "rootfs/count").read_text()


def test_a_paused_container_stands_still_until_it_is_resumed(rune: Rune, running: Bundle) -> None:
    assert rune("pause", "c").status == 0
    assert rune.state()["status"] == "paused"
    assert json.loads(rune("list", "--format", "json").out)[0]["status"] == "paused"
    before = count(running)
    time.sleep(0.05)
    assert count(running) == before
    assert rune("resume", "c").status == 0
    assert rune.state()["status"] == "running"
    deadline = time.monotonic() + 5
    while count(running) in (before, ""):
        assert time.monotonic() < deadline


def test_a_paused_container_is_killed_and_deleted_by_force(rune: Rune, running: Bundle) -> None:
    del running
    assert rune("pause", "c").status == 0
    refused = rune("exec", "c", "true")
    assert refused.status == 255
    assert "cannot exec in a paused container" in refused.error
    assert rune("delete", "--force", "c").status == 0


@pytest.mark.parametrize("words", [["kill", "c", "KILL"], ["kill", "--all", "c", "KILL"]])
def test_a_paused_container_is_killed(rune: Rune, running: Bundle, words: list[str]) -> None:
    del running
    assert rune("pause", "c").status == 0
    assert rune(*words).status == 0
    rune.wait_for("stopped")


def test_pause_and_resume_say_what_a_container_must_be(rune: Rune, bundle: Bundle) -> None:
    bundle.shell("true")
    rune.create(bundle)
    assert "container not paused" in rune("resume", "c").error
    assert rune("pause", "c").status == 0
    assert "container not running" in rune("pause", "c").error
    assert rune("resume", "c").status == 0
    assert rune("start", "c").status == 0
    rune.wait_for("stopped")
    for command, words in (("pause", "container not running"), ("resume", "container not paused")):
        refused = rune(command, "c")
        assert refused.status == 1
        assert words in refused.error


@pytest.mark.parametrize(
    ("options", "controller", "v1", "v2", "value", "value2"),
    [
        (["--memory", "128M"], "memory", "memory.limit_in_bytes", "memory.max", f"{128 * MIB}", f"{128 * MIB}"),
        (["--memory", "33554432"], "memory", "memory.limit_in_bytes", "memory.max", f"{32 * MIB}", f"{32 * MIB}"),
        (
            ["--memory-reservation", "1.5m"],
            *("memory", "memory.soft_limit_in_bytes", "memory.low", "1572864", "1572864"),
        ),
        (["--cpu-share", "512"], "cpu", "cpu.shares", "cpu.weight", "512", "20"),
        (
            ["--cpu-period", "50000", "--cpu-quota", "20000"],
            "cpu",
            "cpu.cfs_quota_us",
            "cpu.max",
            "20000",
            "20000 50000",
        ),
        (["--cpu-quota", "-1"], "cpu", "cpu.cfs_quota_us", "cpu.max", "-1", "max 100000"),
        (["--cpuset-cpus", "0"], "cpuset", "cpuset.cpus", "cpuset.cpus", "0", "0"),
        (["--pids-limit", "33"], "pids", "pids.max", "pids.max", "33", "33"),
        (["--pids-limit=-1"], "pids", "pids.max", "pids.max", "max", "max"),
    ],
)
def test_an_option_changes_its_limit(
    rune: Rune, running: Bundle, options: list[str], controller: str, v1: str, v2: str, value: str, value2: str
) -> None:
    done = rune("update", *options, "c")
    assert (done.status, done.error) == (0, "")
    assert read(running, controller, v1, v2) == (value2 if read_layout().is_v2 else value)


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_limits_come_from_a_document_too(rune: Rune, running: Bundle, tmp_path: Path, way: str) -> None:
    document = tmp_path / "resources.json"
    document.write_text(json.dumps({"memory": {"limit": 96 * MIB}, "pids": {"limit": 7}, "blockIO": {"weight": 0}}))
    if way == "file":
        done = rune("update", "--resources", document, "c")
    else:
        with document.open("rb") as stdin:
            done = rune("update", "-r", "-", "c", stdin=stdin)
    assert (done.status, done.error) == (0, "")
    assert memory(running) == f"{96 * MIB}"
    assert read(running, "pids", "pids.max", "pids.max") == "7"


def test_what_was_changed_is_changed_back_when_a_later_limit_fails(rune: Rune, running: Bundle) -> None:
    done = rune("update", "--memory", "128M", "--cpuset-cpus", "4000", "c")
    assert done.status == 1
    assert "cpuset.cpus" in done.error
    assert memory(running) == f"{64 * MIB}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--memory", "12Q"], "invalid value for memory: '12Q' is not a size such as 64M"),
        (["--memory", "."], "is not a size"),
        (["--cpu-quota", "x"], "invalid value for cpu-quota: 'x' is not a number"),
        (["--cpu-idle", "2"], "cpu.idle: 2 is not between 0 and 1"),
        (["--resources", "/nonexistent"], "cannot read /nonexistent: No such file or directory"),
        (["--l3-cache-schema", "L3:0=f"], "cannot set --l3-cache-schema: this host has no resctrl"),
    ],
)
def test_a_malformed_update_changes_nothing(rune: Rune, running: Bundle, options: list[str], message: str) -> None:
    done = rune("update", *options, "c")
    assert done.status == 1
    assert message in done.error
    assert memory(running) == f"{64 * MIB}"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"devices": [{"allow": True, "access": "rwm"}]}, "devices: the rules for devices cannot be changed"),
        ({"memory": {"limit": 4096, "checkBeforeUpdate": True}}, "memory.limit: 4096 is less than the container uses"),
        ({"memory": {"limit": "1"}}, "memory.limit: must be an integer"),
    ],
)
def test_a_document_that_cannot_be_done_is_refused(
    rune: Rune, running: Bundle, tmp_path: Path, document: dict[str, Any], message: str
) -> None:
    (tmp_path / "r.json").write_text(json.dumps(document))
    done = rune("update", "-r", tmp_path / "r.json", "c")
    assert done.status == 1
    assert message in done.error
    assert memory(running) == f"{64 * MIB}"


def test_the_containers_own_rules_for_devices_may_be_repeated(rune: Rune, bundle: Bundle, tmp_path: Path) -> None:
    """Kubernetes has containerd send all that the container was made with."""
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
    ]
    bundle.shell("i=0; while :; do i=$((i+1)); done")
    bundle.linux["resources"] = {"devices": rules, "memory": {"limit": 64 * MIB}}
    rune.create(bundle)
    assert rune("start", "c").status == 0
    (tmp_path / "r.json").write_text(json.dumps({"devices": rules, "memory": {"limit": 96 * MIB}}))
    done = rune("update", "-r", tmp_path / "r.json", "c")
    assert (done.status, done.error) == (0, "")
    assert memory(bundle) == f"{96 * MIB}"
    (tmp_path / "r.json").write_text(json.dumps({"devices": rules[:1], "memory": {"limit": 64 * MIB}}))
    assert "cannot be changed" in rune("update", "-r", tmp_path / "r.json", "c").error
    assert memory(bundle) == f"{96 * MIB}"


def test_a_stopped_container_is_not_updated(rune: Rune, bundle: Bundle) -> None:
    bundle.shell("true")
    rune.create(bundle)
    assert rune("start", "c").status == 0
    rune.wait_for("stopped")
    done = rune("update", "--pids-limit", "3", "c")
    assert done.status == 1
    assert "container not running" in done.error
