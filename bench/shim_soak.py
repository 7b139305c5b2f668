#!/usr/bin/python3
"""Looks for what containerd-shim-rune-v2 loses, keeps or leaves behind, driven by a program that is no containerd.

First many lives of containers and calls in one shim, whose memory, files and threads must not grow; then the shim,
containerd or the container's process killed at random moments of a life: no exit may be lost, nothing may be left.
Needs root. Exit status 1, with what is wrong, otherwise.

Usage: bench/shim_soak.py [--lives N] [--calls N] [--kills N] [--seed N] [--shim PROGRAM]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time

import bundle
from containerd import Events, FailedError, Shim, Task
from leftovers import Leftovers, enter_namespaces, memory_mib, say

from inclavare.shim import messages as m
from inclavare.wire import protobuf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = f"{os.path.realpath(__file__ + '/../..')}/build/bin/containerd-shim-rune-v2"
SLEEP = ["/bin/sleep", "100000"]
GROUP = "io.kubernetes.cri.sandbox-id"
SOCKETS = "/run/containerd/s"
VICTIMS = ("shim", "containerd", "process")
WARM_UP_LIVES = 100
GROWTH_KIB = 256  # of memory that only the shim has, from the first to the last life
AWAY_S = 0.3
EXIT_TIMEOUT_S = 12.0
KILLED = 137


class Soak:
    """One shim under test."""

    def __init__(self, program: str, directory: str) -> None:
        self.directory = directory
        self.events = Events(f"{directory}/events.sock")
        self.shim = Shim("rune", program, "", self.events, directory)
        self.leftovers = Leftovers(f"{directory}/state-rune/*/*", f"{SOCKETS}/*", f"{directory}/soak-*")
        self.rootfs = bundle.make(directory, "first", SLEEP) and f"{directory}/rootfs"
        self.count = 0

    def task(self, group: str = "") -> Task:
        """Make the bundle of another container."""
        self.count += 1
        name = f"soak-{self.count}"
        os.mkdir(f"{self.directory}/{name}")
        config = bundle.config(self.rootfs, SLEEP, f"/{self.leftovers.groups}/{name}")
        config["annotations"] = {GROUP: group or name}
        with open(f"{self.directory}/{name}/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
        return Task(self.shim, name, f"{self.directory}/{name}")

    def lives(self, count: int, calls: int) -> None:
        """Let containers live in one shim, one after another."""
        begin = time.monotonic()
        first = self.task("pod")
        first.begin()
        first.create()
        first.start()
        before: dict[str, int] = {}
        for number in range(1, count + 1):
            self._life(first.client.call, calls // count)
            if number in (WARM_UP_LIVES, count):
                now = size_of(first.shim_pid)
                print(f"after {number} lives the shim has {words(now)}", flush=True)
                if before and (
                    now["KiB of its own"] > before["KiB of its own"] + GROWTH_KIB
                    or now["files"] > before["files"]
                    or now["threads"] > before["threads"]
                ):
                    raise SystemExit(f"soak: the shim grows: it had {words(before)}")
                before = before or now
        first.kill()
        first.delete()
        shutil.rmtree(first.bundle)
        self.expect(first.id)
        self.leftovers.check(f"after {count} lives")
        say(f"{count} lives and {calls} calls more in one shim, nothing left", begin)

    def _life(self, call: Callable[..., object], calls: int) -> None:
        task = self.task("pod")
        for action in (task.begin, task.create, task.start, lambda: task.execute(["/bin/true"])):
            action()
        for number in range(calls):
            call(("State", "Pids", "Stats", "Connect")[number % 4], id=task.id)
        task.kill()
        task.delete()
        shutil.rmtree(task.bundle)
        self.expect(task.id)

    def kills(self, count: int, chance: random.Random) -> None:
        """Kill one of three at random moments."""
        begin = time.monotonic()
        usual = min(self.usual() for _ in range(3))
        lost = dict.fromkeys(VICTIMS, 0)
        for number in range(1, count + 1):
            victim = VICTIMS[number % len(VICTIMS)]
            moment = chance.uniform(0, usual)
            where = f"after {victim} was killed {moment * 1000:.2f} ms into a life (round {number})"
            task = self.task()
            task.begin()
            met = self._interrupted(task, victim, moment)
            lost[victim] += met
            self._clean_up(task, victim, where)
            shutil.rmtree(task.bundle)
            self.leftovers.check(where)
        met_words = ", ".join(f"{victim} {lost[victim]}" for victim in VICTIMS)
        say(f"{count} kills, no exit lost, nothing left; a call failed for it: {met_words}", begin)

    def usual(self) -> float:
        """Return how long a life takes that is not disturbed."""
        task = self.task()
        task.begin()
        begin = time.perf_counter()
        self._go(task)
        took = time.perf_counter() - begin
        task.delete()
        shutil.rmtree(task.bundle)
        return took

    @staticmethod
    def _go(task: Task) -> None:
        task.create()
        task.start()
        task.execute(["/bin/true"])
        task.kill()

    def _interrupted(self, task: Task, victim: str, moment: float) -> bool:
        """Let a container live, and kill the victim at a moment; tell whether a call failed for it."""

        def strike() -> None:
            if victim == "containerd":
                self.events.down()
                task.client.hang_up()
            elif victim == "shim":
                os.kill(task.shim_pid, 9)
            elif task.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(task.pid, 9)

        timer = threading.Timer(moment, strike)
        timer.start()
        try:
            self._go(task)
        except (FailedError, OSError):
            return True
        else:
            return False
        finally:
            timer.join()

    def _clean_up(self, task: Task, victim: str, where: str) -> None:
        """Do what containerd does then."""
        if victim == "shim":
            task.abandon()
            answer = protobuf.parse(m.DELETED, task.deleted)
            if answer["exit_status"] != KILLED:
                raise SystemExit(f"soak: `delete` answers status {answer['exit_status']} {where}")
            return
        if victim == "containerd":
            time.sleep(AWAY_S)
            self.events.up()
            task.connect()
        created = True
        try:
            with contextlib.suppress(FailedError):  # it has ended already
                task.client.call("Kill", id=task.id, signal=9)
            task.wait()
        except FailedError:  # Create was undone
            created = False
        if created:
            self.expect(task.id)
        try:
            task.delete()
        except FailedError:
            task.abandon()

    def expect(self, container_id: str) -> None:
        """Wait for an exit's event."""
        deadline = time.monotonic() + EXIT_TIMEOUT_S
        while container_id not in self.events.exits:
            if time.monotonic() > deadline:
                raise SystemExit(f"soak: the exit of {container_id} is lost")
            time.sleep(0.001)


