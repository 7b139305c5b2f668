"""Attacks on exec by a container that changed its own root, tried for real; docs/security.md says what they were."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.kernel.conftest import Bundle, Rune

POWERS = ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_KILL"]
USER = ["--user", "1000:1000", "c", "sh", "-c", "echo $HOME"]


def _powerful(rune: Rune, bundle: Bundle, script: str) -> None:
    """Start a container whose root may mount, and wait until it has done what the script says."""
    bundle.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), POWERS)
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    done = bundle.path / "done"
    os.mkfifo(done)
    mount = {"destination": "/done", "type": "bind", "source": str(done), "options": ["bind"]}
    bundle.config["mounts"].append(mount)
    bundle.shell(f"exec 9> /done; {{ {script}; }} 1>&9 2>&9 && echo did it >&9; exec 9>&-; exec busybox sleep 60")
    rune.create(bundle)
    assert rune("start", "c").status == 0
    said = done.read_text()
    assert said.endswith("did it\n"), said


def test_exec_does_not_write_to_a_false_proc(rune: Rune, bundle: Bundle) -> None:
    """CVE-2025-52881 and CVE-2019-16884, by a container that puts its own files where proc was."""
    fake = "mount -t tmpfs x /proc && mkdir -p /proc/self/attr /proc/self/fd /proc/1"
    names = "oom_score_adj attr/exec attr/current attr/keycreate uid_map setgroups"
    _powerful(rune, bundle, f"{fake} && for name in {names}; do echo untouched > /proc/self/$name; done")
    bundle.process["oomScoreAdj"] = 100
    process = rune.directory / "process.json"
    process.write_text('{"args": ["sleep", "60"], "cwd": "/", "env": ["PATH=/bin"], "oomScoreAdj": 100}')
    pid_file = rune.directory / "pid"
    with (rune.directory / "out").open("wb") as out:
        words = rune.command("exec", "--detach", "--pid-file", pid_file, "--process", process, "c")
        assert subprocess.run(words, stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=False).returncode == 0
    assert Path(f"/proc/{pid_file.read_text()}/oom_score_adj").read_text() == "100\n"
    read = rune("exec", "c", "sh", "-c", f"cd /proc/self; cat {names}; ls /proc/self/fd /proc/1")
    assert read.status == 0, read.error
    assert set(read.out.split()) == {"untouched", "/proc/self/fd:", "/proc/1:"}
    assert rune.state()["status"] == "running"
    assert len(rune("ps", "c").out.splitlines()) == 3


@pytest.mark.parametrize(
    "what", ["fifo", "file", "nothing", "/proc/self/fd/0", "/proc/self/fd/2", "/dev/null", "/done"]
)
def test_exec_takes_no_terminal_but_one(rune: Rune, bundle: Bundle, what: str) -> None:
    """CVE-2025-52565, by exec: what the container put in the place of ptmx is opened by who is not yet in it."""
    replace = {"fifo": "busybox mkfifo /new/ptmx", "file": "echo > /new/ptmx", "nothing": "true"}
    make = replace.get(what, f"busybox ln -s {what} /new/ptmx")
    _powerful(rune, bundle, f"mkdir /new && {make} && mount -o bind /new /dev/pts")
    path = rune.directory / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        result = rune("exec", "--detach", "--tty", "--console-socket", path, "c", "true", timeout=20)
        connection = server.accept()[0]
        assert socket.recv_fds(connection, 100, 1)[1] == []
        connection.close()
    assert result.status == 255
    assert "cannot open the terminal" in result.error


@pytest.mark.parametrize("target", ["/proc/1/root", "/proc/self/fd/3", "/proc/self/cwd", "nowhere", "file", "loop"])
def test_exec_in_a_directory_that_was_replaced_stays_inside(rune: Rune, bundle: Bundle, target: str) -> None:
    """CVE-2024-21626: the working directory is a link by now."""
    bundle.process["cwd"] = "/work"
    leave = {"file": "echo > /work", "loop": "busybox ln -s /work /work"}.get(target, f"busybox ln -s {target} /work")
    _powerful(rune, bundle, f"cd / && busybox rmdir /work && {leave}")
    leaked = os.open(bundle.path, os.O_RDONLY)
    try:
        result = rune("exec", "c", "sh", "-c", "busybox pwd -P; ls", pass_fds=[leaked])
    finally:
        os.close(leaked)
    assert "config.json" not in result.out
    if target in ("/proc/1/root", "/proc/self/cwd"):
        assert result.status in (0, 255)
        assert result.out.splitlines()[:1] in ([], ["/"])
    else:
        assert (result.status, result.out) == (255, "")


def test_exec_sees_the_root_that_the_container_has_by_now(rune: Rune, bundle: Bundle) -> None:
    fill = "mount -t tmpfs x /mnt && mkdir /mnt/bin /mnt/new && busybox cp -a /bin/. /mnt/bin"
    _powerful(rune, bundle, f"mkdir /mnt && {fill} && cd /mnt && busybox pivot_root . . && busybox umount -l .")
    result = rune("exec", "--cwd", "/new", "c", "ls", "/")
    assert (result.status, result.out) == (0, "bin\nnew\n"), result.error
    assert rune("exec", "--cwd", "/etc", "c", "ls").status == 255


LINE = "user:x:1000:1000::/home/user:/bin/sh\n"
PASSWORDS = {
    "no end": b"x" * (40 << 20),
    "far away": b"a:b:1:1::/:/\n" * (4 << 20) + LINE.encode(),
    "no colons": b"\n" * 100_000 + b"user\n1000\n",
    "zeros": bytes(4 << 20),
    "numbers": b"a:x:4294968296:0::/wrapped:\nb:x:00000000000001000:0::/long:\nc:x:-1:0::/minus:\nd:x::::/empty:\n",
    "too many colons": b":" * (1 << 20) + b"\n",
    "a home too long": b"user:x:1000:1000::/" + b"h" * 8000 + b":\n",
    "a home that is none": b"user:x:1000:1000:::\nuser:x:1000\nuser:x:1000:",
}


@pytest.mark.parametrize("command", ["run", "exec"])
@pytest.mark.parametrize("content", PASSWORDS)
def test_a_hostile_passwd_costs_neither_time_nor_truth(rune: Rune, bundle: Bundle, command: str, content: str) -> None:
    (bundle.path / "rootfs/etc/passwd").write_bytes(PASSWORDS[content])
    assert _home(rune, bundle, command) == "/\n"


@pytest.mark.parametrize("command", ["run", "exec"])
@pytest.mark.parametrize("what", ["fifo", "directory", "/dev/zero", "/dev/tty", "/etc/passwd", "/proc/kmsg", "socket"])
def test_a_passwd_that_is_no_file_does_not_stop_rune(rune: Rune, bundle: Bundle, command: str, what: str) -> None:
    place = bundle.path / "rootfs/etc/passwd"
    place.unlink()
    if what == "fifo":
        os.mkfifo(place)
    elif what == "directory":
        place.mkdir()
    elif what == "socket":
        os.mknod(place, 0o140644)
    else:
        place.symlink_to(what)
    assert _home(rune, bundle, command) == "/\n"


def _home(rune: Rune, bundle: Bundle, command: str) -> str:
    """Give the HOME of user 1000, which must come in time."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    begin = time.monotonic()
    if command == "run":
        bundle.shell("echo $HOME")
        result = rune.run(bundle, timeout=20)
    else:
        bundle.process["env"].append("HOME=/set")
        bundle.process["args"] = ["sleep", "60"]
        rune.create(bundle)
        assert rune("start", "c").status == 0
        process = rune.directory / "process.json"
        words = (
            '{"args": ["sh", "-c", "echo $HOME"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 1000, "gid": 0}}'
        )
        process.write_text(words)
        result = rune("exec", "--process", process, "c", timeout=20)
    assert result.status == 0, result.error
    assert time.monotonic() - begin < 10
    return result.out


