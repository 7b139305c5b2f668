"""`rune run` of ordinary containers: what the program sees, and how rune ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest

from tests.kernel.conftest import Bundle, Rune


@pytest.mark.parametrize("status", [0, 1, 7, 126, 255])
def test_run_ends_with_the_status_of_the_program(rune: Rune, bundle: Bundle, status: int) -> None:
    bundle.shell(f"exit {status}")
    assert rune.run(bundle).status == status


def test_a_program_killed_by_a_signal_gives_128_and_the_signal(rune: Rune, bundle: Bundle) -> None:
    bundle.shell("sh -c 'kill -9 $$'; exit $?")
    assert rune.run(bundle).status == 137


def test_stdio_is_passed_through(rune: Rune, bundle: Bundle) -> None:
    bundle.shell("cat; echo to stderr >&2")
    done = subprocess.run(
        rune.command("run", "--bundle", bundle.write(), "c"), input=b"in\0put", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"in\0put", b"to stderr\n")


def test_run_leaves_nothing_behind(rune: Rune, bundle: Bundle) -> None:
    assert rune.run(bundle).status == 0
    assert rune.leftovers() == []


def test_the_container_has_namespaces_of_its_own(rune: Rune, bundle: Bundle) -> None:
    bundle.config["linux"]["namespaces"].append({"type": "cgroup"})
    bundle.shell("for n in pid mnt uts ipc net cgroup; do readlink /proc/self/ns/$n; done")
    inside = rune.run(bundle).out.split()
    outside = [os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "mnt", "uts", "ipc", "net", "cgroup")]
    assert len(inside) == 6
    assert not set(inside) & set(outside)


def test_a_user_namespace_maps_root_to_another_user(rune: Rune, bundle: Bundle) -> None:
    for directory, names, files in os.walk(bundle.path / "rootfs"):
        for name in [*names, *files]:
            os.lchown(os.path.join(directory, name), 100000, 100000)
    os.chown(bundle.path / "rootfs", 100000, 100000)
    bundle.path.chmod(0o755)
    for parent in bundle.path.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.shell("id -u; cat /proc/self/uid_map; echo x > /file; test -c /dev/null && echo y > /dev/null")
    result = rune.run(bundle)
    assert (result.status, result.error) == (0, "")
    assert result.out.split() == ["0", "0", "100000", "65536"]
    assert (bundle.path / "rootfs/file").stat().st_uid == 100000


def test_the_hostname_is_set(rune: Rune, bundle: Bundle) -> None:
    bundle.config["hostname"] = "inner"
    bundle.shell("hostname")
    assert rune.run(bundle).out == "inner\n"


def test_environment_and_home_come_from_the_spec_and_passwd(rune: Rune, bundle: Bundle) -> None:
    bundle.process["env"] = ["PATH=/bin", "A=1 2", "EMPTY="]
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["args"] = ["env"]
    assert set(rune.run(bundle).out.split("\n")[:-1]) == {"PATH=/bin", "A=1 2", "EMPTY=", "HOME=/home/user"}


def test_an_unknown_user_has_the_root_directory_as_home(rune: Rune, bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 4242, "gid": 1}
    bundle.shell("echo $HOME")
    assert rune.run(bundle).out == "/\n"


def test_user_groups_and_umask_are_set(rune: Rune, bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o77}
    bundle.shell("id -u; id -g; id -G; umask")
    assert rune.run(bundle).out.split() == ["1000", "1001", "1001", "5", "6", "0077"]


def test_capabilities_are_exactly_those_listed(rune: Rune, bundle: Bundle) -> None:
    bundle.process["capabilities"] = {
        name: ["CAP_KILL", "CAP_CHOWN"] for name in ("bounding", "effective", "permitted")
    }
    bundle.process["args"] = ["grep", "Cap", "/proc/self/status"]
    lines = dict(line.split(":\t") for line in rune.run(bundle).out.splitlines())
    assert {name: int(value, 16) for name, value in lines.items()} == {
        "CapInh": 0,
        "CapPrm": 0x21,
        "CapEff": 0x21,
        "CapBnd": 0x21,
        "CapAmb": 0,
    }


def test_ambient_capabilities_survive_for_another_user(rune: Rune, bundle: Bundle) -> None:
    sets = ("bounding", "effective", "permitted", "inheritable", "ambient")
    bundle.process["capabilities"] = {name: ["CAP_NET_RAW"] for name in sets}
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["args"] = ["grep", "Cap", "/proc/self/status"]
    values = [int(line.split("\t")[1], 16) for line in rune.run(bundle).out.splitlines()]
    assert values == [1 << 13] * 5


@pytest.mark.parametrize("missing", ["permitted", "inheritable"])
def test_ambient_capabilities_are_left_out_that_the_kernel_gives_to_nobody(
    rune: Rune, bundle: Bundle, missing: str
) -> None:
    sets = {name: ["CAP_NET_RAW"] for name in ("bounding", "permitted", "inheritable", "ambient") if name != missing}
    bundle.process["capabilities"] = sets
    bundle.process["args"] = ["grep", "CapAmb", "/proc/self/status"]
    assert rune.run(bundle).out == f"CapAmb:\t{0:016x}\n"


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges_is_set_as_asked(rune: Rune, bundle: Bundle, wanted: bool) -> None:
    bundle.process["noNewPrivileges"] = wanted
    bundle.process["args"] = ["grep", "NoNewPrivs", "/proc/self/status"]
    assert rune.run(bundle).out == f"NoNewPrivs:\t{int(wanted)}\n"


def test_rlimits_are_set(rune: Rune, bundle: Bundle) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    bundle.process["args"] = ["grep", "open files", "/proc/self/limits"]
    assert rune.run(bundle).out.split()[3:5] == ["100", "200"]


def test_a_read_only_root_cannot_be_written(rune: Rune, bundle: Bundle) -> None:
    bundle.config["root"]["readonly"] = True
    bundle.shell("echo x > /file")
    result = rune.run(bundle)
    assert result.status != 0
    assert "Read-only file system" in result.error


def test_masked_paths_are_empty_and_read_only_paths_refuse_writes(rune: Rune, bundle: Bundle) -> None:
    (bundle.path / "rootfs/secret").write_text("secret")
    (bundle.path / "rootfs/hidden").mkdir()
    (bundle.path / "rootfs/hidden/file").write_text("secret")
    (bundle.path / "rootfs/fixed").mkdir()
    bundle.linux["maskedPaths"] = ["/secret", "/hidden", "/absent"]
    bundle.linux["readonlyPaths"] = ["/fixed", "/absent"]
    bundle.shell(
        "cat /secret; ls /hidden; touch /fixed/x 2>&1; echo 1 > /proc/sys/kernel/hostname; touch /ok && echo done"
    )
    result = rune.run(bundle)
    assert result.out == "touch: /fixed/x: Read-only file system\ndone\n"


def test_default_devices_exist_and_work(rune: Rune, bundle: Bundle) -> None:
    bundle.shell(
        "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done;"
        "head -c 4 /dev/zero | wc -c; for l in fd stdin ptmx; do readlink /dev/$l; done; stat -c %a /dev/null"
    )
    assert rune.run(bundle).out.split() == ["4", "/proc/self/fd", "/proc/self/fd/0", "pts/ptmx", "666"]


def test_devices_of_the_spec_are_made(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["devices"] = [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4},
        {"path": "/dev/sub/fifo", "type": "p", "fileMode": 0o600},
    ]
    bundle.shell("stat -c '%t:%T %a %u:%g' /dev/mine; test -p /dev/sub/fifo && echo fifo")
    assert rune.run(bundle).out == "1:5 640 3:4\nfifo\n"


def test_bind_mounts_keep_their_options(rune: Rune, bundle: Bundle) -> None:
    source = bundle.path / "source"
    source.mkdir()
    (source / "file").write_text("content")
    mounts = bundle.config["mounts"]
    mounts.append({"destination": "/a/b", "type": "bind", "source": str(source), "options": ["bind", "ro", "noexec"]})
    mounts.append({"destination": "/file", "type": "bind", "source": "source/file", "options": ["rbind", "rprivate"]})
    bundle.shell("cat /a/b/file /file; touch /a/b/x 2>&1; echo new > /file; grep ' /a/b ' /proc/mounts")
    out = rune.run(bundle).out
    assert out.startswith("contentcontenttouch: /a/b/x: Read-only file system\n")
    assert "ro,noexec" in out.splitlines()[-1]
    assert (source / "file").read_text() == "new\n"


def test_a_symlink_in_the_image_cannot_lead_a_mount_out_of_it(rune: Rune, bundle: Bundle) -> None:
    outside = bundle.path / "outside"
    outside.mkdir()
    (bundle.path / "rootfs/link").symlink_to(outside)
    bundle.config["mounts"].append({"destination": "/link/x", "type": "tmpfs", "source": "tmpfs"})
    assert rune.run(bundle).status == 1  # the link's target does not exist inside
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("path", ["proc", "sys"])
def test_proc_and_sys_must_not_be_symlinks(rune: Rune, bundle: Bundle, path: str) -> None:
    (bundle.path / "rootfs/elsewhere").mkdir()
    (bundle.path / f"rootfs/{path}").symlink_to("elsewhere")
    result = rune.run(bundle)
    assert result.status == 1
    assert f"check that /{path} is a directory" in result.error


def test_the_working_directory_is_made_and_entered(rune: Rune, bundle: Bundle) -> None:
    bundle.process["cwd"] = "/some/where"
    bundle.process["args"] = ["pwd"]
    assert rune.run(bundle).out == "/some/where\n"


def test_a_working_directory_outside_of_the_root_is_refused(rune: Rune, bundle: Bundle) -> None:
    """CVE-2024-21626: a leaked descriptor of a host's directory as cwd."""
    descriptor = os.open("/", os.O_RDONLY)
    try:
        bundle.process["cwd"] = f"/proc/self/fd/{descriptor}"
        result = rune.run(bundle, pass_fds=[descriptor])
    finally:
        os.close(descriptor)
    assert result.status == 1


