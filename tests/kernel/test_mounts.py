"""The filesystem of a container: idmapped mounts, propagation, ways into the root, defaults of filesystems, devices."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inclavare.container.rootfs_plan import read_mounts
from inclavare.oci.linux import PROPAGATIONS
from tests.kernel.conftest import Bundle, Rune

MAPPINGS = [{"containerID": 0, "hostID": 100000, "size": 65536}]


def _mount(bundle: Bundle, destination: str, kind: str, source: object, *options: str) -> dict[str, Any]:
    mount: dict[str, Any] = {"destination": destination, "type": kind, "source": str(source), "options": list(options)}
    bundle.config["mounts"].append(mount)
    return mount


def _user_namespace(bundle: Bundle) -> None:
    for directory, names, files in os.walk(bundle.path / "rootfs"):
        for name in [*names, *files]:
            os.lchown(os.path.join(directory, name), 100000, 100000)
    os.chown(bundle.path / "rootfs", 100000, 100000)
    for parent in (bundle.path, *bundle.path.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = MAPPINGS


def _volume(bundle: Bundle) -> Path:
    volume = bundle.path / "volume"
    volume.mkdir()
    (volume / "file").write_text("content")
    return volume


def test_a_mount_maps_ids(rune: Rune, bundle: Bundle) -> None:
    volume = _volume(bundle)
    os.chown(volume / "file", 5, 6)
    mount = _mount(bundle, "/volume", "bind", volume, "bind", "idmap")
    mount["uidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 10}]
    mount["gidMappings"] = [{"containerID": 0, "hostID": 2000, "size": 10}]
    bundle.shell("stat -c %u:%g /volume/file")
    result = rune.run(bundle)
    assert (result.out, result.error) == ("1005:2006\n", "")


def test_a_mount_maps_ids_by_its_option(rune: Rune, bundle: Bundle) -> None:
    volume = _volume(bundle)
    os.chown(volume / "file", 5, 6)
    _mount(bundle, "/volume", "bind", volume, "bind", "idmap=uids=0-1000-5#5-3000-1;gids=0-2000-10")
    bundle.shell("stat -c %u:%g /volume/file")
    result = rune.run(bundle)
    assert (result.out, result.error) == ("3000:2006\n", "")


@pytest.mark.parametrize("options", [("bind", "idmap"), ("rbind", "ridmap")])
def test_a_mount_maps_ids_as_the_user_namespace_does(rune: Rune, bundle: Bundle, options: tuple[str, ...]) -> None:
    volume = _volume(bundle)
    os.chown(volume / "file", 5, 6)
    os.chown(volume, 0, 0)
    _user_namespace(bundle)
    _mount(bundle, "/volume", "bind", volume, *options)
    _mount(bundle, "/plain", "bind", volume, "bind")
    bundle.shell("stat -c %u:%g /volume/file /plain/file; touch /volume/new")
    result = rune.run(bundle)
    assert (result.out, result.error) == ("5:6\n65534:65534\n", "")
    assert (volume / "new").stat().st_uid == 0


def test_a_mount_of_a_container_with_a_user_namespace_has_mappings_of_its_own(rune: Rune, bundle: Bundle) -> None:
    volume = _volume(bundle)
    _user_namespace(bundle)
    mount = _mount(bundle, "/volume", "bind", volume, "bind")
    mount["uidMappings"] = mount["gidMappings"] = [{"containerID": 0, "hostID": 100007, "size": 1}]
    bundle.shell("stat -c %u:%g /volume/file")
    result = rune.run(bundle)
    assert (result.out, result.error) == ("7:7\n", "")


def test_a_filesystem_without_idmapped_mounts_is_named(rune: Rune, bundle: Bundle) -> None:
    mount = _mount(bundle, "/volume", "bind", "/proc/sys", "bind", "idmap")
    mount["uidMappings"] = mount["gidMappings"] = MAPPINGS
    result = rune.run(bundle)
    assert result.status == 1
    assert "cannot map the ids of /proc/sys: its filesystem has no idmapped mounts" in result.error
    assert rune.leftovers() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": ["bind", "idmap"]}, "has no mappings, and there is no user namespace"),
        ({"uidMappings": MAPPINGS}, "mounts[7].gidMappings: a mount with mapped ids needs"),
        ({"gidMappings": MAPPINGS}, "mounts[7].uidMappings: a mount with mapped ids needs"),
        (
            {"type": "tmpfs", "options": [], "uidMappings": MAPPINGS, "gidMappings": MAPPINGS},
            "id-mapped mounts are only supported for bind mounts",
        ),
    ],
)
def test_mappings_that_cannot_be_are_refused(rune: Rune, bundle: Bundle, change: dict[str, Any], message: str) -> None:
    del bundle.config["mounts"][7:]
    while len(bundle.config["mounts"]) < 7:
        _mount(bundle, f"/x{len(bundle.config['mounts'])}", "tmpfs", "x")
    _mount(bundle, "/volume", "bind", "/etc", "bind").update(change)
    result = rune.run(bundle)
    assert result.status == 1
    assert message in result.error


def _in_own_mounts(rune: Rune, bundle: Bundle, propagation: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run in a mount namespace whose mounts are all shared, and tell what it mounts on afterwards."""
    words = rune.command("run", *options, "--bundle", bundle.write(), "c")
    script = f'mount --make-r{propagation} / && "$@" && echo END && cat /proc/self/mountinfo'
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("propagation", PROPAGATIONS)
@pytest.mark.parametrize("options", [(), ("--no-pivot",)])
def test_the_root_propagates_as_asked_and_nothing_reaches_the_host(
    rune: Rune, bundle: Bundle, propagation: str, options: tuple[str, ...]
) -> None:
    bundle.linux["rootfsPropagation"] = propagation
    bundle.shell("grep -E '^([^ ]+ ){4}/ ' /proc/self/mountinfo; touch /made")
    before = {point for point, _ in read_mounts()}
    done = _in_own_mounts(rune, bundle, "shared", *options)
    assert (done.returncode, done.stderr) == (0, "")
    inside, _, outside = done.stdout.partition("END\n")
    assert inside.count("\n") == 1
    assert ("shared:" in inside) == propagation.endswith("shared")
    assert ("unbindable" in inside) == propagation.endswith("unbindable")
    assert {line.split(" ")[4] for line in outside.splitlines()} == before
    assert (bundle.path / "rootfs/made").exists()