@pytest.mark.parametrize(("words", "ids"), [("1", "1 0"), ("1:2", "1 2"), ("10", "10 0"), ("0:1", "0 1")])
def test_exec_as_a_user_is_that_user(rune: Rune, bundle: Bundle, words: str, ids: str) -> None:
    """CVE-2026-30892: crun took `--user 1` for root."""
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    assert rune("start", "c").status == 0
    assert rune("exec", "--user", words, "c", "sh", "-c", "echo $(id -u) $(id -g)").out == f"{ids}\n"


@pytest.mark.parametrize("mount", ["bind", "sysfs"])
def test_cgroups_of_the_host_are_not_writable_below_its_sysfs(rune: Rune, bundle: Bundle, mount: str) -> None:
    """CVE-2023-25809: who maps the ids of a container may have a group of the host delegated."""
    group = Path("/sys/fs/cgroup/pids/inclavare-test") / f"{bundle.path.name}-{os.getpid()}-delegated"
    if not group.parents[1].is_dir():
        pytest.skip("needs the cgroup v1 controller pids")
    group.mkdir(parents=True)
    bundle.linux["namespaces"] = [entry for entry in bundle.linux["namespaces"] if entry["type"] != "network"]
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1000}]
    bundle.config["mounts"] = [
        entry for entry in bundle.config["mounts"] if not entry["destination"].startswith("/sys")
    ]
    options = ["nosuid", "noexec", "nodev", "ro", *(["rbind"] if mount == "bind" else [])]
    bundle.config["mounts"].append({"destination": "/sys", "type": mount, "source": "/sys", "options": options})
    bundle.shell(f"mkdir {group}/made 2>&1 || echo $$ 2>&1 > {group}/cgroup.procs")
    try:
        result = rune.run(bundle)
        assert "Read-only file system" in result.out, result.error
        assert result.status != 0
    finally:
        for path in (group / "made", group):
            with contextlib.suppress(FileNotFoundError):
                path.rmdir()


