"""Pods through containerd's Container Runtime Interface with the handler `rune`, as kubelet makes them.

They have the host's network, which here is the daemon's own namespace: no network plugin is needed.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import BUSYBOX, SKELETON
from tests.integration.containerd import Containerd
from tests.integration.cri import DEADLINE_EXCEEDED, EXITED, NODE, NOT_FOUND, RUNNING, Cri, CriError, pairs

GREETING = "Hello Inclavare Containers!"
SUCCESS = "Enclave runtime skeleton initialization succeeded"
MIB = 1 << 20


class Pod:
    """A pod, and the containers in it."""

    def __init__(self, containerd: Containerd, annotations: dict[str, str]) -> None:
        self.cri = Cri(containerd.socket)
        self.logs = containerd.directory / "logs"
        security = {"namespace_options": {"network": NODE}}
        self.config = {
            "metadata": {"name": "pod", "uid": "uid", "namespace": "tests"},
            "log_directory": str(self.logs),
            "annotations": pairs(annotations),
            "linux": {"cgroup_parent": containerd.cgroup_parent, "security_context": security},
        }
        self._security = security
        self.id = self.cri("RunPodSandbox", config=self.config, runtime_handler="rune")["id"]

    def create(self, name: str, *command: str, image: str = BUSYBOX, **more: Any) -> str:
        config = {
            "metadata": {"name": name},
            "image": {"image": image},
            "command": list(command),
            "log_path": f"{name}.log",
            "linux": {"security_context": self._security},
        }
        return str(self.cri("CreateContainer", pod=self.id, config=config | more, sandbox=self.config)["id"])

    def start(self, name: str, *command: str, **more: Any) -> str:
        container = self.create(name, *command, **more)
        self.cri("StartContainer", id=container)
        return container

    def status(self, container: str) -> dict[str, Any]:
        status: dict[str, Any] = self.cri("ContainerStatus", id=container)["status"]
        return {"state": 0, "exit_code": 0} | status  # as protobuf leaves out what is 0

    def wait_for(self, container: str, state: int) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while (status := self.status(container))["state"] != state:
            assert time.monotonic() < deadline, status
            time.sleep(0.02)
        return status

    def output(self, name: str, stream: str = "std(?:out|err)") -> list[str]:
        """Return the lines that a container wrote, from its log: "TIME STREAM F LINE"."""
        lines = (self.logs / f"{name}.log").read_text().splitlines()
        return [match[1] for line in lines if (match := re.fullmatch(rf"\S+ {stream} [FP] (.*)", line))]

    def exec(self, container: str, *command: str, timeout: int = 10) -> tuple[int, str, str]:
        done = self.cri("ExecSync", id=container, cmd=list(command), timeout=timeout)
        return done["exit_code"], done["stdout"].decode(), done["stderr"].decode()

    def remove(self) -> None:
        self.cri("StopPodSandbox", id=self.id)
        self.cri("RemovePodSandbox", id=self.id)

    def remove_patiently(self) -> None:
        """Remove the pod as kubelet does, which tries again: containerd may still be busy with the shim's end."""
        deadline = time.monotonic() + 20
        while True:
            try:
                self.remove()
            except CriError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            else:
                return


@pytest.fixture
def make_pod(containerd: Containerd) -> Iterator[Callable[..., Pod]]:
    wait_for_cri(containerd)
    yield lambda **annotations: Pod(containerd, annotations)
    wait_for_cri(containerd)
    cri = Cri(containerd.socket)
    for pod in cri("ListPodSandbox")["items"]:
        cri("StopPodSandbox", id=pod["id"])
        cri("RemovePodSandbox", id=pod["id"])


def wait_for_cri(containerd: Containerd) -> None:
    """Wait until the daemon serves pods, which it does a little later than tasks."""

    def serves() -> bool:
        try:
            return bool(Cri(containerd.socket)("ListPodSandbox"))
        except CriError:
            return False

    containerd.wait_until(serves)


@pytest.fixture
def pod(make_pod: Callable[..., Pod]) -> Pod:
    return make_pod()


def enclave_variables(native: Path) -> list[dict[str, str]]:
    return pairs(
        {
            "ENCLAVE_TYPE": "intelSgx",
            "ENCLAVE_RUNTIME_PATH": f"{native}/liberpal-skeleton-v3.so",
            "ENCLAVE_RUNTIME_ARGS": "debug",
        }
    )