@pytest.mark.parametrize(
    ("option", "seen"),
    [
        ("rshared", "shared:"),
        ("rslave", "master:"),
        ("rprivate", ""),
        ("runbindable", "unbindable"),
        ("shared", "shared:"),
    ],
)
def test_a_mount_propagates_as_asked(rune: Rune, bundle: Bundle, option: str, seen: str) -> None:
    bundle.linux["rootfsPropagation"] = "shared"
    _mount(bundle, "/volume", "bind", _volume(bundle), "rbind", option)
    bundle.process["args"] = ["grep", " /volume ", "/proc/self/mountinfo"]
    done = _in_own_mounts(rune, bundle, "shared")
    assert (done.returncode, done.stderr) == (0, "")
    words = done.stdout.splitlines()[0].split(" - ")[0].split(" ")[6:]
    assert [word.rstrip("0123456789") for word in words] == ([seen] if seen else [])


@pytest.mark.parametrize("option", ["rshared", "rslave"])
def test_mounts_travel_between_a_volume_and_the_host_as_asked(rune: Rune, bundle: Bundle, option: str) -> None:
    bundle.linux["rootfsPropagation"] = option
    volume = _volume(bundle)
    (volume / "in").mkdir()
    _mount(bundle, "/volume", "bind", volume, "rbind", option)
    bundle.process["capabilities"]["bounding"].append("CAP_SYS_ADMIN")
    for name in ("effective", "permitted"):
        bundle.process["capabilities"][name].append("CAP_SYS_ADMIN")
    bundle.shell("mount -t tmpfs travelling /volume/in")
    done = _in_own_mounts(rune, bundle, "shared")
    assert (done.returncode, done.stderr) == (0, "")
    assert ("travelling" in done.stdout) == (option == "rshared")


