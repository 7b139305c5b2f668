#!/usr/bin/python3
"""Compares containerd-shim-rune-v2 with containerd's shim for runc, with runc and with crun, as containerd drives them.

A program that is no containerd speaks to each over ttrpc: one container from its start to its deletion, exec, many at
once, what a container writes, and memory. All take their turns within one round. Needs root.

Usage: bench/shims.py [--rounds N] [--crowd N] [--pod N] [--gib N] [--shim NAME=PROGRAM[,RUNTIME]]...
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import select
import shutil
import statistics
import sys
import tempfile
import time

import bundle
import hierarchy
from containerd import Events, Shim, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RUNE = f"{os.path.realpath(__file__ + '/../..')}/build/bin/containerd-shim-rune-v2"
STEPS = ("start shim", "create", "start", "exec", "kill, wait", "delete")
WARM_UP_ROUNDS = 1
SLEEP = ["/bin/sleep", "100000"]
GROUP = "io.kubernetes.cri.sandbox-id"
SETTLE_S = 2.0  # an idle shim lets go of memory
READ_TIMEOUT_MS = 60_000


class Bench:
    """One directory for all shims, with a bundle for each container."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.rootfs = bundle.make(directory, "first", SLEEP) and f"{directory}/rootfs"
        self.count = 0
        self.tasks: list[Task] = []

    def clean(self) -> None:
        """Remove what was given up half-way."""
        for task in self.tasks:
            task.abandon()
        hierarchy.remove_groups()

    def task(self, shim: Shim, args: list[str], group: str = "") -> Task:
        """Make the bundle of another container. `group`: the pod whose shim it shares."""
        self.count += 1
        name = f"bench-{os.getpid()}-{self.count}"
        path = f"{self.directory}/{name}"
        os.makedirs(path)
        config = bundle.config(self.rootfs, args, f"/inclavare-bench/{name}")
        if group:
            config["annotations"] = {GROUP: group}
        with open(f"{path}/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
        task = Task(shim, name, path)
        self.tasks.append(task)
        return task


def main() -> None:
    """Measure and print."""
    options = _arguments()
    if os.geteuid():
        raise SystemExit("bench: containers need root")
    hierarchy.enter_namespace()
    with tempfile.TemporaryDirectory(prefix="inclavare-shims-") as directory, contextlib.ExitStack() as stack:
        events = Events(f"{directory}/events.sock")
        found = _shims(options.shim, events, directory)
        bench = Bench(directory)
        stack.callback(bench.clean)
        _show_lives(bench, found, options.rounds)
        _show_crowd(bench, found, options.crowd)
        _show_output(bench, found, options.gib)
        _show_memory(bench, found, options.pod)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare shims of containerd.")
    parser.add_argument("--rounds", type=int, default=20, help="lives of a container (default: 20)")
    parser.add_argument("--crowd", type=int, default=50, help="containers that start at once (default: 50)")
    parser.add_argument("--pod", type=int, default=10, help="containers of a pod, for memory (default: 10)")
    parser.add_argument("--gib", type=float, default=1, help="what a container writes, in GiB (default: 1)")
    parser.add_argument("--shim", action="append", metavar="NAME=PROGRAM[,RUNTIME]", help="instead of those found")
    return parser.parse_args()


def _shims(given: list[str] | None, events: Events, directory: str) -> list[Shim]:
    if given is None:
        if not os.path.exists(RUNE):
            raise SystemExit(f"bench: {RUNE} does not exist: run `make` first")
        other = shutil.which("containerd-shim-runc-v2")
        given = [f"rune={RUNE}"]
        given += [f"Go+{name}={other},{path}" for name in ("runc", "crun") if other and (path := shutil.which(name))]
    shims = []
    for word in given:
        name, _, programs = word.partition("=")
        program, _, runtime = programs.partition(",")
        shims.append(Shim(name, program, runtime, events, directory))
    return shims


def _rounds(
    shims: list[Shim], rounds: int, one: Callable[[Shim], dict[str, float]]
) -> dict[str, dict[str, list[float]]]:
    """Let shims take turns; give the values of each by name, without the rounds that warm up."""
    found: dict[str, dict[str, list[float]]] = {shim.name: {} for shim in shims}
    for number in range(-WARM_UP_ROUNDS, rounds):
        turn = number % len(shims)
        for shim in shims[turn:] + shims[:turn]:
            values = one(shim)
            if number >= 0:
                for name, value in values.items():
                    found[shim.name].setdefault(name, []).append(value)
    return found


def _life(bench: Bench, shim: Shim) -> dict[str, float]:
    task = bench.task(shim, SLEEP)
    actions = (task.begin, task.create, task.start, lambda: task.execute(["/bin/true"]), task.kill, task.delete)
    spent = {}
    for name, action in zip(STEPS, actions, strict=True):
        begin = time.perf_counter()
        action()
        spent[name] = (time.perf_counter() - begin) * 1000
    spent["all but exec"] = sum(value for name, value in spent.items() if name != "exec")
    return spent


def _show_lives(bench: Bench, shims: list[Shim], rounds: int) -> None:
    found = _rounds(shims, rounds, lambda shim: _life(bench, shim))
    _show(f"One container, {rounds} rounds, in ms", shims, found)


def _crowd(bench: Bench, shim: Shim, count: int) -> dict[str, float]:
    tasks = [bench.task(shim, SLEEP) for _ in range(count)]

    def go(task: Task) -> None:
        task.begin()
        task.create()
        task.start()

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        begin = time.perf_counter()
        list(pool.map(go, tasks))
        spent = time.perf_counter() - begin
    for task in tasks:
        task.kill()
        task.delete()
    return {"until all run": spent * 1000}


def _show_crowd(bench: Bench, shims: list[Shim], count: int) -> None:
    _show(f"{count} containers at once, in ms", shims, _rounds(shims, 3, lambda shim: _crowd(bench, shim, count)))


def _output(bench: Bench, shim: Shim, gib: float) -> dict[str, float]:
    size = int(gib * 1024)
    task = bench.task(shim, ["/bin/dd", "if=/dev/zero", "bs=1048576", f"count={size}"])
    paths = {name: f"{task.bundle}/{name}" for name in ("stdout", "stderr")}
    for path in paths.values():
        os.mkfifo(path)
    task.begin()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(_drain, os.open(path, os.O_RDONLY | os.O_NONBLOCK)) for path in paths.values()]
        task.create(**paths)
        begin = time.perf_counter()
        task.start()
        task.wait()
        task.delete()
        read = readers[0].result()
        spent = time.perf_counter() - begin
    if read != size << 20:
        raise SystemExit(f"bench: {shim.name} passed {read} bytes of {size << 20}")
    return {"until all is read": spent * 1000}


