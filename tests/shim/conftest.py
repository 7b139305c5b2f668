"""Shims under the kit's containerd: ours, and where both must agree, containerd's own with runc as the oracle.

A test that takes `engine` runs for both; one that takes `rune_engine` for ours alone, and says why. What a test has
left is removed as containerd would: the shim is killed, and `delete` cleans up, which must leave nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CGROUP_PARENT
from tests.containerd_kit.bundle import Bundle
from tests.containerd_kit.containerd import Containerd, Task, is_there, runc_options, wait_until_gone
from tests.containerd_kit.fifo import Input, Output

GROUP = "io.kubernetes.cri.sandbox-id"
SLEEP = ("sleep", "1000")


class Engine:
    """One containerd, one shim's program, and the tasks of a test."""

    def __init__(self, name: str, program: Path, runtime: str, rootfs: Path) -> None:
        self.name = name
        self.program = program
        self.runtime = runtime
        self.directory = Path(tempfile.mkdtemp(prefix="kit-"))  # short: a socket's path has 107 bytes at most
        self.rootfs = rootfs
        self.state = self.directory / "state"
        self.options: Any = runc_options(binary_name=runtime, root=str(self.state))
        self.containerd = Containerd(self.directory)
        self.tasks: list[Task] = []
        self.fifos: list[Output | Input] = []
        self._numbers = itertools.count()

    @property
    def is_rune(self) -> bool:
        return self.name == "rune"

    @property
    def events(self) -> Any:
        return self.containerd.events

    def become(self, version: str) -> None:
        """Be another version of containerd from now on."""
        self.containerd.version = tuple(int(word) for word in version.split("."))

    def bundle(self, args: Sequence[str] = SLEEP, group: str = "") -> Bundle:
        """Make another bundle. `group`: the pod whose shim it shares."""
        name = f"k{os.getpid()}-{next(self._numbers)}"
        bundle = Bundle(self.directory / name, self.rootfs, args, f"/{CGROUP_PARENT}/{name}")
        if group:
            bundle.config["annotations"] = {GROUP: group}
        return bundle

    def task(self, bundle: Bundle | Sequence[str] = SLEEP, options: Any = None) -> Task:
        """Make a task whose shim has not been started yet."""
        made = bundle if isinstance(bundle, Bundle) else self.bundle(bundle)
        task = Task(self.containerd, self.program, made.path.name, made.write(), options or self.options)
        self.tasks.append(task)
        return task

    def create(self, bundle: Bundle | Sequence[str] = SLEEP, **fields: Any) -> Task:
        """Give a task that is created."""
        task = self.task(bundle)
        task.begin()
        task.create(**fields)
        return task

    def run(self, bundle: Bundle | Sequence[str] = SLEEP, **fields: Any) -> Task:
        """Give a task that runs."""
        task = self.create(bundle, **fields)
        task.start()
        return task

    def output(self, name: str = "out") -> Output:
        """Make a FIFO to be written to."""
        made = Output(self.directory / f"{name}.{next(self._numbers)}.fifo")
        self.fifos.append(made)
        return made

    def both(self, out: Output) -> dict[str, str]:
        """Give the stdio of an output beside one for errors: containerd's shim wants both or none."""
        return {"stdout": out.path, "stderr": self.output("error").path}

    def input(self) -> Input:
        """Make a FIFO to be read."""
        made = Input(self.directory / f"in.{next(self._numbers)}.fifo")
        self.fifos.append(made)
        return made

    def cgroup(self, task: Task, controller: str) -> Path:
        return Path("/sys/fs/cgroup", controller, CGROUP_PARENT, task.id)

    def clean(self) -> None:
        for task in self.tasks:
            with contextlib.suppress(Exception):  # so that its shim reaps it: process 1 may take its time
                task.kill()
                task.wait(timeout_s=3)
            task.abandon()
        for each in self.fifos:
            each.close()

    def leftovers(self) -> list[str]:
        """What is on the machine that a task of ours could have left."""
        left = [f"state {path}" for path in self.state.glob("*/[!.]*")]
        left += [f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if self._ours(line)]
        for group in Path("/sys/fs/cgroup").glob(f"*/{CGROUP_PARENT}/k{os.getpid()}-*"):
            left.append(f"cgroup {group}")
        for task in self.tasks:
            if task.address is not None and Path(task.address.path).exists():
                left.append(f"socket {task.address.path}")
            if task.shim_pid and is_there(task.shim_pid):
                left.append(f"shim {task.shim_pid}")
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended
                places = (
                    f"{os.readlink(process / 'root')} {os.readlink(process / 'cwd')} {os.readlink(process / 'exe')}"
                )
                words = (process / "cmdline").read_bytes().decode(errors="replace")
                if self._ours(places) or self._ours(words):
                    left.append(f"process {process.name}: {words!r}")
        return left

    def objectionable(self, left: list[str]) -> list[str]:
        """Of what is left, that which is wrong: the other shim leaves its socket behind when it is killed."""
        return [each for each in left if self.is_rune or not each.startswith("socket")]

    def _ours(self, text: str) -> bool:
        return f"{self.directory}/" in text


def eventually(true: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it never became so"
        time.sleep(0.01)


def shims(checkout: Path) -> dict[str, tuple[Path, str]]:
    found = {"rune": (checkout / "build/bin/containerd-shim-rune-v2", "")}
    program, runtime = shutil.which("containerd-shim-runc-v2"), shutil.which("runc")
    if program and runtime:
        found["runc"] = (Path(program), runtime)
    return found


def _engine(name: str, checkout: Path, rootfs: Path) -> Iterator[Engine]:
    found = shims(checkout)
    if name not in found:
        pytest.skip("needs containerd-shim-runc-v2 and runc (Debian packages containerd and runc)")
    engine = Engine(name, *found[name], rootfs)
    try:
        yield engine
    finally:
        engine.clean()
        deadline = time.monotonic() + 5
        left = engine.leftovers()
        while engine.objectionable(left) and time.monotonic() < deadline:  # a shim may be about to end
            time.sleep(0.02)
            left = engine.leftovers()
        engine.containerd.close()
        for each in left:  # the next test shall not suffer from it
            if each.startswith("mount"):
                subprocess.run(["umount", "-l", each.split()[5]], check=False)
            elif each.startswith("socket"):
                Path(each.split()[1]).unlink(missing_ok=True)
        shutil.rmtree(engine.directory, ignore_errors=True)
    assert not engine.objectionable(left)
    assert not engine.events.faults


@pytest.fixture(params=["rune", "runc"])
def engine(
    request: pytest.FixtureRequest, as_root: None, rune_program: Path, checkout: Path, busybox_rootfs: Path
) -> Iterator[Engine]:
    del as_root, rune_program  # they need not be used
    yield from _engine(request.param, checkout, busybox_rootfs)


@pytest.fixture
def rune_engine(as_root: None, rune_program: Path, checkout: Path, busybox_rootfs: Path) -> Iterator[Engine]:
    del as_root, rune_program
    yield from _engine("rune", checkout, busybox_rootfs)


__all__ = ["GROUP", "SLEEP", "Engine", "eventually", "wait_until_gone"]