def size_of(pid: int) -> dict[str, int]:
    """Give what a process has."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        anonymous = next(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))
    return {
        "KiB of its own": anonymous,
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
    }


def words(size: dict[str, int]) -> str:
    """Say it."""
    return ", ".join(f"{number} {name}" for name, number in size.items())


def main() -> None:
    """Run both parts and print how they went."""
    parser = argparse.ArgumentParser(description="Look for what a shim loses, keeps or leaves behind.")
    parser.add_argument("--lives", type=int, default=2000, help="containers in one shim (default: 2000)")
    parser.add_argument("--calls", type=int, default=20_000, help="further calls meanwhile (default: 20000)")
    parser.add_argument("--kills", type=int, default=500, help="kills of shim, containerd, process (default: 500)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of the moments of these kills")
    parser.add_argument("--shim", default=PROGRAM, help="another shim")
    options = parser.parse_args()
    if os.geteuid():
        raise SystemExit("soak: containers need root")
    if not os.path.exists(options.shim):
        raise SystemExit(f"soak: {options.shim} does not exist: run `make` first")
    enter_namespaces(os.path.dirname(SOCKETS), first=False)
    os.mkdir(SOCKETS, 0o700)
    with tempfile.TemporaryDirectory(prefix="inclavare-soak-") as directory:
        soak = Soak(os.path.abspath(options.shim), directory)
        print(f"seed {options.seed}; {memory_mib()} MiB of memory available", flush=True)
        try:
            soak.usual()  # makes what stays: the state root, the parent of groups
            soak.leftovers.begin()
            soak.lives(options.lives, options.calls)
            soak.kills(options.kills, random.Random(options.seed))  # noqa: S311  # chance, not secrets
        finally:
            soak.leftovers.remove_groups()


if __name__ == "__main__":
    sys.exit(main())