def test_a_pod_of_three_containers_has_one_shim(containerd: Containerd, pod: Pod) -> None:
    containers = [pod.start(name, "sh", "-c", f"echo here is {name}; exec sleep 1000") for name in ("a", "b", "c")]
    assert len(containerd.shims()) == 1
    assert [pod.status(container)["state"] for container in containers] == [RUNNING] * 3
    containerd.wait_until(lambda: pod.output("c"))
    assert [pod.output(name) for name in ("a", "b", "c")] == [["here is a"], ["here is b"], ["here is c"]]
    pod.cri("StopContainer", id=containers[0], timeout=0)
    assert pod.status(containers[0])["exit_code"] == 137
    assert pod.exec(containers[1], "echo", "inside") == (0, "inside\n", "")
    pod.remove()
    assert not containerd.leftovers()


def test_exec_tells_status_and_outputs_and_is_ended_after_its_time(pod: Pod) -> None:
    container = pod.start("a", "sleep", "1000")
    assert pod.exec(container, "sh", "-c", "echo out; echo error >&2; exit 3") == (3, "out\n", "error\n")
    with pytest.raises(CriError) as caught:
        pod.exec(container, "sleep", "77", timeout=1)
    assert caught.value.code == DEADLINE_EXCEEDED
    assert "sleep 77" not in pod.exec(container, "ps")[1]
    with pytest.raises(CriError, match=r"executable file not found in \$PATH"):
        pod.exec(container, "no-such-program")


def test_a_program_that_does_not_exist_is_named(pod: Pod) -> None:
    container = pod.create("a", "no-such-program")
    with pytest.raises(CriError, match=r"executable file not found in \$PATH"):
        pod.cri("StartContainer", id=container)


def test_a_container_that_ends_by_itself_tells_why(pod: Pod) -> None:
    status = pod.wait_for(pod.start("a", "sh", "-c", "exit 4"), EXITED)
    assert (status["exit_code"], status["reason"]) == (4, "Error")
    assert pod.wait_for(pod.start("b", "true"), EXITED)["reason"] == "Completed"


def test_a_container_that_wants_too_much_memory_is_called_oomkilled(pod: Pod) -> None:
    linux = {
        "resources": {"memory_limit_in_bytes": 16 * MIB},
        "security_context": {"namespace_options": {"network": NODE}},
    }
    status = pod.wait_for(pod.start("a", "sh", "-c", "x=aaaaaaaa; while :; do x=$x$x; done", linux=linux), EXITED)
    assert (status["exit_code"], status["reason"]) == (137, "OOMKilled")