def test_annotations_for_other_runtimes_have_nothing_written(rune: Rune, bundle: Bundle) -> None:
    """CVE-2025-24965: crun's krun handler wrote a file of the rootfs that was a link to the host."""
    precious = bundle.path / "precious"
    precious.write_text("precious")
    for name in (".krun_config.json", ".krun_vm.json"):
        (bundle.path / "rootfs" / name).symlink_to(f"../../../../../../../../..{precious}")
    bundle.config["annotations"] = {"run.oci.handler": "krun"}
    rune.run(bundle)
    assert precious.read_text() == "precious"


def test_stdio_is_not_opened_again_in_the_container(rune: Rune, bundle: Bundle) -> None:
    """CVE-2026-88265: the image's /dev/null, a link to a file, became the container's stdio and changed its owner."""
    bundle.config["mounts"] = [
        entry for entry in bundle.config["mounts"] if not entry["destination"].startswith("/dev")
    ]
    shutil.rmtree(bundle.path / "rootfs/dev", ignore_errors=True)
    (bundle.path / "rootfs/dev").mkdir()
    (bundle.path / "rootfs/secret").write_text("secret")
    (bundle.path / "rootfs/dev/null").symlink_to("/secret")
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    assert rune.run(bundle).status == 1
    assert (bundle.path / "rootfs/secret").stat().st_uid == 0
    own = bundle.path / "own"
    own.mkdir()
    (own / "null").symlink_to("/secret")
    bundle.config["mounts"].insert(0, {"destination": "/dev", "type": "bind", "source": "own", "options": ["bind"]})
    bundle.shell("readlink /proc/self/fd/0; cat")
    result = rune.run(bundle)
    assert (result.status, result.out) == (0, "/dev/null\n"), result.error
    assert (bundle.path / "rootfs/secret").stat().st_uid == 0
