"""Ordinary containers under Docker: what a user of `docker run --runtime=rune` relies on, and gets from runc too."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import Docker


@pytest.fixture(params=["runc", "rune"])
def runtime(request: pytest.FixtureRequest) -> str:
    return f"--runtime={request.param}"


def test_docker_lists_the_runtime(docker: Docker) -> None:
    assert "rune" in docker.ok("info", "--format", "{{json .Runtimes}}")


def test_what_every_test_looks_for_at_its_end_can_be_found(docker: Docker, runtime: str) -> None:
    docker.ok("run", "--detach", runtime, "busybox", "sleep", "100")
    assert {left.split()[0] for left in docker.leftovers()} == {"state", "cgroup", "mount", "process"}


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_run_exits_with_the_programs_status(docker: Docker, runtime: str, status: int) -> None:
    assert docker("run", "--rm", runtime, "busybox", "sh", "-c", f"exit {status}").returncode == status


def test_a_signal_shows_in_the_status(docker: Docker, runtime: str) -> None:
    script = "sh -c 'kill -9 $$'; exit $?"  # not as process 1, which the signal would not end
    assert docker("run", "--rm", runtime, "busybox", "sh", "-c", script).returncode == 137


def test_a_program_that_does_not_exist_is_status_127(docker: Docker, runtime: str) -> None:
    done = docker("run", "--rm", runtime, "busybox", "no-such-program")
    assert done.returncode == 127
    assert "executable file not found in $PATH" in done.stderr


def test_a_program_that_may_not_run_is_status_126(docker: Docker, runtime: str) -> None:
    done = docker("run", "--rm", runtime, "busybox", "/etc/passwd")
    assert done.returncode == 126
    assert "permission denied" in done.stderr


def test_output_and_errors_stay_apart(docker: Docker, runtime: str) -> None:
    done = docker("run", "--rm", runtime, "busybox", "sh", "-c", "echo out; echo error >&2")
    assert (done.stdout, done.stderr) == ("out\n", "error\n")


def test_input_reaches_the_program(docker: Docker, runtime: str) -> None:
    assert docker.ok("run", "--rm", "--interactive", runtime, "busybox", "wc", "-c", input="x" * 100_000) == "100000"


def test_environment_hostname_and_working_directory(docker: Docker, runtime: str) -> None:
    words = ["run", "--rm", runtime, "--env=A=b c", "--hostname=h", "--workdir=/new", "busybox"]
    assert docker.ok(*words, "sh", "-c", 'echo "$A"; hostname; pwd') == "b c\nh\n/new"


def test_run_on_a_terminal(docker: Docker, runtime: str) -> None:
    script = "tty; read line; echo got $line; exit 3"
    status, shown = docker.terminal("run", "-it", "--rm", runtime, "busybox", "sh", "-c", script, typed="text\n")
    assert status == 3
    assert "/dev/pts/0" in shown
    assert "got text" in shown


def test_exec(docker: Docker, runtime: str) -> None:
    container = docker.ok("run", "--detach", runtime, "busybox", "sleep", "100")
    done = docker("exec", "--env=A=b", container, "sh", "-c", "echo $A; echo error >&2; exit 5")
    assert (done.returncode, done.stdout, done.stderr) == (5, "b\n", "error\n")
    status, shown = docker.terminal("exec", "-it", container, "sh", "-c", "tty; read a; exit $a", typed="6\n")
    assert status == 6
    assert "/dev/pts/" in shown


def test_exec_as_another_user_in_another_directory(docker: Docker, runtime: str) -> None:
    container = docker.ok("run", "--detach", runtime, "busybox", "sleep", "100")
    shown = docker.ok("exec", "--user=user", "--workdir=/tmp", container, "sh", "-c", "id -un; pwd")
    assert shown == "user\n/tmp"


def test_stop_sends_term(docker: Docker, runtime: str) -> None:
    script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    container = docker.ok("run", "--detach", runtime, "busybox", "sh", "-c", script)
    _wait_for_output(docker, container, "ready")
    docker.ok("stop", container)
    assert docker.ok("wait", container) == "9"
    assert docker.ok("logs", container) == "ready\nbye"


def test_stop_kills_what_does_not_end(docker: Docker, runtime: str) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    container = docker.ok("run", "--detach", runtime, "busybox", "sh", "-c", script)
    _wait_for_output(docker, container, "ready")
    docker.ok("stop", "--time=1", container)
    assert docker.ok("wait", container) == "137"


def test_kill_sends_the_signal(docker: Docker, runtime: str) -> None:
    script = "trap 'exit 4' USR1; echo ready; while :; do sleep 0.1; done"
    container = docker.ok("run", "--detach", runtime, "busybox", "sh", "-c", script)
    _wait_for_output(docker, container, "ready")
    docker.ok("kill", "--signal=USR1", container)
    assert docker.ok("wait", container) == "4"


def test_a_container_restarts_with_its_files(docker: Docker, runtime: str) -> None:
    container = docker.ok("create", runtime, "busybox", "sh", "-c", "echo x >>/seen; cat /seen")
    docker.ok("start", "--attach", container)
    assert docker.ok("start", "--attach", container) == "x\nx"
    docker.ok("restart", container)
    docker.ok("wait", container)
    docker.ok("rm", container)
    assert docker("inspect", container).returncode == 1


def test_limits_of_memory_cpu_and_processes(docker: Docker, runtime: str) -> None:
    limits = ["--memory=64m", "--cpus=0.5", "--pids-limit=33"]
    container = docker.ok("run", "--detach", runtime, *limits, "busybox", "sleep", "100")
    script = (
        "cd /sys/fs/cgroup; if [ -e cgroup.controllers ]; then cat memory.max cpu.max pids.max;"
        " else cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us pids/pids.max; fi"
    )
    assert docker.ok("exec", container, "sh", "-c", script).split() == ["67108864", "50000", "100000", "33"]


def test_out_of_memory_is_status_137(docker: Docker, runtime: str) -> None:
    limits = ["--memory=16m", "--memory-swap=16m"]
    done = docker("run", runtime, *limits, "busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    assert done.returncode == 137, done.stderr


def test_a_read_only_root_with_a_writable_tmpfs(docker: Docker, runtime: str) -> None:
    script = "touch /x && exit 1; touch /tmp/x && mount | grep ' / ' | grep -c '[(,]ro[,)]'"
    shown = docker.ok("run", "--rm", runtime, "--read-only", "--tmpfs=/tmp", "busybox", "sh", "-c", script)
    assert shown == "1"


def test_a_volume_keeps_its_files(docker: Docker, runtime: str) -> None:
    words = ["run", "--rm", runtime, "--volume=kept:/kept", "busybox", "sh", "-c"]
    docker.ok(*words, "echo text >/kept/file")
    assert docker.ok(*words, "cat /kept/file; rm /kept/file") == "text"
    docker.ok("volume", "rm", "kept")


def test_user_and_groups(docker: Docker, runtime: str) -> None:
    shown = docker.ok("run", "--rm", runtime, "--user=1000:7", "--group-add=8", "busybox", "sh", "-c", "id -u; id -G")
    assert shown.split() == ["1000", "7", "8"]


@pytest.mark.parametrize(
    ("options", "effective"),
    [
        ([], "00000000a80425fb"),
        (["--cap-drop=ALL"], "0000000000000000"),
        (["--cap-drop=ALL", "--cap-add=NET_ADMIN"], "0000000000001000"),
    ],
)
def test_capabilities(docker: Docker, runtime: str, options: list[str], effective: str) -> None:
    shown = docker.ok("run", "--rm", runtime, *options, "busybox", "grep", "CapEff", "/proc/self/status")
    assert shown.split() == ["CapEff:", effective]


def test_the_default_profile_filters_system_calls(docker: Docker, runtime: str) -> None:
    script = "grep Seccomp: /proc/self/status; unshare -r true"
    done = docker("run", "--rm", runtime, "busybox", "sh", "-c", script)
    assert done.stdout.split() == ["Seccomp:", "2"]
    assert done.returncode != 0
    assert "ermitted" in done.stderr


def test_ulimits_sysctls_and_devices(docker: Docker, runtime: str) -> None:
    options = ["--ulimit=nofile=123:456", "--sysctl=net.ipv4.ip_default_ttl=77", "--device=/dev/null:/dev/nothing"]
    script = (
        "ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_default_ttl; echo x >/dev/nothing; stat -c %t:%T /dev/nothing"
    )
    shown = docker.ok("run", "--rm", runtime, *options, "busybox", "sh", "-c", script)
    assert shown.split() == ["123", "456", "77", "1:3"]


def test_a_network_interface_with_an_address(docker: Docker, runtime: str) -> None:
    assert "inet 172." in docker.ok("run", "--rm", runtime, "busybox", "ip", "addr", "show", "eth0")


def test_no_network(docker: Docker, runtime: str) -> None:
    shown = docker.ok("run", "--rm", runtime, "--network=none", "busybox", "ls", "/sys/class/net")
    assert "eth0" not in shown.split()


def test_an_init_process_reaps(docker: Docker, runtime: str) -> None:
    done = docker("run", "--rm", runtime, "--init", "busybox", "sh", "-c", "echo $$; exit 3")
    if "docker-init" in done.stderr:
        pytest.skip("needs docker-init (Debian package tini)")
    assert (done.returncode, done.stdout != "1\n") == (3, True)


def test_top_shows_the_processes(docker: Docker, runtime: str) -> None:
    container = docker.ok("run", "--detach", runtime, "busybox", "sleep", "100")
    assert "sleep 100" in docker.ok("top", container)


def test_two_containers_share_a_network(docker: Docker, runtime: str) -> None:
    first = docker.ok("run", "--detach", runtime, "busybox", "sleep", "100")
    of_first = docker.ok("exec", first, "readlink", "/proc/self/ns/net")
    assert docker.ok(
        "run", "--rm", runtime, f"--network=container:{first}", "busybox", "readlink", "/proc/self/ns/net"
    ) == (of_first)


def test_a_cgroup_namespace_of_its_own(docker: Docker, runtime: str) -> None:
    shown = docker.ok("run", "--rm", runtime, "--cgroupns=private", "busybox", "cat", "/proc/self/cgroup")
    assert {line.split(":")[2] for line in shown.splitlines()} == {"/"}


def test_the_hosts_namespaces(docker: Docker, runtime: str) -> None:
    options = ["--pid=host", "--ipc=host", "--uts=host"]
    for kind in ("pid", "ipc", "uts"):
        shown = docker.ok("run", "--rm", runtime, *options, "busybox", "readlink", f"/proc/self/ns/{kind}")
        assert shown == os.readlink(f"/proc/self/ns/{kind}")


def test_no_new_privileges(docker: Docker, runtime: str) -> None:
    words = ["--security-opt=no-new-privileges", "busybox", "grep", "NoNewPrivs", "/proc/self/status"]
    assert docker.ok("run", "--rm", runtime, *words).split() == ["NoNewPrivs:", "1"]


def test_stats_see_the_containers_memory(docker: Docker, runtime: str) -> None:
    container = docker.ok("run", "--detach", runtime, "--memory=64m", "busybox", "sleep", "100")
    assert "64MiB" in docker.ok("stats", "--no-stream", "--format={{.MemUsage}}", container)


def test_a_paused_container_stands_still(docker: Docker, runtime: str) -> None:
    container = docker.ok("run", "--detach", runtime, "busybox", "sh", "-c", "while :; do date +%s%N > /now; done")
    docker.ok("exec", container, "cat", "/now")
    docker.ok("pause", container)
    assert docker.ok("inspect", "--format", "{{.State.Status}}", container) == "paused"
    docker.ok("cp", f"{container}:/now", str(docker.directory / "before"))
    time.sleep(0.05)
    docker.ok("cp", f"{container}:/now", str(docker.directory / "after"))
    assert (docker.directory / "before").read_text() == (docker.directory / "after").read_text()
    assert "is paused" in docker("exec", container, "true").stderr
    docker.ok("unpause", container)
    assert docker.ok("inspect", "--format", "{{.State.Status}}", container) == "running"
    docker.ok("exec", container, "true")


def test_limits_are_changed_while_it_runs(docker: Docker, runtime: str) -> None:
    container = docker.ok("run", "--detach", "--memory=64m", runtime, "busybox", "sleep", "100")
    docker.ok("update", "--memory=96m", "--memory-swap=128m", "--cpus=0.5", "--pids-limit=50", container)
    shown = docker.ok(
        "exec",
        container,
        "sh",
        "-c",
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"
        " /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/pids/pids.max",
    )
    assert shown.split() == [str(96 << 20), str(128 << 20), "50000", "50"]


def test_files_are_copied_in_and_out(docker: Docker, runtime: str) -> None:
    container = docker.ok("run", "--detach", runtime, "busybox", "sleep", "100")
    (docker.directory / "letter").write_text("dear reader")
    docker.ok("cp", str(docker.directory / "letter"), f"{container}:/letter")
    assert docker.ok("exec", container, "cat", "/letter") == "dear reader"
    docker.ok("cp", f"{container}:/letter", str(docker.directory / "back"))
    assert (docker.directory / "back").read_text() == "dear reader"


def test_logs_keep_what_a_container_says(docker: Docker, runtime: str) -> None:
    container = docker.ok("run", "--detach", runtime, "busybox", "sh", "-c", "echo one; echo two >&2; sleep 100")
    deadline = time.monotonic() + 20
    while docker.ok("logs", container) != "one":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_health_check_is_carried_out(docker: Docker, runtime: str) -> None:
    health = ["--health-cmd=test -e /tmp/well", "--health-interval=200ms", "--health-retries=1"]
    container = docker.ok("run", "--detach", *health, runtime, "busybox", "sh", "-c", "touch /tmp/well; sleep 100")
    deadline = time.monotonic() + 20
    while docker.ok("inspect", "--format", "{{.State.Health.Status}}", container) != "healthy":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_policy_starts_a_container_again(docker: Docker, runtime: str) -> None:
    container = docker.ok("run", "--detach", "--restart=on-failure:2", runtime, "busybox", "sh", "-c", "exit 3")
    deadline = time.monotonic() + 20
    while docker.ok("inspect", "--format", "{{.State.Status}} {{.RestartCount}}", container) != "exited 2":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_running_container_is_removed_by_force(docker: Docker, runtime: str) -> None:
    container = docker.ok("run", "--detach", runtime, "busybox", "sleep", "100")
    docker.ok("pause", container)
    docker.ok("rm", "--force", container)
    assert container not in docker.ok("ps", "--all", "--quiet", "--no-trunc")


def test_containers_start_and_end_at_the_same_time(docker: Docker, runtime: str) -> None:
    statuses = range(1, 7)
    with ThreadPoolExecutor(len(statuses)) as pool:
        runs = [pool.submit(docker, "run", "--rm", runtime, "busybox", "sh", "-c", f"exit {n}") for n in statuses]
        assert [run.result().returncode for run in runs] == list(statuses)


def _wait_for_output(docker: Docker, container: str, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in docker.ok("logs", container):
        assert time.monotonic() < deadline, f"{container} does not say {text!r}"
        time.sleep(0.1)