def test_stop_asks_before_it_kills(pod: Pod) -> None:
    polite = pod.start("a", "sh", "-c", "trap 'exit 5' TERM; echo ready; sleep 1000 & wait")
    deaf = pod.start("b", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    while not (pod.output("a") and pod.output("b")):
        time.sleep(0.02)
    pod.cri("StopContainer", id=polite, timeout=20)
    assert pod.status(polite)["exit_code"] == 5
    before = time.monotonic()
    pod.cri("StopContainer", id=deaf, timeout=1)
    assert 1 <= time.monotonic() - before < 5
    assert pod.status(deaf)["exit_code"] == 137


def test_what_a_container_uses_is_told_and_its_limits_change(pod: Pod) -> None:
    container = pod.start("a", "sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exec sleep 1000")
    stats = pod.cri("ContainerStats", id=container)["stats"]
    assert 0 < stats["memory"]["working_set_bytes"]["value"] < 64 * MIB
    assert stats["cpu"]["usage_core_nano_seconds"]["value"] > 0
    limits = {"memory_limit_in_bytes": 64 * MIB, "cpu_shares": 512, "cpu_quota": 50_000, "cpu_period": 100_000}
    pod.cri("UpdateContainerResources", id=container, linux=limits)
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null ||"
    script += " cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"
    assert pod.exec(container, "sh", "-c", script)[1].split()[:2] == [str(64 * MIB), "50000"]


def test_a_log_is_opened_anew_while_the_container_writes(pod: Pod) -> None:
    container = pod.start("a", "sh", "-c", "while :; do echo line; sleep 0.05; done")
    while not pod.output("a"):
        time.sleep(0.02)
    (pod.logs / "a.log").rename(pod.logs / "a.log.1")
    pod.cri("ReopenContainerLog", id=container)
    deadline = time.monotonic() + 10
    while not pod.output("a"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_containers_see_each_others_processes_where_the_pod_says_so(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod()
    shared = {"security_context": {"namespace_options": {"network": NODE, "pid": NODE}}}
    container = pod.start("a", "sh", "-c", "sleep 987 & exec sleep 1000", linux=shared)
    assert "sleep 987" in pod.exec(container, "ps")[1]
    pod.cri("StopContainer", id=container, timeout=0)
    assert pod.status(container)["exit_code"] == 137
    assert "sleep 987" not in pod.exec(pod.start("b", "sleep", "1000", linux=shared), "ps")[1]


def test_pods_outlive_a_crash_of_containerd_and_it_hears_of_what_ended_meanwhile(
    containerd: Containerd, pod: Pod
) -> None:
    lasting = pod.start("a", "sleep", "1000")
    ending = pod.start("b", "sh", "-c", "sleep 0.5; exit 6")
    containerd.kill()
    time.sleep(1)
    containerd.start()
    wait_for_cri(containerd)
    assert pod.status(lasting)["state"] == RUNNING
    assert pod.exec(lasting, "echo", "inside") == (0, "inside\n", "")
    status = pod.wait_for(ending, EXITED)
    assert (status["exit_code"], status["reason"]) == (6, "Error")
    pod.remove()
    assert not containerd.leftovers()


def test_a_killed_shim_ends_its_pod_and_leaves_nothing(containerd: Containerd, pod: Pod) -> None:
    containers = [pod.start(name, "sleep", "1000") for name in ("a", "b")]
    (shim,) = containerd.shims()
    os.kill(shim, signal.SIGKILL)
    for container in containers:
        # 255 is what containerd says itself where it has asked the shim, and got no answer.
        assert pod.wait_for(container, EXITED)["exit_code"] in (137, 255)
    pod.remove_patiently()
    assert not containerd.leftovers()


def test_a_pod_that_is_gone_is_not_found(pod: Pod) -> None:
    pod.remove()
    with pytest.raises(CriError) as caught:
        pod.cri("PodSandboxStatus", id=pod.id)
    assert caught.value.code == NOT_FOUND


# --- enclaves -------------------------------------------------------------------------------------------------------


def test_an_enclave_container_and_plain_ones_in_a_pod(containerd: Containerd, pod: Pod, native: Path) -> None:
    pod.start("plain", "sleep", "1000")
    words = ("skeleton", "wait_timeout", "100")
    enclave = pod.start("enclave", *words, image=SKELETON, envs=enclave_variables(native))
    once = pod.start("once", "skeleton", image=SKELETON, envs=enclave_variables(native))
    assert len(containerd.shims()) == 1
    assert pod.wait_for(once, EXITED)["exit_code"] == 0
    assert {GREETING, SUCCESS, "platform: emulated"} <= set(pod.output("once"))
    assert {GREETING, "platform: emulated"} <= set(pod.output("enclave"))
    status, out, error = pod.exec(enclave, "skeleton")
    assert status == 0
    assert SUCCESS in out + error
    pod.cri("StopContainer", id=enclave, timeout=10)
    assert pod.status(enclave)["exit_code"] == 143


def test_a_pods_annotations_make_its_containers_enclaves_and_not_the_pod_itself(
    make_pod: Callable[..., Pod], native: Path
) -> None:
    annotations = {"enclave.type": "intelSgx", "enclave.runtime.path": f"{native}/liberpal-skeleton-v3.so"}
    pod = make_pod(**annotations)
    assert pod.wait_for(pod.start("enclave", image=SKELETON), EXITED)["exit_code"] == 0
    assert {GREETING, SUCCESS} <= set(pod.output("enclave"))


def test_a_containers_annotations_make_it_an_enclave(pod: Pod, native: Path) -> None:
    annotations = {"enclave.type": "intelSgx", "enclave.runtime.path": f"{native}/liberpal-skeleton-v3.so"}
    container = pod.start("enclave", image=SKELETON, annotations=pairs(annotations))
    assert pod.wait_for(container, EXITED)["exit_code"] == 0
    assert {GREETING, SUCCESS} <= set(pod.output("enclave"))


def test_an_enclave_that_cannot_be_is_refused_with_its_reason(pod: Pod) -> None:
    variables = pairs({"ENCLAVE_TYPE": "intelSgx", "ENCLAVE_RUNTIME_PATH": "/no/such.so"})
    container = pod.create("enclave", image=SKELETON, envs=variables)
    with pytest.raises(CriError, match=r"stat /no/such\.so: no such file or directory"):
        pod.cri("StartContainer", id=container)
