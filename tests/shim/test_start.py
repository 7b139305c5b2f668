"""`start`, `delete`, `-info` and `-v`, as each containerd calls them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from inclavare import __version__
from tests.conftest import CGROUP_PARENT
from tests.containerd_kit.containerd import VERSIONS, StartError, Task, runc_options, wait_until_gone
from tests.containerd_kit.ttrpc import TASK_V2, TASK_V3, Client
from tests.shim.conftest import SLEEP, Engine

AS_USER = """
import os, socket, sys
os.setgid(1000)
os.setuid(1000)
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.settimeout(5)
sys.exit(client.recv(1) != b"")
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_every_containerd_runs_a_container(rune_engine: Engine, version: str) -> None:
    # The other shim is of one version, and the oracle of the next test.
    rune_engine.become(version)
    task = rune_engine.run(["sh", "-c", "exit 3"])
    assert task.address is not None
    assert task.address.version == (3 if version == "2.3" else 2)
    assert task.wait() == 3
    task.delete()
    rune_engine.events.wait("TaskDelete", task.id)


@pytest.mark.parametrize("version", ["1.6", "1.7"])
def test_the_address_is_plain_and_in_the_bundle(engine: Engine, version: str) -> None:
    engine.become(version)
    task = engine.task()
    task.begin()
    assert task.address is not None
    address = task.address.path
    assert (task.bundle / "address").read_text() == f"unix://{address}"
    assert re.fullmatch(r"/run/containerd/s/[0-9a-f]{64}", address)
    assert stat.S_IMODE(os.stat(address).st_mode) == 0o600


def test_the_address_is_that_of_the_other_shim(engine: Engine) -> None:
    # So a containerd that was updated finds shims where it left them, whichever it was.
    from hashlib import sha256  # noqa: PLC0415

    task = engine.task(engine.bundle(SLEEP, "pod"))
    task.begin()
    assert task.address is not None
    words = f"{engine.containerd.grpc_address}/kit/pod"
    assert task.address.path == f"/run/containerd/s/{sha256(words.encode()).hexdigest()}"


def test_containerd_2_3_says_where_sockets_are(rune_engine: Engine) -> None:
    rune_engine.become("2.3")
    task = rune_engine.task()
    task.begin()
    assert task.address is not None
    assert task.address.path.startswith(f"{rune_engine.directory}/s/")


@pytest.mark.parametrize("service", [TASK_V2, TASK_V3])
def test_both_versions_of_the_service_are_served(rune_engine: Engine, service: str) -> None:
    task = rune_engine.run()
    assert task.address is not None
    client = Client(task.address.path, service)
    assert client.call("State", id=task.id).pid == task.pid
    client.close()


def test_options_are_not_taken_for_a_bootstrap_message(rune_engine: Engine) -> None:
    # Field 1 of both is text: only our own id and namespace make a difference.
    task = rune_engine.task(options=runc_options(root=str(rune_engine.state), io_uid=1))
    task.begin()
    assert task.address is not None
    assert task.address.version == 2


@pytest.mark.parametrize(
    "form",
    [
        lambda name, value: [f"-{name}={value}"],
        lambda name, value: [f"--{name}", value],
        lambda name, value: [f"--{name}={value}"],
    ],
)
def test_flags_are_gos_in_any_order(engine: Engine, form: Any) -> None:
    flags = {"id": "k", "address": engine.containerd.grpc_address, "publish-binary": "/bin/true", "namespace": "kit"}
    task = engine.task()
    words = [word for name, value in flags.items() for word in form(name, value if name != "id" else task.id)]
    environment = {**os.environ, "TTRPC_ADDRESS": engine.containerd.ttrpc_address}
    os.mkfifo(task.bundle / "log")
    log = os.open(task.bundle / "log", os.O_RDWR | os.O_NONBLOCK)
    done = subprocess.run(
        [engine.program, *words, "start"],
        cwd=task.bundle,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
        timeout=10,
    )
    path = done.stdout.decode().removeprefix("unix://")
    client = Client(path)
    pid = client.call("Connect", id=task.id).shim_pid
    with contextlib.suppress(ConnectionError):  # it may be gone before it answers
        client.call("Shutdown", id=task.id)
    client.close()
    wait_until_gone(pid)
    os.close(log)


