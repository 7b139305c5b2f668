"""Attacks on runtimes by hostile images, each tried for real; docs/security.md says what they were."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import Bundle, Result, Rune


def _mount(bundle: Bundle, destination: str, kind: str, source: object = "x", *options: str) -> None:
    mount: dict[str, Any] = {"destination": destination, "type": kind, "source": str(source), "options": list(options)}
    bundle.config["mounts"].append(mount)


def _without(bundle: Bundle, destination: str) -> None:
    bundle.config["mounts"] = [mount for mount in bundle.config["mounts"] if mount["destination"] != destination]


def _directory(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def _refused(rune: Rune, result: Result, words: str) -> None:
    assert result.status == 1
    assert words in result.error
    assert rune.leftovers() == []


@pytest.mark.parametrize("destination", ["/proc", "/proc/", "//proc", "/./proc", "/x/../proc"])
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_volume_cannot_stand_in_for_proc(rune: Rune, bundle: Bundle, destination: str, kind: str) -> None:
    """CVE-2019-16884: labels and masks were written to a false proc."""
    volume = _directory(bundle.path / "volume/self/attr")
    (volume / "exec").write_text("")
    _directory(bundle.path / "rootfs/x")
    _mount(bundle, destination, kind, bundle.path / "volume", *(["bind"] if kind == "bind" else []))
    _refused(rune, rune.run(bundle), "cannot be mounted")
    bundle.config["mounts"] = [mount for mount in bundle.config["mounts"] if mount["type"] != "proc"]
    _refused(rune, rune.run(bundle), "cannot be mounted")


@pytest.mark.parametrize("place", ["/proc/self/attr", "/proc/sys/net", "/proc/1", "/link/attr"])
def test_nothing_is_mounted_inside_proc(rune: Rune, bundle: Bundle, place: str) -> None:
    (bundle.path / "rootfs/link").symlink_to("/proc/self")
    _mount(bundle, place, "tmpfs")
    _refused(rune, rune.run(bundle), "because it is inside /proc")


def test_files_about_the_machine_may_be_mounted_in_proc(rune: Rune, bundle: Bundle) -> None:
    (bundle.path / "uptime").write_text("1 2\n")
    _mount(bundle, "/proc/uptime", "bind", bundle.path / "uptime", "bind", "ro")
    bundle.process["args"] = ["cat", "/proc/uptime"]
    assert rune.run(bundle).out == "1 2\n"


def test_proc_in_a_shared_volume_is_not_taken_for_proc(rune: Rune, bundle: Bundle) -> None:
    """CVE-2019-19921: /proc is a link into a volume that another container changes meanwhile."""
    _directory(bundle.path / "volume/proc/self")
    (bundle.path / "rootfs/proc").symlink_to("/volume/proc")
    mount = {"destination": "/volume", "type": "bind", "source": "volume", "options": ["bind"]}
    bundle.config["mounts"].insert(0, mount)
    _refused(rune, rune.run(bundle), "check that /proc is a directory")


@pytest.mark.parametrize(
    ("path", "target"), [("proc", "/elsewhere"), ("sys", "elsewhere"), ("proc", "/tmp/../elsewhere")]
)
def test_proc_and_sys_of_an_image_that_are_links_are_refused(
    rune: Rune, bundle: Bundle, path: str, target: str
) -> None:
    """CVE-2023-27561 and CVE-2023-28642."""
    _directory(bundle.path / "rootfs/elsewhere")
    (bundle.path / "rootfs" / path).symlink_to(target)
    _refused(rune, rune.run(bundle), f"check that /{path} is a directory")


def test_a_mount_point_that_turns_into_a_link_meanwhile_does_not_lead_out(rune: Rune, bundle: Bundle) -> None:
    """CVE-2021-30465 and CVE-2024-45310: the check on the host and the use were two steps."""
    outside = _directory(bundle.path / "outside")
    volume = _directory(bundle.path / "volume")
    place, other = _directory(volume / "place"), volume / "other"
    other.symlink_to(f"../../../../../../..{outside}")
    end = threading.Event()

    def swap() -> None:
        while not end.is_set():
            with contextlib.suppress(OSError):  # rune may have made the place meanwhile
                place.rename(volume / "kept")
                other.rename(place)
                place.rename(other)
                (volume / "kept").rename(place)

    _mount(bundle, "/volume", "bind", volume, "bind")
    _mount(bundle, "/volume/place/made", "tmpfs")
    _mount(bundle, "/volume/place/file", "bind", "/etc/passwd", "bind")
    racer = threading.Thread(target=swap)
    racer.start()
    try:
        ends = {rune.run(bundle).status for _ in range(8)}
    finally:
        end.set()
        racer.join()
    assert ends <= {0, 1}
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_no_mount_point_is_made_outside_of_the_root(rune: Rune, bundle: Bundle, kind: str) -> None:
    """CVE-2024-45310: empty files and directories on the host."""
    outside = _directory(bundle.path / "outside")
    (bundle.path / "rootfs/link").symlink_to(f"../../../../../../../..{outside}")
    source = outside.parent if kind == "directory" else "/etc/passwd"
    _mount(bundle, "/link/made", "bind", source, "bind")
    rune.run(bundle)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("use", ["cwd", "args", "mount", "link"])
def test_a_leaked_descriptor_of_the_host_is_no_way_out(rune: Rune, bundle: Bundle, use: str) -> None:
    """CVE-2024-21626."""
    outside = _directory(bundle.path / "outside")
    (outside / "program").write_text("#!/bin/sh\necho out\n")
    (outside / "program").chmod(0o755)
    leaked = os.open(outside, os.O_RDONLY)
    way = f"/proc/self/fd/{leaked}"
    if use == "cwd":
        bundle.process["cwd"] = way
    elif use == "args":
        bundle.process["args"] = [f"{way}/program"]
    else:
        (bundle.path / "rootfs/link").symlink_to(way)
        _mount(bundle, f"{way}/made" if use == "mount" else "/link/made/deeper", "tmpfs")
    try:
        result = rune.run(bundle, pass_fds=[leaked])
    finally:
        os.close(leaked)
    assert result.status != 0
    assert "out" not in result.out.split()
    assert [path.name for path in outside.iterdir()] == ["program"]
    assert rune.leftovers() == []


def test_masks_do_not_come_from_the_image(rune: Rune, bundle: Bundle) -> None:
    """CVE-2025-31133: /dev/null of the container was a link, and what it named was mounted over the masked path."""
    _without(bundle, "/dev")
    _directory(bundle.path / "rootfs/dev")
    (bundle.path / "rootfs/secret").write_text("secret")
    (bundle.path / "rootfs/dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    bundle.linux["maskedPaths"] = ["/secret"]
    _refused(rune, rune.run(bundle), "cannot make the device /dev/null: the image has something else there")
    _directory(bundle.path / "own")
    (bundle.path / "own/null").symlink_to("/proc/sys/kernel/core_pattern")
    bundle.config["mounts"].insert(0, {"destination": "/dev", "type": "bind", "source": "own", "options": ["bind"]})
    bundle.shell("cat /secret; stat -c %t:%T /secret")
    assert rune.run(bundle).out == "1:3\n"


@pytest.mark.parametrize("target", ["/proc/sys/kernel/core_pattern", "/etc/passwd", "pts/0"])
def test_the_console_of_an_image_is_not_followed(rune: Rune, bundle: Bundle, target: str) -> None:
    """CVE-2025-52565: the terminal was mounted over what /dev/console named."""
    bundle.config["mounts"] = [mount for mount in bundle.config["mounts"] if mount["destination"] != "/dev"]
    _directory(bundle.path / "rootfs/dev")
    (bundle.path / "rootfs/dev/console").symlink_to(target)
    bundle.process["terminal"] = True
    bundle.process["args"] = ["true"]
    master, slave = pty.openpty()
    try:
        command = rune.command("run", "--bundle", bundle.write(), "c")
        done = subprocess.run(command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == 1
    assert b"open the terminal" in done.stderr
    assert rune.leftovers() == []


def test_settings_are_not_redirected_by_the_image(rune: Rune, bundle: Bundle) -> None:
    """CVE-2025-52881: writes of sysctl and labels went where the image's mounts led them."""
    false = _directory(bundle.path / "volume") / "ip_forward"
    false.write_text("untouched")
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    _directory(bundle.path / "rootfs/proc/sys/net/ipv4")
    (bundle.path / "rootfs/proc/sys/net/ipv4/ip_forward").write_text("untouched")
    bundle.process["args"] = ["cat", "/proc/sys/net/ipv4/ip_forward"]
    assert rune.run(bundle).out == "1\n"
    assert (bundle.path / "rootfs/proc/sys/net/ipv4/ip_forward").read_text() == "untouched"
    _mount(bundle, "/proc/sys/net/ipv4/ip_forward", "bind", false, "bind")
    _refused(rune, rune.run(bundle), "because it is inside /proc")
    assert false.read_text() == "untouched"