def test_no_descriptor_of_rune_reaches_the_program(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["ls", "/proc/self/fd"]
    reader, writer = os.pipe()
    try:
        out = rune.run(bundle, pass_fds=[reader, writer]).out.split()
    finally:
        os.close(reader)
        os.close(writer)
    assert out == ["0", "1", "2", "3"]  # 3 is ls's own


def test_preserved_descriptors_reach_the_program(rune: Rune, bundle: Bundle) -> None:
    bundle.shell("echo hello >&3")
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            [
                "bash",
                "-c",
                f'exec "$@" 3>&{writer}',
                "bash",
                *rune.command("run", "--preserve-fds", "1", "--bundle", bundle.write(), "c"),
            ],
            pass_fds=[writer],
            check=False,
            capture_output=True,
        )
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, b"")
        assert os.read(reader, 100) == b"hello\n"
    finally:
        os.close(reader)


def test_the_loopback_device_is_up(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["ip", "address", "show", "lo"]
    assert "LOOPBACK,UP" in rune.run(bundle).out


def test_sysctl_and_oom_score_are_set(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}
    bundle.linux["readonlyPaths"] = []
    bundle.process["oomScoreAdj"] = 100
    bundle.shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced /proc/self/oom_score_adj")
    assert rune.run(bundle).out.split() == ["1", "1", "100"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], 'exec: "nowhere": executable file not found in $PATH'),
        (["/bin/nowhere"], 'exec: "/bin/nowhere": stat /bin/nowhere: no such file or directory'),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied'),
        (["/etc"], 'exec: "/etc": permission denied'),
    ],
)
def test_a_program_that_cannot_be_executed_is_named(rune: Rune, bundle: Bundle, args: list[str], message: str) -> None:
    bundle.process["args"] = args
    result = rune.run(bundle)
    assert result.status == 1
    assert message in result.error
    assert rune.leftovers() == []


