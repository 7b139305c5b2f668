"""Devices of containers with a user namespace, in which nobody can make one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import Bundle, Result, Rune

MAPPINGS = [{"containerID": 0, "hostID": 100000, "size": 1000}]
NODES = tuple(f"/{index}" for index in range(6))


def _call(words: list[str]) -> Result:
    return Result(subprocess.run(words, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=60))


@pytest.fixture
def mapped(bundle: Bundle) -> Bundle:
    """A bundle with a user namespace, whose files are its root's."""
    for directory, names, files in os.walk(bundle.path / "rootfs"):
        for name in [*names, *files]:
            os.lchown(os.path.join(directory, name), 100000, 100000)
    os.chown(bundle.path / "rootfs", 100000, 100000)
    for parent in (bundle.path, *bundle.path.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = MAPPINGS
    return bundle


def test_devices_have_the_mode_and_the_owner_asked_for_whatever_the_host_has(rune: Rune, mapped: Bundle) -> None:
    mapped.linux["devices"] = [
        {"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o20604, "uid": 7},
        {"path": "/dev/nowhere/else", "type": "b", "major": 7, "minor": 300, "fileMode": 0o157, "uid": 10, "gid": 11},
    ]
    mapped.shell("stat -c '%F %t:%T %a %u:%g' /dev/full /dev/nowhere/else /dev/null; echo text >/dev/null; ls /dev/pts")
    before = Path("/proc/self/mountinfo").read_text()
    result = rune.run(mapped, umask=0o077)
    assert result.out.splitlines()[:3] == [
        "character special file 1:7 604 7:0",
        "block special file 7:12c 157 10:11",
        "character special file 1:3 666 0:0",
    ], result.error
    assert not result.error
    assert Path("/proc/self/mountinfo").read_text() == before


def test_only_the_nodes_are_left_of_what_they_were_made_on_and_no_program_runs_from_them(
    rune: Rune, mapped: Bundle
) -> None:
    mapped.shell("cat /proc/self/mountinfo")
    lines = [line.split() for line in rune.run(mapped).out.splitlines()]
    devices = {line[4]: line for line in lines if line[3] in NODES and line[4].startswith("/dev/")}
    assert sorted(devices) == ["/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"]
    assert all({"nosuid", "noexec"} <= set(line[5].split(",")) for line in devices.values())


def test_an_owner_that_is_not_mapped_is_refused_by_name(rune: Rune, mapped: Bundle) -> None:
    mapped.linux["devices"] = [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "gid": 1000}]
    result = rune.run(mapped)
    assert result.status == 1
    assert "linux.devices[0].gid: 1000 is not mapped in the user namespace" in result.error


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ({"path": "/dev/none-such"}, "the host's /dev/none-such cannot be had: No such file or directory"),
        ({"path": "/dev/zero"}, "the host's /dev/zero is another than c 1:3"),
    ],
)
def test_who_cannot_make_devices_binds_those_of_the_host_and_no_other(
    rune: Rune, mapped: Bundle, device: dict[str, Any], message: str
) -> None:
    mapped.shell("stat -c '%t:%T' /dev/full")
    without = ["setpriv", "--bounding-set=-mknod", "--inh-caps=-mknod"]
    words = [*without, *rune.command("run", "--bundle", mapped.write(), "c")]
    assert _call(words).out == "1:7\n"
    mapped.linux["devices"] = [{"type": "c", "major": 1, "minor": 3} | device]
    mapped.write()
    result = _call(words)
    bound = "in this user namespace only devices of the host can be bound"
    assert f"linux.devices[0]: {bound}, and {message}" in result.error
    assert rune.leftovers() == []
