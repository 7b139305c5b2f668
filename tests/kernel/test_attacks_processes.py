"""Attacks on rune's processes and by those of containers, tried for real; docs/security.md says what they were."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Bundle, Rune

# What a process of the container does with each of rune's that it finds; nothing of it may succeed.
STEAL = """for process in /proc/[0-9]*; do
    grep -q '^rune:' $process/cmdline || continue
    echo found
    for link in exe cwd root ns/mnt; do readlink $process/$link; done
    for fd in $process/fd/*; do readlink $fd || head -c 1 $fd; done
    for name in mem environ maps; do dd if=$process/$name count=1 && echo $name; done
done 2>/dev/null; true"""


def _sleep(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    assert rune("start", "c").status == 0


@contextlib.contextmanager
def _halted_exec(rune: Rune, *words: str) -> Iterator[int]:
    """Give the pid of an exec's process that stands in the container, one step before its program.

    rune is to send a pidfd to a socket that takes no connection meanwhile.
    """
    path = rune.directory / "s"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(path))
        server.listen(0)
        first.connect(str(path))
        child = subprocess.Popen(
            rune.command("exec", "--pidfd-socket", path, "c", *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 60
            halted: list[int] = []
            while not halted:
                assert time.monotonic() < deadline
                time.sleep(0.02)
                halted = [pid for pid in _children(child.pid) if b"SigBlk" in _status(pid) and _in_namespace(rune, pid)]
            yield halted[0]
            server.accept()[0].close()
            with server.accept()[0] as connection:
                connection.recv(1)
            _await_program(halted[0])
        finally:
            child.kill()
            child.wait()


def _await_program(pid: int) -> None:
    deadline = time.monotonic() + 10
    while os.readlink(f"/proc/{pid}/exe") != "/bin/busybox":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _status(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return b""


def _in_namespace(rune: Rune, pid: int) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink(f"/proc/{rune.state()['pid']}/ns/mnt")
    return False


def test_a_container_that_is_being_made_shows_nothing_of_itself(rune: Rune, bundle: Bundle) -> None:
    """CVE-2016-9962: processes of the container traced the runtime's, or took its fds, before it was their program."""
    rune.create(bundle)
    assert rune("exec", "c", "sh", "-c", STEAL).out == "found\n"


def test_a_process_that_enters_a_container_shows_nothing_of_itself(rune: Rune, bundle: Bundle) -> None:
    """CVE-2016-9962, where it was found: exec."""
    _sleep(rune, bundle)
    with _halted_exec(rune, "sleep", "60"):
        assert rune("exec", "c", "sh", "-c", STEAL).out == "found\n"


@pytest.mark.parametrize("command", ["create", "exec"])
def test_what_becomes_the_program_cannot_be_overwritten(rune: Rune, bundle: Bundle, command: str) -> None:
    """CVE-2019-5736: the runtime's file was opened as /proc/PID/exe, and written as soon as nobody executed it."""
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    if command == "create":
        pid = rune.state()["pid"]
        exe = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
        assert rune("start", "c").status == 0
        _await_program(pid)
    else:
        assert rune("start", "c").status == 0
        with _halted_exec(rune, "sleep", "60") as pid:
            exe = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
    try:
        assert os.readlink(f"/proc/self/fd/{exe}").startswith("/memfd:rune-executor")
        writer = os.open(f"/proc/self/fd/{exe}", os.O_RDWR)
        try:
            for attack in (lambda: os.write(writer, b"#!/bin/sh\n"), lambda: os.ftruncate(writer, 0)):
                with pytest.raises(PermissionError):
                    attack()
        finally:
            os.close(writer)
    finally:
        os.close(exe)


@pytest.mark.parametrize("line", ["#!/proc/self/exe", "#!/proc/self/exe 3", "#!/proc/1/exe"])
def test_a_program_that_is_its_maker_gets_no_further(rune: Rune, bundle: Bundle, line: str) -> None:
    """CVE-2019-5736: by this line the runtime executed itself in the container."""
    program = bundle.path / "rootfs/bin/evil"
    program.write_text(f"{line}\n")
    program.chmod(0o755)
    bundle.process["args"] = ["evil"]
    assert rune.run(bundle).status == 1
    _sleep(rune, bundle)
    result = rune("exec", "c", "evil")
    assert result.status != 0
    assert result.out == ""


def _expose(bundle: Bundle, directory: Path) -> Path:
    """Make a directory of the host with a program in it that needs no other file."""
    directory.mkdir()
    shutil.copy(bundle.path / "rootfs/bin/busybox", directory / "echo")
    return directory


@pytest.mark.parametrize("use", ["args", "cwd"])
def test_exec_does_not_find_a_leaked_descriptor_of_the_host(rune: Rune, bundle: Bundle, use: str) -> None:
    """CVE-2024-21626, by a program of the host that works without the rest of it, and by exec."""
    leaked = os.open(_expose(bundle, bundle.path / "outside"), os.O_RDONLY)
    way = f"/proc/self/fd/{leaked}"
    try:
        bundle.process.update({"args": [f"{way}/echo", "out"]} if use == "args" else {"cwd": way})
        assert rune.run(bundle, pass_fds=[leaked]).status == 1
        bundle.process["cwd"] = "/"
        _sleep(rune, bundle)
        words = ["c", f"{way}/echo", "out"] if use == "args" else ["--cwd", way, "c", "pwd"]
        result = rune("exec", *words, pass_fds=[leaked])
    finally:
        os.close(leaked)
    assert (result.status, result.out) == (255, "")


def _fds(pid: int) -> set[int]:
    return {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}


@pytest.mark.parametrize("command", ["create", "run", "exec"])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_the_program_has_the_descriptors_that_were_asked_for(
    rune: Rune, bundle: Bundle, command: str, count: int
) -> None:
    """Open are 3, 5 and more: 4 and 6 will be numbers of rune's own, such as its log's."""
    bundle.process["args"] = ["sleep", "60"]
    pid_file = rune.directory / "pid"
    options = ["--preserve-fds", str(count), "--pid-file", str(pid_file)]
    if command == "exec":
        _sleep(rune, bundle)
        words = ["exec", "--detach", *options, "c", "sleep", "60"]
    else:
        words = [command, *(["--detach"] if command == "run" else []), *options, "--bundle", str(bundle.write()), "c"]
    program, *rest = rune.command(*words)
    script = 'exec "$@" 3</ 4<&- 5</ 6<&- 7</ 8</ 9</'
    done = subprocess.run(
        ["bash", "-c", script, "bash", program, "--log", str(rune.directory / "log"), *rest],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0
    if command == "create":
        assert not {8, 9} & _fds(int(pid_file.read_text()))  # before its program, too
        assert rune("start", "c").status == 0
    pid = int(pid_file.read_text())
    _await_program(pid)
    assert _fds(pid) == {0, 1, 2} | {fd for fd in (3, 5) if fd < 3 + count}


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"])
def test_hooks_have_no_descriptor_but_stdio(rune: Rune, bundle: Bundle, kind: str) -> None:
    notes = bundle.path / "rootfs/notes"
    script = f"ls -l /proc/self/fd > {'/notes' if kind == 'startContainer' else notes}"
    bundle.config["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]}
    leaked = os.open("/", os.O_RDONLY)
    try:
        result = rune.run(bundle, pass_fds=[leaked])
    finally:
        os.close(leaked)
    assert result.status == 0, result.error
    seen = [line.split(" -> ")[0].split()[-1] for line in notes.read_text().splitlines() if " -> " in line]
    assert seen[:3] == ["0", "1", "2"]
    assert seen[3:] in ([], ["3"])  # ls's own


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["run", "exec"])
def test_closed_stdio_is_not_filled_with_descriptors_of_rune(
    rune: Rune, bundle: Bundle, command: str, closed: str
) -> None:
    script = "for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done > /seen.new 2> /error; mv /seen.new /seen"
    if command == "exec":
        _sleep(rune, bundle)
        words = rune.command("exec", "c", "sh", "-c", script)
    else:
        bundle.shell(script)
        words = rune.command("run", "--bundle", bundle.write(), "c")
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *words], stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0
    stdin = (bundle.path / "rootfs/seen").read_text().splitlines()[0]
    assert stdin == "/dev/null"
    assert "memfd" not in (bundle.path / "rootfs/seen").read_text()


def test_lists_that_are_too_long_for_the_kernel_are_refused(rune: Rune, bundle: Bundle) -> None:
    """CVE-2021-43784: what was longer than its 16 bits of length became instructions of its own."""
    bundle.linux["namespaces"].append({"type": "user"})
    mappings = [{"containerID": index, "hostID": 100_000 + index, "size": 1} for index in range(20_000)]
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = mappings
    result = rune.run(bundle)
    assert result.status == 1
    assert "cannot write the mappings" in result.error
    assert len(result.error) < 2000


def test_a_filter_that_is_too_long_for_its_length_is_refused(rune: Rune, bundle: Bundle) -> None:
    """The same with seccomp: 65536 instructions more than one have, in 16 bits, the length of one."""
    rules = [
        {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]}
        for value in range(22_000)
    ]
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    result = rune.run(bundle)
    assert result.status == 1
    assert "the kernel takes 4096" in result.error


# Twenty processes, none of which lives longer than it takes to fork the next. Nobody has to wait for them.
BOMB = """
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(void) {
    signal(SIGCHLD, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (int i = 0; i < 20; i++)
        if (fork() == 0)
            for (;;)
                if (fork() > 0)
                    _exit(0);
    for (;;)
        pause();
}
"""


@pytest.mark.parametrize("command", [("kill", "--all", "c", "KILL"), ("delete", "--force", "c")])
def test_processes_that_fork_all_the_time_are_ended(
    rune: Rune, bundle: Bundle, command: tuple[str, ...], tmp_path: Path
) -> None:
    """In the host's pid namespace: the end of one of its own ends all."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    (tmp_path / "bomb.c").write_text(BOMB)
    program = bundle.path / "rootfs/bin/bomb"
    subprocess.run(["gcc", "-static", "-O1", "-o", program, tmp_path / "bomb.c"], check=True)
    bundle.process["args"] = ["bomb"]
    bundle.linux["resources"] = {"pids": {"limit": 60}}
    bundle.linux["namespaces"] = [entry for entry in bundle.linux["namespaces"] if entry["type"] != "pid"]
    for _ in range(4):
        rune.create(bundle)
        path = str(bundle.linux["cgroupsPath"]).strip("/")
        group = next(
            file for place in (path, f"*/{path}") for file in Path("/sys/fs/cgroup").glob(f"{place}/cgroup.procs")
        )
        assert rune("start", "c").status == 0
        time.sleep(0.05)
        assert rune(*command).status == 0
        deadline = time.monotonic() + 3
        while group.exists() and group.read_text():
            assert time.monotonic() < deadline, "some have survived"
            time.sleep(0.02)
        rune("delete", "--force", "c")


