"""What scripts and engines ask of a runtime now and then: descriptors, environments, groups, devices in odd places."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from inclavare.linux.cgroups import paths_for, read_layout
from tests.kernel.conftest import Bundle, Rune


@pytest.fixture
def running(rune: Rune, bundle: Bundle) -> Bundle:
    bundle.shell("sleep 100")
    rune.create(bundle)
    assert rune("start", "c").status == 0
    return bundle


def test_a_container_that_is_being_made_never_seems_to_have_stopped(rune: Rune, bundle: Bundle) -> None:
    bundle.write()
    for _ in range(5):
        with subprocess.Popen(
            rune.command("create", "--bundle", bundle.path, "c"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as create:
            seen = set()
            while "created" not in seen:
                answer = rune("state", "c")
                if answer.status == 0:
                    seen.add(rune.state()["status"])
            assert create.wait() == 0
        assert seen <= {"creating", "created"}
        assert rune("delete", "--force", "c").status == 0


@pytest.mark.parametrize("count", ["1", "100"])
def test_more_descriptors_may_be_passed_on_than_are_open(rune: Rune, bundle: Bundle, count: str) -> None:
    bundle.shell("readlink /proc/self/fd/3")
    words = " ".join(rune.command("run", "--preserve-fds", count, "--bundle", bundle.write(), "c"))
    done = subprocess.run(["sh", "-c", f"exec {words} 3</etc/passwd"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "/etc/passwd\n"), done.stderr


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ("LISTEN_FDS=1 LISTEN_PID=$$", "1 1\n/etc/passwd\n"),
        ("LISTEN_FDS=1", "1 1\n/etc/passwd\n"),
        ("LISTEN_FDS=1 LISTEN_PID=1", "\n"),
        ("LISTEN_FDS=x", "\n"),
    ],
)
def test_sockets_of_the_starter_are_the_containers(rune: Rune, bundle: Bundle, variables: str, told: str) -> None:
    bundle.shell("echo $LISTEN_FDS $LISTEN_PID; readlink /proc/self/fd/3; true")
    words = " ".join(rune.command("run", "--bundle", bundle.write(), "c"))
    script = f"{variables} exec {words} 3</etc/passwd"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == told, done.stderr


def test_the_last_of_two_variables_counts(rune: Rune, running: Bundle) -> None:
    running.process["env"] = ["PATH=/bin", "A=1", "B=2", "A=3"]
    assert rune("delete", "--force", "c").status == 0
    running.shell("env | grep -c ^A=; echo $A $B")
    assert rune.run(running).out == "1\n3 2\n"


def test_exec_replaces_variables_of_the_container(rune: Rune, running: Bundle) -> None:
    del running
    assert rune("exec", "--env", "PATH=/usr/bin:/bin", "c", "sh", "-c", "echo $PATH").out == "/usr/bin:/bin\n"
    assert rune("exec", "--env", "X=1", "c", "sh", "-c", "echo $PATH$X").out.endswith("/bin1\n")


def test_exec_knows_capabilities_by_name(rune: Rune, running: Bundle) -> None:
    del running
    done = rune("exec", "--cap", "CAP_UNKNOWN", "c", "true")
    assert done.status == 255
    assert "'CAP_UNKNOWN' is no capability" in done.error


def test_the_groups_of_the_caller_are_kept_when_asked_for(rune: Rune, running: Bundle, tmp_path: Path) -> None:
    assert rune("delete", "--force", "c").status == 0
    running.process["args"] = ["sleep", "60"]
    running.process["user"] = {"uid": 1, "gid": 1, "additionalGids": [7]}
    process = tmp_path / "process.json"
    process.write_text(json.dumps(running.process | {"args": ["id", "-G"]}))
    for kept, groups in (("1", "1 41 42\n"), ("0", "1 7\n")):
        running.config["annotations"] = {"run.oci.keep_original_groups": kept}
        rune.create(running, extra_groups=[41, 42])
        assert rune("start", "c").status == 0
        assert rune("exec", "c", "grep", "Groups", "/proc/1/status").out.split()[1:] == groups.split()[1:]
        assert rune("exec", "c", "id", "-G", extra_groups=[41, 42]).out == groups
        assert rune("exec", "--process", process, "c", extra_groups=[41, 42]).out == groups
        assert rune("delete", "--force", "c").status == 0


def test_files_as_stdio_become_the_users(rune: Rune, running: Bundle) -> None:
    assert rune("delete", "--force", "c").status == 0
    running.process["args"] = ["true"]
    running.process["user"] = {"uid": 11, "gid": 12}
    rune.create(running)
    status = (rune.directory / "out").stat()
    assert (status.st_uid, status.st_gid) == (11, 12)
    null = Path("/dev/null").stat()
    assert (null.st_uid, null.st_gid) == (0, 0)


def test_exec_joins_a_group_below_the_containers(rune: Rune, running: Bundle) -> None:
    path = Path(next(iter(paths_for(read_layout(), running.linux["cgroupsPath"], "c").values())))
    (path / "inner/most").mkdir(parents=True)
    groups = rune("exec", "--cgroup", "inner/most", "c", "cat", "/proc/self/cgroup").out
    assert "/inner/most" in groups
    for name, message in (("../x", "`..` components are not allowed"), ("absent", "there is no ")):
        refused = rune("exec", "--cgroup", name, "c", "true")
        assert refused.status == 255
        assert message in refused.error


def test_devices_may_lie_anywhere(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["devices"] = [
        {"path": "/zero", "type": "c", "major": 1, "minor": 5},
        {"path": "/new/place/zero/", "type": "c", "major": 1, "minor": 5},
    ]
    bundle.shell("head -c 3 /zero | wc -c; head -c 4 /new/place/zero | wc -c")
    assert rune.run(bundle).out == "3\n4\n"


def test_a_sysctl_may_repeat_a_name_of_the_configuration(rune: Rune, bundle: Bundle) -> None:
    bundle.config["domainname"] = "example"
    bundle.linux["sysctl"] = {"kernel.domainname": "example"}
    bundle.shell("cat /proc/sys/kernel/domainname")
    assert rune.run(bundle).out == "example\n"
    bundle.linux["sysctl"] = {"kernel.domainname": "another"}
    assert 'conflicts with the field "domainname"' in rune.run(bundle).error


@pytest.mark.skipif(read_layout().is_v2, reason="only cgroup v1 keeps the frozen from dying")
def test_a_container_that_was_frozen_elsewhere_is_deleted_by_force(rune: Rune, running: Bundle) -> None:
    del running
    freezer = next(one for name, one in read_layout().hierarchies.items() if "freezer" in name.split(","))
    elsewhere = Path(freezer.mount_point) / f"inclavare-test-frozen-{os.getpid()}"
    elsewhere.mkdir()
    try:
        (elsewhere / "tasks").write_text(str(rune.state()["pid"]))
        (elsewhere / "freezer.state").write_text("FROZEN")
        done = rune("delete", "--force", "c")
        assert (done.status, done.error) == (0, "")
    finally:
        (elsewhere / "freezer.state").write_text("THAWED")
        time.sleep(0.05)
        elsewhere.rmdir()


def test_containers_are_deleted_by_expression(rune: Rune, bundle: Bundle) -> None:
    bundle.shell("true")
    for name in ("one-1", "one-2", "two-1"):
        bundle.linux["cgroupsPath"] = f"/inclavare-test/{bundle.path.name}-{os.getpid()}-{name}"
        rune.create(bundle, name)
    assert rune("delete", "--force", "--regex", "^one-.*").status == 0
    assert rune("list", "--quiet").out.split() == ["two-1"]
    refused = rune("delete", "--force", "--regex", "(")
    assert refused.status == 1
    assert "'(' is no regular expression" in refused.error