def _drain(fd: int) -> int:
    """Read to the end; give how much it was."""
    total = 0
    ready = select.poll()
    ready.register(fd, select.POLLIN)
    with open(fd, "rb", buffering=0) as file:
        while events := ready.poll(READ_TIMEOUT_MS):
            data = file.read(1 << 18) if events[0][1] & select.POLLIN else b""
            if not data:
                break
            total += len(data)
    return total


def _show_output(bench: Bench, shims: list[Shim], gib: float) -> None:
    _show(f"{gib:g} GiB of stdout, in ms", shims, _rounds(shims, 3, lambda shim: _output(bench, shim, gib)))


def _memory(bench: Bench, shim: Shim, pod: int) -> dict[str, float]:
    """Give the proportional set size of a pod's shim with one container and with all, in MiB."""
    name = f"pod-{bench.count}"
    tasks = [bench.task(shim, SLEEP, group=name) for _ in range(pod)]
    sizes = []
    for task in tasks:
        task.begin()
        task.create()
        task.start()
        task.execute(["/bin/true"])
        if len(sizes) == 0:
            time.sleep(SETTLE_S)
            sizes.append(_pss(task.shim_pid))
    time.sleep(SETTLE_S)
    sizes.append(_pss(tasks[0].shim_pid))
    if {task.shim_pid for task in tasks} != {tasks[0].shim_pid}:
        raise SystemExit(f"bench: {shim.name} has more than one shim for a pod")
    for task in tasks:
        task.kill()
        task.delete()
    return {"one container": sizes[0], "each further": (sizes[-1] - sizes[0]) / (pod - 1)}


def _show_memory(bench: Bench, shims: list[Shim], pod: int) -> None:
    found = _rounds(shims, 3, lambda shim: _memory(bench, shim, pod))
    _show(f"Memory of the shim of a pod with {pod} containers (PSS), in MiB", shims, found)


def _pss(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024


def _show(title: str, shims: list[Shim], found: dict[str, dict[str, list[float]]]) -> None:
    print(f"{title}. Ratio: of the minimum to that of {shims[0].name}.\n")
    print(f"{'':20} {'shim':8} {'min':>8} {'median':>8} {'ratio':>6}")
    for step, reference in found[shims[0].name].items():
        for shim in shims:
            values = found[shim.name][step]
            ratio = min(values) / min(reference) if min(reference) > 0 else float("nan")
            print(f"{step:20} {shim.name:8} {min(values):8.2f} {statistics.median(values):8.2f} {ratio:6.2f}")
    print()


if __name__ == "__main__":
    sys.exit(main())
