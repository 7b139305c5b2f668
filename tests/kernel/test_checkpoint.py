"""checkpoint and restore with a real CRIU: $RUNE_TEST_CRIU, or the one in $PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import Bundle, Result, Rune

# The file always has a number in it, whenever the container is checkpointed.
COUNT_ONCE = "i=$((i+1)); echo $i >/tmp/next; mv /tmp/next /tmp/count; sleep 0.05"
COUNT = f"i=0; while true; do {COUNT_ONCE}; done"


def criu_program() -> str | None:
    return os.environ.get("RUNE_TEST_CRIU") or shutil.which("criu")


class Machine:
    """rune with a certain criu in its $PATH, and stdio of containers that are pipes, as engines make them."""

    def __init__(self, rune: Rune, directory: Path, criu: str | None) -> None:
        self.rune = rune
        self.image = directory / "image"
        path = directory / "path"
        path.mkdir()
        if criu is not None:
            (path / "criu").symlink_to(criu)
        self.environment = os.environ | {"PATH": f"{path}:/usr/sbin:/usr/bin:/sbin:/bin" if criu else str(path)}
        self._processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, *words: str | Path) -> Result:
        process = subprocess.Popen(
            self.rune.command("--log", self.rune.directory / "log", *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        )
        self._processes.append(process)
        status = process.wait(60)
        log = self.rune.directory / "log"
        return Result(subprocess.CompletedProcess([], status, b"", log.read_bytes() if log.exists() else b""))

    def end(self) -> None:
        for process in self._processes:
            for stream in (process.stdin, process.stdout, process.stderr):
                assert stream is not None
                stream.close()


@pytest.fixture
def machine(rune: Rune, tmp_path: Path) -> Iterator[Machine]:
    criu = criu_program()
    if criu is None:
        pytest.skip("needs CRIU (Debian package criu)")
    made = Machine(rune, tmp_path, os.path.realpath(criu))
    yield made
    for state in rune.root.glob("[!.]*"):
        rune("delete", "--force", state.name)
    made.end()


@pytest.fixture
def working(machine: Machine) -> Machine:
    told = subprocess.run([str(criu_program()), "--version"], capture_output=True, text=True, check=True).stdout
    if int(told.split()[1].split(".")[0]) < 4:
        pytest.skip(f"needs a CRIU that knows this kernel, not {told.split()[1]}")
    return machine


@pytest.fixture
def counting(bundle: Bundle) -> Bundle:
    bundle.shell(COUNT)
    return bundle


def count(bundle: Bundle) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        path = bundle.path / "rootfs/tmp/count"
        text = path.read_text().strip() if path.exists() else ""
        if text:
            return int(text)
        time.sleep(0.02)
    raise AssertionError("the container does not count")


def test_a_restored_container_goes_on_where_it_was(
    working: Machine, rune: Rune, counting: Bundle, tmp_path: Path
) -> None:
    source = tmp_path / "shared"
    source.mkdir()
    mount = {"destination": "/shared", "type": "bind", "source": str(source), "options": ["bind"]}
    counting.config["mounts"].append(mount)
    assert working("run", "--detach", "--bundle", counting.write(), "c").status == 0
    while count(counting) < 5:
        time.sleep(0.02)
    done = working("checkpoint", "--image-path", working.image, "c")
    assert done.status == 0, done.error
    assert rune("state", "c").status == 1  # gone, as with runc
    before = count(counting)
    shutil.rmtree(counting.path / "rootfs/shared")  # a fresh rootfs has no mount points
    pid_file = tmp_path / "pid"
    done = working(
        *("restore", "--detach", "--image-path", working.image, "--bundle", counting.path),
        *("--pid-file", pid_file, "c"),
    )
    assert done.status == 0, done.error
    state = rune.state()
    assert (state["status"], state["pid"]) == ("running", int(pid_file.read_text()))
    while count(counting) <= before:
        time.sleep(0.02)
    assert count(counting) < before + 100
    (source / "word").write_text("hello")
    assert rune("exec", "c", "cat", "/shared/word").out == "hello"
    assert "UP" in rune("exec", "c", "ip", "link", "show", "lo").out
    assert rune("kill", "c", "KILL").status == 0
    rune.wait_for("stopped")
    assert rune("delete", "c").status == 0


def test_a_container_left_running_has_an_image_all_the_same(working: Machine, rune: Rune, counting: Bundle) -> None:
    assert working("run", "--detach", "--bundle", counting.write(), "c").status == 0
    words = ["checkpoint", "--leave-running", "--image-path", str(working.image / "two")]
    done = working("checkpoint", "--pre-dump", "--image-path", working.image / "one", "c")
    if done.status == 0:
        words += ["--parent-path", "../one"]
    else:  # a kernel without soft-dirty pages
        assert "--pre-dump: CRIU or the kernel lacks mem_track" in done.error
    done = working(*words, "c")
    assert done.status == 0, done.error
    assert rune.state()["status"] == "running"
    assert rune("delete", "--force", "c").status == 0
    done = working("restore", "-d", "--image-path", working.image / "two", "--bundle", counting.path, "again")
    assert done.status == 0, done.error
    assert rune.state("again")["status"] == "running"


def test_a_restore_that_fails_leaves_nothing(machine: Machine, rune: Rune, counting: Bundle) -> None:
    machine.image.mkdir()
    (machine.image / "descriptors.json").write_text('["","",""]')
    done = machine("restore", "--detach", "--image-path", machine.image, "--bundle", counting.write(), "c")
    assert done.status == 1
    assert "restore.log" in done.error
    assert not rune.leftovers()


def test_a_checkpoint_that_fails_leaves_the_container_running_and_tells_why(
    machine: Machine, rune: Rune, counting: Bundle
) -> None:
    # A file of the host behind an fd that is none of stdio.
    with (rune.directory / "foreign").open("wb") as foreign:
        os.set_inheritable(foreign.fileno(), True)
        subprocess.run(
            rune.command("run", "--detach", "--preserve-fds", "30", "--bundle", counting.write(), "c"),
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    failed = machine("checkpoint", "--image-path", machine.image, "c")
    assert failed.status == 1
    assert str(machine.image / "dump.log") in failed.error
    assert "failed: (criu/" in failed.error
    assert rune.state()["status"] == "running"
    before = count(counting)
    while count(counting) <= before:
        time.sleep(0.02)


def test_without_criu_the_package_is_named(rune: Rune, counting: Bundle, tmp_path: Path) -> None:
    rune.create(counting)
    assert rune("start", "c").status == 0
    done = Machine(rune, tmp_path, None)("checkpoint", "c")
    assert done.status == 1
    assert "cannot find criu in $PATH" in done.error
    assert "Debian package criu" in done.error


def test_a_created_container_has_nothing_to_write(rune: Rune, counting: Bundle) -> None:
    rune.create(counting)
    assert "cannot checkpoint container c in created state" in rune("checkpoint", "c").error


def test_odd_options_are_refused_before_anything_is_done(rune: Rune, bundle: Bundle) -> None:
    assert "--parent-path must be relative" in rune("checkpoint", "--parent-path", "/x", "c").error
    assert "ADDRESS:PORT" in rune("checkpoint", "--page-server", "x", "c").error
    assert "manage-cgroups-mode" in rune("checkpoint", "--manage-cgroups-mode", "x", "c").error
    assert "is not supported" in rune("restore", "--empty-ns", "pid", "--bundle", bundle.path, "c").error


def run_with(machine: Machine, stdio: dict[str, Any], *words: str | Path) -> None:
    done = subprocess.run(
        machine.rune.command("--log", machine.rune.directory / "log", *words),
        env=machine.environment,
        check=False,
        timeout=60,
        **stdio,
    )
    assert done.returncode == 0, (machine.rune.directory / "log").read_text()


def test_stdio_that_is_the_hosts_null_device_is_so_again(working: Machine, rune: Rune, bundle: Bundle) -> None:
    bundle.shell(f"i=0; while true; do echo said || exit 9; cat; {COUNT_ONCE}; done")
    null = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run_with(working, null, "run", "--detach", "--bundle", bundle.write(), "c")
    count(bundle)
    run_with(working, null, "checkpoint", "--image-path", working.image, "c")
    before = count(bundle)
    assert working("restore", "-d", "--image-path", working.image, "--bundle", bundle.path, "c").status == 0
    while count(bundle) <= before:
        time.sleep(0.02)
    assert {os.readlink(f"/proc/{rune.state()['pid']}/fd/{fd}") for fd in range(3)} == {"/dev/null"}


def test_stdio_that_is_a_file_of_the_host_is_the_file_given_at_restore(
    working: Machine, bundle: Bundle, tmp_path: Path
) -> None:
    bundle.shell(f"i=0; while true; do {COUNT_ONCE}; echo $i; done")
    for name, command in (("one", "run"), ("two", "restore")):
        with (tmp_path / name).open("ab") as file:
            stdio = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
            image = ("--image-path", working.image) if command == "restore" else ()
            run_with(working, stdio, command, "--detach", *image, "--bundle", bundle.write(), "c")
        before = count(bundle)
        while count(bundle) < before + 3:
            time.sleep(0.02)
        if command == "run":
            done = working("checkpoint", "--image-path", working.image, "c")
            assert done.status == 0, done.error
    numbers = [int(line) for name in ("one", "two") for line in (tmp_path / name).read_text().split()]
    assert numbers[:3] == [1, 2, 3]
    assert numbers == sorted(set(numbers))
    assert (tmp_path / "two").read_text()


@pytest.mark.parametrize("mode", ["", "soft", "ignore"])
def test_a_container_is_restored_under_another_id_with_other_control_groups(
    working: Machine, rune: Rune, counting: Bundle, mode: str
) -> None:
    assert working("run", "--detach", "--bundle", counting.write(), "c").status == 0
    before = count(counting)
    words = ("--image-path", str(working.image), *(("--manage-cgroups-mode", mode) if mode else ()))
    done = working("checkpoint", "--file-locks", "--tcp-established", "--empty-ns", "network", *words, "c")
    assert done.status == 0, done.error
    done = working("restore", "-d", "--file-locks", "--tcp-established", *words, "--bundle", counting.path, "again")
    assert done.status == 0, done.error
    while count(counting) <= before:
        time.sleep(0.02)
    assert rune("exec", "again", "true").status == 0
    assert rune("delete", "--force", "again").status == 0


def test_groups_that_are_there_already_are_told_when_the_mode_is_strict(
    working: Machine, rune: Rune, counting: Bundle
) -> None:
    assert working("run", "--detach", "--bundle", counting.write(), "c").status == 0
    count(counting)
    words = ("--manage-cgroups-mode", "strict", "--image-path", working.image)
    assert working("checkpoint", *words, "c").status == 0
    failed = working("restore", "-d", *words, "--bundle", counting.path, "c")
    assert failed.status == 1
    assert "Abort restore of existing cgroups" in failed.error
    assert not rune.leftovers()


def test_a_container_with_a_user_namespace_is_restored(working: Machine, counting: Bundle) -> None:
    mapping = [{"containerID": 0, "hostID": 0, "size": 65536}]
    counting.linux["namespaces"].append({"type": "user"})
    counting.linux.update({"uidMappings": mapping, "gidMappings": mapping})
    assert working("run", "--detach", "--bundle", counting.write(), "c").status == 0
    before = count(counting)
    done = working("checkpoint", "--image-path", working.image, "c")
    assert done.status == 0, done.error
    done = working("restore", "-d", "--image-path", working.image, "--bundle", counting.path, "c")
    assert done.status == 0, done.error
    while count(counting) <= before:
        time.sleep(0.02)