def test_a_file_that_is_no_program_is_named(rune: Rune, bundle: Bundle) -> None:
    (bundle.path / "rootfs/bin/text").write_text("no program")
    (bundle.path / "rootfs/bin/text").chmod(0o755)
    bundle.process["args"] = ["text"]
    result = rune.run(bundle)
    assert result.status == 1
    assert 'cannot execute "text": Exec format error' in result.error


def test_signals_to_a_foreground_run_reach_the_program(rune: Rune, bundle: Bundle) -> None:
    bundle.shell("trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.05; done")
    child = subprocess.Popen(rune.command("run", "--bundle", bundle.write(), "c"), stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGUSR1)
    assert child.communicate(timeout=20)[0] == b"got it\n"
    assert child.returncode == 3


def test_a_detached_run_writes_the_pid_and_goes_on(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "60"]
    pid_file = bundle.path / "pid"
    done = subprocess.run(
        rune.command("run", "--detach", "--pid-file", pid_file, "--bundle", bundle.write(), "c"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0
    state = rune.state()
    assert state["status"] == "running"
    assert pid_file.read_text() == str(state["pid"])
    time.sleep(0.1)
    assert rune.state()["status"] == "running"  # it did not die with the command


def test_log_lines_are_what_engines_read(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["nowhere"]
    log = bundle.path / "log.json"
    program, *words = rune.command("run", "--bundle", bundle.write(), "c")
    done = subprocess.run([program, "--log", log, "--log-format", "json", *words], capture_output=True, check=False)
    assert done.returncode == 1
    line = json.loads(log.read_text().splitlines()[-1])
    assert line["level"] == "error"
    assert "executable file not found in $PATH" in line["msg"]
    assert line["time"].endswith("Z")


def test_rootless_is_true_false_or_auto(rune: Rune) -> None:
    program, *words = rune.command("list")
    for value, status in (("true", 0), ("false", 0), ("auto", 0), ("maybe", 1)):
        done = subprocess.run([program, f"--rootless={value}", *words], capture_output=True, text=True, check=False)
        assert done.returncode == status
    assert "invalid --rootless: 'maybe'" in done.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [(["noatime"], "noatime"), (["strictatime"], ""), (["noatime", "atime"], "relatime"), (["relatime"], "relatime")],
)
def test_bind_mounts_take_access_time_options(rune: Rune, bundle: Bundle, options: list[str], word: str) -> None:
    (bundle.path / "source").mkdir()
    mount = {"destination": "/a", "type": "bind", "source": "source", "options": ["bind", *options]}
    bundle.config["mounts"].append(mount)
    bundle.process["args"] = ["grep", " /a ", "/proc/mounts"]
    result = rune.run(bundle)
    assert (result.status, result.error) == (0, "")
    seen = {option for option in result.out.split()[3].split(",") if option.endswith("atime")}
    assert seen == ({word} if word else set())


@pytest.mark.parametrize("option", ["--config", "-f"])
def test_another_file_is_read_in_place_of_config_json_from_the_bundle_on(
    rune: Rune, bundle: Bundle, option: str
) -> None:
    bundle.shell("echo other")
    bundle.write()
    (bundle.path / "config.json").rename(bundle.path / "other.json")
    assert rune("run", option, "other.json", "--bundle", bundle.path, "c").out == "other\n"
    absolute = bundle.path.parent / "absolute.json"
    (bundle.path / "other.json").rename(absolute)
    assert rune("run", option, absolute, "--bundle", bundle.path, "c").out == "other\n"
    result = rune("run", option, "other.json", "--bundle", bundle.path, "c")
    assert f"cannot read {bundle.path}/other.json: No such file or directory" in result.error