def test_no_process_has_inheritable_capabilities_unasked(rune: Rune, bundle: Bundle) -> None:
    """CVE-2022-27650: a file's inheritable capabilities became those of any user."""
    bundle.process["args"] = ["sleep", "60"]
    bundle.process["capabilities"].pop("inheritable", None)
    rune.create(bundle)
    assert rune("start", "c").status == 0
    for options in ([], ["--cap", "CAP_NET_RAW"], ["--user", "1000"]):
        result = rune("exec", *options, "c", "grep", "-E", "CapInh|CapAmb", "/proc/self/status")
        assert result.status == 0, result.error
        values = dict(line.split(":\t") for line in result.out.splitlines())
        assert int(values["CapInh"], 16) == 0


@pytest.mark.parametrize("target", ["/elsewhere", "/proc", "../../../../../../tmp"])
def test_devices_stay_in_the_root_when_dev_is_a_link(rune: Rune, bundle: Bundle, target: str) -> None:
    bundle.config["mounts"] = [
        mount for mount in bundle.config["mounts"] if not mount["destination"].startswith("/dev")
    ]
    _directory(bundle.path / "rootfs/elsewhere")
    (bundle.path / "rootfs/dev").symlink_to(target)
    before = set(os.listdir("/tmp"))
    result = rune.run(bundle)
    assert result.status == (1 if target == "/proc" else 0), result.error
    assert not {"null", "zero", "tty"} & (set(os.listdir("/tmp")) - before)


@pytest.mark.parametrize("what", ["file", "directory", "link", "other device"])
def test_something_else_in_the_place_of_a_device_is_refused(rune: Rune, bundle: Bundle, what: str) -> None:
    _without(bundle, "/dev")
    place = _directory(bundle.path / "rootfs/dev") / "zero"
    if what == "file":
        place.write_text("")
    elif what == "directory":
        place.mkdir()
    elif what == "link":
        place.symlink_to("full")
    else:
        os.mknod(place, 0o20666, os.makedev(1, 7))
    _refused(rune, rune.run(bundle), "cannot make the device /dev/zero: the image has something else there")