@pytest.mark.parametrize(
    "words",
    [["start"], ["-id", "x", "start"], ["-no-such-flag", "start"], ["-namespace", "n", "-id", "i", "x"], []],
)
def test_a_command_line_that_is_none_is_refused(rune_engine: Engine, words: list[str]) -> None:
    done = subprocess.run([rune_engine.program, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(b"containerd-shim-rune-v2: ")
    assert not done.stdout


def test_the_version_is_told(rune_engine: Engine) -> None:
    for flag in ("-v", "-version", "--version"):
        done = subprocess.run([rune_engine.program, flag], capture_output=True, text=True, check=True)
        assert __version__ in done.stdout
        assert not done.stderr


def test_what_the_runtime_can_do_is_told(rune_engine: Engine) -> None:
    options = runc_options(root="/x")
    found = rune_engine.containerd.info(rune_engine.program, options)
    assert (found.name, found.version.version) == ("io.containerd.rune.v2", __version__)
    assert found.options == options
    assert found.features.type_url == "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
    features = json.loads(found.features.value)
    assert features["ociVersionMin"] == "1.0.0"
    assert "createRuntime" in features["hooks"]
    assert not rune_engine.containerd.info(rune_engine.program).HasField("options")


def test_a_bundle_without_a_configuration_starts_no_shim(rune_engine: Engine) -> None:
    # containerd's shim starts all the same.
    task = rune_engine.task()
    (task.bundle / "config.json").unlink()
    with pytest.raises(StartError, match=r"cannot read .*config\.json: No such file"):
        task.begin()
    assert not (task.bundle / "address").exists()


def test_a_shim_is_a_daemon_with_nothing_of_its_starter(rune_engine: Engine) -> None:
    # containerd's shim keeps its standard error, and is no session of its own.
    inherited, other = os.pipe()
    pipe = os.fstat(inherited).st_ino
    os.set_inheritable(inherited, True)
    try:
        task = rune_engine.task()
        task.begin()
    finally:
        os.close(inherited)
        os.close(other)
    process = Path(f"/proc/{task.shim_pid}")
    assert [os.readlink(process / f"fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
    assert f"pipe:[{pipe}]" not in {os.readlink(fd) for fd in (process / "fd").iterdir()}
    assert os.getsid(task.shim_pid) == task.shim_pid != os.getsid(0)
    assert os.readlink(process / "cwd") == "/"


def test_a_shim_dies_before_containerd_when_memory_is_short(engine: Engine) -> None:
    task = engine.task()
    task.begin()
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(Path(f"/proc/{task.shim_pid}/oom_score_adj").read_text()) == min(own + 1, 1000)


def test_other_users_are_not_served(rune_engine: Engine) -> None:
    # The other shim's socket is where we change no permissions.
    rune_engine.become("2.3")
    task = rune_engine.task()
    task.begin()
    assert task.address is not None
    address = Path(task.address.path)
    for place, mode in ((address, 0o666), (address.parent, 0o711), (rune_engine.directory, 0o711)):
        place.chmod(mode)
    done = subprocess.run([sys.executable, "-c", AS_USER, str(address)], check=False, timeout=10)
    assert done.returncode == 0
    assert "a connection of user 1000, group 1000 was refused" in task.log()
    assert task.rpc.call("Connect", id=task.id).shim_pid == task.shim_pid


def test_a_pod_has_one_shim(engine: Engine) -> None:
    tasks = [engine.task(engine.bundle(SLEEP, "pod")) for _ in range(3)]
    for task in tasks:
        task.begin()
    assert len({task.shim_pid for task in tasks}) == 1
    other = engine.task(engine.bundle(SLEEP, "other"))
    other.begin()
    assert other.shim_pid != tasks[0].shim_pid


def test_the_group_of_runc_comes_before_the_pod(engine: Engine) -> None:
    tasks = []
    for pod, group in (("a", "g"), ("b", "g"), ("g", None)):
        bundle = engine.bundle(SLEEP, pod)
        if group:
            bundle.config["annotations"]["io.containerd.runc.v2.group"] = group
        tasks.append(engine.task(bundle))
        tasks[-1].begin()
    assert len({task.shim_pid for task in tasks}) == 1


def test_starts_of_a_pod_at_once_are_one(rune_engine: Engine) -> None:
    # Two of containerd's may both find the socket taken by nobody, and one of them fails.
    tasks = [rune_engine.task(rune_engine.bundle(SLEEP, "pod")) for _ in range(12)]
    with ThreadPoolExecutor(len(tasks)) as pool:
        list(pool.map(Task.begin, tasks))
    assert len({task.shim_pid for task in tasks}) == 1


def test_the_socket_of_a_shim_that_died_is_taken_over(engine: Engine) -> None:
    task = engine.task()
    task.begin()
    os.kill(task.shim_pid, signal.SIGKILL)
    wait_until_gone(task.shim_pid)
    dead = task.shim_pid
    task.rpc.close()
    task.client = None
    task._close_log()
    task.begin()
    assert task.shim_pid != dead


def test_a_shim_joins_the_cgroup_of_its_options(rune_engine: Engine) -> None:
    # For containerd's shim somebody has to make it before.
    group = f"/{CGROUP_PARENT}/shim"
    rune_engine.options = runc_options(root=str(rune_engine.state), shim_cgroup=group)
    task = rune_engine.task()
    task.begin()
    lines = Path(f"/proc/{task.shim_pid}/cgroup").read_text().splitlines()
    assert f"memory:{group}" in {line.split(":", 1)[1] for line in lines}


def test_the_log_has_what_goes_wrong(rune_engine: Engine) -> None:
    task = rune_engine.task(["no-such-program"])
    task.begin()
    with contextlib.suppress(Exception):
        task.create()
    log = task.log()
    assert re.search(r"level=error msg=.*executable file not found", log)


def test_a_log_that_nobody_reads_stops_nothing(rune_engine: Engine) -> None:
    task = rune_engine.task(rune_engine.bundle(["no-such-program"]))
    task.begin()
    for _ in range(400):  # more than fits into the FIFO
        with contextlib.suppress(Exception):
            task.rpc.call("Checkpoint", id="nobody")
    task._close_log()
    for _ in range(5):
        with contextlib.suppress(Exception):
            task.create()
    assert task.rpc.call("Connect", id=task.id).shim_pid == task.shim_pid
    task._log = os.open(task.bundle / "log", os.O_RDWR | os.O_NONBLOCK)


def test_a_shim_ends_by_a_signal_and_leaves_its_containers(rune_engine: Engine) -> None:
    # containerd's shim ignores what would end it.
    task = rune_engine.run()
    os.kill(task.shim_pid, signal.SIGTERM)
    wait_until_gone(task.shim_pid)
    assert task.address is not None
    assert not Path(task.address.path).exists()
    assert Path(f"/proc/{task.pid}").exists()


def test_a_debugging_containerd_is_understood(engine: Engine) -> None:
    engine.containerd.debug = True
    task = engine.run(["true"])
    assert task.wait() == 0
    task.delete()


@pytest.mark.parametrize("version", ["2.0", "2.3"])
def test_a_sandboxs_shim_is_used_without_a_start(rune_engine: Engine, version: str) -> None:
    rune_engine.become(version)
    sandbox = rune_engine.run(rune_engine.bundle(SLEEP, "pod"))
    other = rune_engine.task(rune_engine.bundle(["true"], "pod"))
    other.begin(sandbox)
    assert other.shim_pid == sandbox.shim_pid
    other.create()
    other.start()
    assert other.wait() == 0


def test_many_start_at_once(rune_engine: Engine) -> None:
    tasks = [rune_engine.task(["true"]) for _ in range(10)]

    def live(task: Task) -> int:
        task.begin()
        task.create()
        task.start()
        status = task.wait()
        task.delete()
        return status

    with ThreadPoolExecutor(len(tasks)) as pool:
        assert list(pool.map(live, tasks)) == [0] * len(tasks)
    for task in tasks:
        rune_engine.events.wait("TaskDelete", task.id)
        assert rune_engine.events.names(task.id) == ["TaskCreate", "TaskStart", "TaskExit", "TaskDelete"]
