#!/usr/bin/python3
"""Compares rune with runc and crun, whichever are installed, on the same bundle, command by command. Needs root.

All runtimes take their turns within one round, so that noise of the machine meets all of them; rounds are repeated.
Read minimum and ratio: an absolute time means little elsewhere. CPU time and peak memory are those of the command and
of what it waited for (wait4(2)); for `run` that includes the container. Memory is measured in the rounds that warm up.

Usage: bench/compare.py [--rounds N] [--runtime NAME=PATH]... [--counts]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import bundle
import counts
import hierarchy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RUNE = os.path.realpath(__file__ + "/../../build/bin/rune")
COMMANDS = ("run", "create", "start", "state", "exec", "kill", "delete")
WARM_UP_ROUNDS = 2


class Sample:
    """What one command cost: wall and CPU time in milliseconds."""

    __slots__ = ("cpu_ms", "wall_ms")

    def __init__(self, wall_ms: float, cpu_ms: float) -> None:
        self.wall_ms = wall_ms
        self.cpu_ms = cpu_ms


class Runtime:
    """One runtime with a state root of its own, and what its commands cost (peak memory in KiB)."""

    def __init__(self, name: str, path: str, directory: str) -> None:
        self.name = name
        self.path = path
        self.root = f"{directory}/state-{name}"
        self.samples: dict[str, list[Sample]] = {command: [] for command in COMMANDS}
        self.peak_kib = dict.fromkeys(COMMANDS, 0)

    def words(self, *words: str) -> list[str]:
        """Return the whole command line of a command."""
        return [self.path, "--root", self.root, *words]

    def time(self, command: str, *words: str) -> None:
        """Run a command and keep its times."""
        sample, status = spawn(self.words(command, *words))
        self._check(command, status)
        self.samples[command].append(sample)

    def weigh(self, command: str, *words: str) -> None:
        """Run a command and keep its peak memory. A small program starts it, because a program inherits a peak."""
        result = f"{self.root}.peak"
        _, status = spawn(
            [str(shutil.which("busybox")), "time", "-f", "%M", "-o", result, *self.words(command, *words)]
        )
        self._check(command, status)
        with open(result, encoding="ascii") as file:
            shown = int(file.read())
        self.peak_kib[command] = max(self.peak_kib[command], shown // unit_of_memory(result))

    def _check(self, command: str, status: int) -> None:
        if status:
            raise SystemExit(f"bench: `{self.name} {command}` ended with status {status}")


def main() -> None:
    """Measure and print."""
    options = _arguments()
    if os.geteuid():
        raise SystemExit("bench: containers need root")
    hierarchy.enter_namespace()
    found = _runtimes(options.runtime)
    with tempfile.TemporaryDirectory(prefix="inclavare-bench-") as directory, contextlib.ExitStack() as stack:
        runtimes = [Runtime(name, path, directory) for name, path in found]
        stack.callback(_clean, runtimes)
        short = bundle.make(directory, "short", ["/bin/true"])
        long = bundle.make(directory, "long", ["/bin/sleep", "1000"])
        if options.counts:
            counts.show(runtimes, short, long, directory)
        else:
            _measure(runtimes, options.rounds, short, long)
            _show(runtimes, options.rounds)


def spawn(words: list[str]) -> tuple[Sample, int]:
    """Run a program without input and output; return what it cost, and its exit status."""
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]  # errors are shown
    begin = time.perf_counter()
    pid = os.posix_spawn(words[0], words, os.environ, file_actions=null)
    _, status, usage = os.wait4(pid, 0)
    wall_ms = (time.perf_counter() - begin) * 1000
    sample = Sample(wall_ms, (usage.ru_utime + usage.ru_stime) * 1000)
    return sample, os.waitstatus_to_exitcode(status)


@functools.cache
def unit_of_memory(scratch: str) -> int:
    """Return what busybox calls a KiB, in KiB: some versions take the kernel's KiB for pages."""
    script = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    words = [str(shutil.which("busybox")), "time", "-f", "%M", "-o", scratch, sys.executable, "-IS", "-c", script]
    truth = int(subprocess.run(words, capture_output=True, check=True).stdout)
    with open(scratch, encoding="ascii") as file:
        return max(1, round(int(file.read()) / truth))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare OCI runtimes on a bundle like Docker's.")
    parser.add_argument("--rounds", type=int, default=30, help="how often each command runs (default: 30)")
    parser.add_argument("--runtime", action="append", metavar="NAME=PATH", help="instead of rune, runc and crun")
    parser.add_argument("--counts", action="store_true", help="count instructions and system calls instead of time")
    return parser.parse_args()


def _runtimes(given: list[str] | None) -> list[tuple[str, str]]:
    if given:
        return [(name, os.path.abspath(path)) for name, _, path in (word.partition("=") for word in given)]
    if not os.path.exists(RUNE):
        raise SystemExit(f"bench: {RUNE} does not exist: run `make` first")
    found = [("rune", RUNE)]
    found += [(name, path) for name in ("runc", "crun") if (path := shutil.which(name))]
    return found


def _measure(runtimes: list[Runtime], rounds: int, short: str, long: str) -> None:
    for number in range(-WARM_UP_ROUNDS, rounds):
        turn = number % len(runtimes)
        for runtime in runtimes[turn:] + runtimes[:turn]:
            _round(runtime.weigh if number < 0 else runtime.time, short, long)


def _round(measure: Callable[..., None], short: str, long: str) -> None:
    measure("run", "--bundle", short, "bench")
    measure("create", "--bundle", long, "bench")
    measure("start", "bench")
    measure("state", "bench")
    measure("exec", "bench", "/bin/true")
    measure("kill", "bench", "KILL")
    time.sleep(0.05)  # until the kernel has ended it: delete refuses a container that runs
    measure("delete", "bench")


def _clean(runtimes: list[Runtime]) -> None:
    for runtime in runtimes:
        subprocess.run(runtime.words("delete", "--force", "bench"), capture_output=True, check=False)
    hierarchy.remove_groups()


def _show(runtimes: list[Runtime], rounds: int) -> None:
    print(f"{rounds} rounds. Ratio: minimum over rune's minimum. Times in ms, memory in MiB.\n")
    print(f"{'command':8} {'runtime':8} {'min':>7} {'median':>7} {'CPU':>7} {'peak RSS':>9} {'ratio':>6}")
    for command in COMMANDS:
        reference = min(sample.wall_ms for sample in runtimes[0].samples[command])
        for runtime in runtimes:
            samples = runtime.samples[command]
            wall = [sample.wall_ms for sample in samples]
            cpu_ms = statistics.mean(sample.cpu_ms for sample in samples)
            print(
                f"{command:8} {runtime.name:8} {min(wall):7.1f} {statistics.median(wall):7.1f} {cpu_ms:7.1f}"
                f" {runtime.peak_kib[command] / 1024:9.1f} {min(wall) / reference:6.2f}"
            )


if __name__ == "__main__":
    sys.exit(main())