def test_neither_environment_nor_directory_choose_what_rune_executes(rune: Rune, bundle: Bundle) -> None:
    hostile = bundle.path / "hostile"
    (hostile / "inclavare").mkdir(parents=True)
    trap = f"open({str(bundle.path / 'trapped')!r}, 'w')\n"
    for name in ("json", "os", "posixpath", "sitecustomize", "usercustomize", "socket", "re", "inclavare/__init__"):
        (hostile / f"{name}.py").write_text(trap)
    environment = {"PATH": os.environ["PATH"], "LD_PRELOAD": f"{hostile}/x.so", "LD_AUDIT": f"{hostile}/x.so"}
    environment |= dict.fromkeys(("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "PYTHONPLATLIBDIR"), str(hostile))
    environment |= {"PYTHONSTARTUP": f"{hostile}/os.py", "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error::hostile.X"}
    bundle.process["args"] = ["env"]
    for words in (["features"], ["run", "--bundle", bundle.write(), "c"], ["list", "--format", "json"], ["--help"]):
        result = rune(*words, cwd=hostile, env=environment)
        assert (result.status, result.error) == (0, "")
        assert "hostile" not in result.out
    for name in ("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH"):  # of those a Python that is not linked in has no choice
        environment.pop(name)
    assert rune("features", cwd=hostile, env={**environment, "RUNE_PYTHON": "1"}).error == ""
    assert not (bundle.path / "trapped").exists()
