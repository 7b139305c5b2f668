"""Containers on a host with the unified hierarchy only: a mount namespace that shows no other.

On a host with both, the v2 hierarchy has no memory, cpu or pids controller; devices, joining and removal work.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Bundle, Rune

PREPARE = """
set -e
mount --make-rprivate /
mkdir -p "$1"
mount --bind "$2" "$1"
while umount -R -l /sys/fs/cgroup 2>/dev/null; do :; done
mount --move "$1" /sys/fs/cgroup
shift 2
exec "$@"
"""


def _unified() -> str | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return line.split()[4]
    return None


@pytest.fixture
def hierarchy(bundle: Bundle) -> Iterator[str]:
    unified = _unified()
    if unified is None:
        pytest.skip("no cgroup2 hierarchy is mounted")
    bundle.linux["cgroupsPath"] = f"/inclavare-test-v2-{os.getpid()}/{bundle.path.name}"
    bundle.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    yield unified
    parent = Path(unified, f"inclavare-test-v2-{os.getpid()}")
    assert [path for path in parent.glob("*") if path.is_dir()] == []
    if parent.exists():
        parent.rmdir()


def _run(rune: Rune, bundle: Bundle, hierarchy: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = rune.command("run", *options, "--bundle", bundle.write(), "c")
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", PREPARE, "sh", rune.directory / "cgroup2", hierarchy, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_container_is_in_its_group_and_the_group_goes_with_it(rune: Rune, bundle: Bundle, hierarchy: str) -> None:
    bundle.process["args"] = ["grep", "^0::", "/proc/self/cgroup"]
    done = _run(rune, bundle, hierarchy)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"0::{bundle.linux['cgroupsPath']}\n"


def test_devices_are_denied_and_allowed_by_the_filter(rune: Rune, bundle: Bundle, hierarchy: str) -> None:
    bundle.linux["devices"] = [
        {"path": "/dev/allowed", "type": "c", "major": 10, "minor": 229},
        {"path": "/dev/denied", "type": "c", "major": 10, "minor": 200},
    ]
    if not os.path.exists("/dev/fuse") or not os.path.exists("/dev/net/tun"):
        pytest.skip("needs the devices fuse and tun of the host")
    bundle.linux["resources"]["devices"] += [
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
    ]
    bundle.shell(
        "head -c 2 /dev/zero | wc -c; (: < /dev/allowed) && echo opened;"
        "(: < /dev/denied) 2>&1 | grep -o 'not permitted'"
    )
    done = _run(rune, bundle, hierarchy)
    assert done.stdout == "2\nopened\nnot permitted\n", done.stderr


def test_a_limit_without_its_controller_is_an_error(rune: Rune, bundle: Bundle, hierarchy: str) -> None:
    if "pids" in Path(hierarchy, "cgroup.controllers").read_text().split():
        pytest.skip("this host's v2 hierarchy has the pids controller")
    bundle.linux["resources"]["pids"] = {"limit": 10}
    done = _run(rune, bundle, hierarchy)
    assert done.returncode == 1
    assert "cannot write '10'" in done.stderr
    assert "The controller is not enabled" in done.stderr


def test_the_cgroup_mount_shows_the_group(rune: Rune, bundle: Bundle, hierarchy: str) -> None:
    bundle.linux["namespaces"].append({"type": "cgroup"})
    bundle.shell(
        "cat /sys/fs/cgroup/cgroup.procs | wc -l; cat /proc/self/cgroup | tail -1;"
        "grep -c ' /sys/fs/cgroup cgroup2 ro' /proc/mounts"
    )
    done = _run(rune, bundle, hierarchy)
    assert done.stdout == "3\n0::/\n1\n", done.stderr


def test_a_dry_run_tells_of_the_device_filter(rune: Rune, bundle: Bundle, hierarchy: str) -> None:
    done = _run(rune, bundle, hierarchy, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "load the device filter" in done.stdout