def test_without_pivot_the_host_is_out_of_sight(rune: Rune, bundle: Bundle) -> None:
    bundle.shell("ls -d /home /usr 2>&1; grep -c -v ' / ' /proc/mounts; cat /proc/1/comm; ls /..")
    result = rune("run", "--no-pivot", "--bundle", bundle.write(), "c")
    assert result.status == 0, result.error
    assert "bin" in result.out.split()
    assert "No such file" in result.out
    assert rune.leftovers() == []


def test_a_tmpfs_has_the_mode_of_the_directory_below(rune: Rune, bundle: Bundle) -> None:
    (bundle.path / "rootfs/there").mkdir(mode=0o750)
    (bundle.path / "rootfs/there").chmod(0o2750)
    _mount(bundle, "/there", "tmpfs", "x", "size=64k", "nosuid")
    _mount(bundle, "/new", "tmpfs", "x", "ro")
    _mount(bundle, "/given", "tmpfs", "x", "mode=701")
    bundle.shell("stat -c %a /there /new /given; touch /new/x; grep ' /there ' /proc/mounts")
    result = rune.run(bundle)
    assert result.out.split()[:3] == ["2750", "1777", "701"]
    assert "Read-only" in result.error
    assert "size=64k" in result.out
    assert "nosuid" in result.out


@pytest.mark.parametrize(("kind", "namespace"), [("sysfs", "network"), ("mqueue", "ipc"), ("proc", "pid")])
def test_a_user_namespace_shows_the_hosts_where_the_namespace_is_the_hosts(
    rune: Rune, bundle: Bundle, kind: str, namespace: str
) -> None:
    _user_namespace(bundle)
    if kind == "mqueue" and not Path("/dev/mqueue").is_dir():
        pytest.skip("the host has no /dev/mqueue")
    bundle.linux["namespaces"] = [item for item in bundle.linux["namespaces"] if item["type"] != namespace]
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    bundle.process["args"] = ["cat", "/proc/self/mounts"]
    result = rune.run(bundle)
    assert (result.status, result.error) == (0, "")
    assert any(line.split(" ")[2] == kind for line in result.out.splitlines()) or kind == "mqueue"


