"""What a container cannot reach: rune's program, memory and descriptors; and the namespaces it shares when told to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel.conftest import Bundle, Rune


def test_what_waits_in_a_container_is_a_sealed_copy_without_the_planners_memory(rune: Rune, bundle: Bundle) -> None:
    """CVE-2019-5736: nothing of the host can be overwritten through /proc/PID/exe."""
    rune.create(bundle)
    pid = rune.state()["pid"]
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:rune-executor")
    with pytest.raises(OSError, match=r"Text file busy|Operation not permitted"):
        os.open(f"/proc/{pid}/exe", os.O_WRONLY)
    mapped = {line.split()[5] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if len(line.split()) > 5}
    assert {name for name in mapped if not name.startswith("[")} <= {
        "/memfd:rune-executor",
        "/memfd:rune-plan",
    }


def test_another_process_of_the_container_cannot_look_into_one_that_enters(rune: Rune, bundle: Bundle) -> None:
    """CVE-2016-9962: until its exec, an entering process is not dumpable."""
    rune.create(bundle)
    pid = rune.state()["pid"]
    assert Path(f"/proc/{pid}/mem").stat().st_uid == 0
    bundle_user = subprocess.run(
        ["setpriv", "--reuid", "1000", "--clear-groups", "ls", f"/proc/{pid}/fd"], capture_output=True, check=False
    )
    assert bundle_user.returncode != 0


def test_a_container_may_join_the_network_of_another(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle, "first")
    pid = rune.state("first")["pid"]
    for namespace in bundle.linux["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = f"/proc/{pid}/ns/net"
    bundle.linux["cgroupsPath"] += "-second"
    bundle.process["args"] = ["readlink", "/proc/self/ns/net"]
    result = rune.run(bundle, "second")
    assert result.out.strip() == os.readlink(f"/proc/{pid}/ns/net")


def test_a_namespace_path_that_does_not_exist_is_named(rune: Rune, bundle: Bundle) -> None:
    for namespace in bundle.linux["namespaces"]:
        if namespace["type"] == "ipc":
            namespace["path"] = "/proc/nowhere/ns/ipc"
    result = rune.run(bundle)
    assert result.status == 1
    assert "open the ipc namespace /proc/nowhere/ns/ipc: No such file or directory" in result.error
    assert rune.leftovers() == []


def test_without_a_pid_namespace_the_container_sees_the_hosts_processes(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["namespaces"] = [entry for entry in bundle.linux["namespaces"] if entry["type"] != "pid"]
    bundle.shell("test -d /proc/1/ns && echo $$")
    result = rune.run(bundle)
    assert int(result.out) > 1


def test_exec_enters_a_user_namespace(rune: Rune, bundle: Bundle) -> None:
    for directory, names, files in os.walk(bundle.path / "rootfs"):
        for name in [*names, *files]:
            os.lchown(os.path.join(directory, name), 100000, 100000)
    os.chown(bundle.path / "rootfs", 100000, 100000)
    for parent in (bundle.path, *bundle.path.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    assert rune("start", "c").status == 0
    result = rune("exec", "--user", "5:6", "c", "sh", "-c", "id -u; id -g; readlink /proc/self/ns/user")
    assert result.out.split() == ["5", "6", os.readlink(f"/proc/{rune.state()['pid']}/ns/user")]


def test_a_group_with_processes_is_refused_and_left_alone(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle, "first")
    second = rune.run(bundle, "second")
    assert second.status == 1
    assert "the container's cgroup is not empty" in second.error
    assert rune.state("first")["status"] == "created"