def test_an_option_that_a_user_namespace_cannot_take_away_is_explained(rune: Rune, bundle: Bundle) -> None:
    _user_namespace(bundle)
    volume = _volume(bundle)
    words = rune.command("run", "--bundle", bundle.write(), "c")
    for options, status in ((["bind"], 0), (["bind", "rw"], 1)):
        bundle.config["mounts"] = [mount for mount in bundle.config["mounts"] if mount["destination"] != "/volume"]
        _mount(bundle, "/volume", "bind", volume, *options)
        bundle.write()
        script = f'mount --bind {volume} {volume} && mount -o remount,bind,ro {volume} && "$@"'
        command = ["unshare", "-m", "sh", "-c", script, "sh", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, done.stderr
        assert ("a user namespace cannot take away" in done.stderr) == bool(status)


def test_a_mount_is_mounted_again_with_other_options(rune: Rune, bundle: Bundle) -> None:
    _mount(bundle, "/x", "tmpfs", "x", "mode=700")
    _mount(bundle, "/x", "tmpfs", "x", "remount", "ro", "mode=700")
    bundle.shell("touch /x/y")
    assert "Read-only file system" in rune.run(bundle).error


def test_relative_destinations_are_taken_from_the_root_with_a_warning(rune: Rune, bundle: Bundle) -> None:
    _mount(bundle, "there", "tmpfs", "x")
    bundle.shell("grep -c ' /there ' /proc/mounts")
    result = rune.run(bundle)
    assert result.out == "1\n"


def test_mounts_resolve_links_inside_the_container(rune: Rune, bundle: Bundle) -> None:
    (bundle.path / "rootfs/real").mkdir()
    (bundle.path / "rootfs/link").symlink_to("../../../real")
    (bundle.path / "rootfs/absolute").symlink_to("/real")
    _mount(bundle, "/link/a", "tmpfs", "x")
    _mount(bundle, "/absolute/b", "bind", "/etc/passwd", "bind")
    bundle.shell("grep -o ' /real/. ' /proc/mounts")
    assert sorted(rune.run(bundle).out.split()) == ["/real/a", "/real/b"]


@pytest.mark.parametrize("options", [[], ["--no-pivot"]])
def test_devices_of_every_type_are_made_again_over_those_of_the_image(
    rune: Rune, bundle: Bundle, options: list[str]
) -> None:
    bundle.config["mounts"] = [mount for mount in bundle.config["mounts"] if mount["destination"] != "/dev"]
    (bundle.path / "rootfs/dev").mkdir()
    os.mknod(bundle.path / "rootfs/dev/null", 0o20600, os.makedev(1, 3))
    bundle.linux["devices"] = [
        {"path": "/dev/c", "type": "c", "major": 1, "minor": 300, "fileMode": 0o20601},
        {"path": "/dev/u", "type": "u", "major": 1, "minor": 5, "uid": 7},
        {"path": "/dev/b", "type": "b", "major": 7, "minor": 0, "gid": 8},
        {"path": "/else/where", "type": "p", "fileMode": 0o640, "uid": 1, "gid": 2},
    ]
    bundle.shell("stat -c '%F %t:%T %a %u:%g' /dev/c /dev/u /dev/b /else/where /dev/null")
    result = rune("run", *options, "--bundle", bundle.write(), "c")
    assert result.out.splitlines() == [
        "character special file 1:12c 601 0:0",
        "character special file 1:5 666 7:0",
        "block special file 7:0 666 0:8",
        "fifo 0:0 640 1:2",
        "character special file 1:3 666 0:0",
    ], result.error


def test_a_fifo_is_made_in_a_user_namespace_and_a_device_is_the_hosts(rune: Rune, bundle: Bundle) -> None:
    _user_namespace(bundle)
    bundle.linux["devices"] = [
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
        {"path": "/dev/full", "type": "c", "major": 1, "minor": 7},
    ]
    bundle.shell("test -p /dev/pipe && stat -c %t:%T /dev/full")
    assert rune.run(bundle).out == "1:7\n"


def test_a_tmpfs_begins_with_what_it_hides(rune: Rune, bundle: Bundle) -> None:
    there = bundle.path / "rootfs/there"
    (there / "sub/deep").mkdir(parents=True)
    (there / "sub/deep/file").write_text("x" * 100_000)
    (there / "sub/deep/file").chmod(0o4640)
    os.utime(there / "sub/deep/file", (1000, 2000))
    (there / "sub/link").symlink_to("/etc/passwd")
    os.mkfifo(there / "fifo")
    for number in range(100):
        (there / f"a-file-with-a-rather-long-name-{number}").write_text("")
    os.chown(there / "sub/deep", 5, 6)
    os.utime(there / "sub", (3000, 4000))
    os.chown(there, 7, 8)
    there.chmod(0o715)
    _mount(bundle, "/there", "tmpfs", "x", "tmpcopyup", "ro")
    bundle.shell(
        "cd /there; stat -c '%F %a %u:%g %Y' . sub sub/deep sub/deep/file fifo; readlink sub/link;"
        "wc -c < sub/deep/file; ls | wc -l; touch x"
    )
    result = rune.run(bundle)
    lines = result.out.splitlines()
    assert lines[0].startswith("directory 715 7:8")
    assert lines[1] == "directory 755 0:0 4000"
    assert lines[2].startswith("directory 755 5:6")
    assert lines[3] == "regular file 4640 0:0 2000"
    assert lines[4].startswith("fifo 644 0:0")
    assert lines[5:] == ["/etc/passwd", "100000", "102"]
    assert "Read-only" in result.error


def test_a_copied_program_keeps_its_capabilities(rune: Rune, bundle: Bundle) -> None:
    place = bundle.path / "rootfs/there"
    place.mkdir()
    (place / "program").write_bytes(b"x")
    os.chown(place / "program", 7, 8)
    capability = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep
    os.setxattr(place / "program", "security.capability", capability)
    os.setxattr(place, "trusted.mark", b"kept")
    _mount(bundle, "/there", "tmpfs", "x", "tmpcopyup")
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    copied = f"/proc/{rune.state()['pid']}/root/there"
    assert os.getxattr(f"{copied}/program", "security.capability") == capability


def test_only_a_tmpfs_begins_with_what_it_hides(rune: Rune, bundle: Bundle) -> None:
    _mount(bundle, "/there", "devpts", "x", "tmpcopyup")
    assert "tmpcopyup needs a tmpfs" in rune.run(bundle).error
