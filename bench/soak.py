#!/usr/bin/python3
"""Looks for what rune leaves behind: many containers in turn, many at once, and rune killed at random moments.

Needs root. Exit status 1, with a list, when anything is left or a command fails (leftovers.py).

Usage: bench/soak.py [--cycles N] [--crowd N] [--kills N] [--seed N] [--rune PATH]
"""

from __future__ import annotations

import argparse
import glob
import os
import random
import tempfile
import time

import bundle
from leftovers import Leftovers, enter_namespaces, memory_mib, outlive, reap, say, wait

RUNE = os.path.realpath(__file__ + "/../../build/bin/rune")
LOOK_EVERY = 1000
VICTIMS = ("create", "start", "exec", "run", "kill", "delete", "delete --force")


class Soak:
    """One machine under test: rune with a state root and control groups of its own."""

    def __init__(self, rune: str, directory: str) -> None:
        self.rune = rune
        self.directory = directory
        self.leftovers = Leftovers(f"{directory}/state/*")
        self.short = self._bundle("short", ["/bin/true"])
        self.long = self._bundle("long", ["/bin/sleep", "100000"])

    def start(self, *words: str) -> int:
        """Start a command and return its pid. Errors go to a file: a container would keep a pipe open."""
        actions = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions.append((os.POSIX_SPAWN_OPEN, 2, f"{self.directory}/error", flags, 0o600))
        return os.posix_spawn(
            self.rune, [self.rune, "--root", f"{self.directory}/state", *words], os.environ, file_actions=actions
        )

    def do(self, *words: str) -> None:
        """Run a command that must succeed."""
        if status := wait(self.start(*words)):
            with open(f"{self.directory}/error", encoding="utf-8", errors="replace") as file:
                raise SystemExit(f"soak: rune {' '.join(words)}: status {status}: {file.read()}")

    def create(self, name: str, path: str) -> int:
        """Make a container and return its pid."""
        self.do("create", "--pid-file", f"{self.directory}/pid", "--bundle", path, name)
        with open(f"{self.directory}/pid", encoding="ascii") as file:
            return int(file.read())

    def cycles(self, count: int) -> None:
        """Let containers live one after another."""
        begin = time.monotonic()
        for number in range(1, count + 1):
            pid = self.create("cycle", self.long)
            self.do("start", "cycle")
            self.do("kill", "cycle", "KILL")
            outlive(pid)
            self.do("delete", "cycle")
            if number % LOOK_EVERY == 0 or number == count:
                self.leftovers.check(f"after {number} cycles")
                say(f"{number} cycles, nothing left", begin)

    def crowd(self, count: int) -> None:
        """Let containers live at once."""
        begin = time.monotonic()
        names = [f"crowd-{number}" for number in range(count)]
        for name in names:
            self.create(name, self._bundle(name, ["/bin/sleep", "100000"]))
            self.do("start", name)
        reap()
        running = len(self.leftovers.look()["process"]) - len(self.leftovers.before["process"])
        if running != count:
            raise SystemExit(f"soak: of {count} containers {running} run")
        say(f"{count} containers alive at once; {memory_mib()} MiB of memory available", begin)
        for name in names:
            self.do("delete", "--force", name)
        self.leftovers.check(f"after {count} containers at once")
        say(f"{count} containers deleted, nothing left", begin)

    def kills(self, count: int, chance: random.Random) -> None:
        """Kill rune itself at random moments."""
        begin = time.monotonic()
        usual = {victim: min(self._victim(victim, None) for _ in range(3)) for victim in VICTIMS}
        hit = dict.fromkeys(VICTIMS, 0)
        for number in range(1, count + 1):
            victim = VICTIMS[number % len(VICTIMS)]
            moment = chance.uniform(0, 1.3 * usual[victim])
            hit[victim] += self._victim(victim, moment) < 0
            where = f"after rune was killed {moment * 1000:.2f} ms into {victim} (round {number})"
            self.do("delete", "--force", "victim")
            self.leftovers.check(where)
            self.create("victim", self.long)
            self.do("delete", "--force", "victim")
            self.leftovers.check(f"{where} and the id was used again")
            if number % LOOK_EVERY == 0 or number == count:
                say(f"{number} kills of rune, nothing left", begin)
        words = ", ".join(f"{victim} {hit[victim]}" for victim in VICTIMS)
        say(f"rune was still at work in {sum(hit.values())} of {count}: {words}", begin)

    def _victim(self, victim: str, moment: float | None) -> float:
        """Run a command, and kill it after `moment` seconds. Return how long it took, or -1 if it was killed."""
        words = [*victim.split(), "victim"]
        if victim in ("create", "run"):
            words = [victim, "--bundle", self.short if victim == "run" else self.long, "victim"]
        else:
            pid = self.create("victim", self.long)
            if victim != "start":
                self.do("start", "victim")
            if victim == "exec":
                words.append("/bin/true")
            elif victim == "kill":
                words.append("KILL")
            elif victim == "delete":
                self.do("kill", "victim", "KILL")
                outlive(pid)
        begin = time.perf_counter()
        rune = self.start(*words)
        if moment is not None:
            time.sleep(max(0.0, begin + moment - time.perf_counter()))
            os.kill(rune, 9)
        status = wait(rune)
        took = time.perf_counter() - begin
        if moment is None:
            if status:
                raise SystemExit(f"soak: rune {' '.join(words)}: status {status}")
            self.do("delete", "--force", "victim")
        return -1 if status == -9 else took

    def _bundle(self, name: str, args: list[str]) -> str:
        return bundle.make(self.directory, name, args, f"/{self.leftovers.groups}/{name}")


def main() -> None:
    """Run all three parts and print how they went."""
    parser = argparse.ArgumentParser(description="Look for what rune leaves behind.")
    parser.add_argument("--cycles", type=int, default=10_000, help="containers in turn (default: 10000)")
    parser.add_argument("--crowd", type=int, default=500, help="containers at once (default: 500)")
    parser.add_argument("--kills", type=int, default=1000, help="kills of rune (default: 1000)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="of the moments of these kills")
    parser.add_argument("--rune", default=RUNE, help="another rune")
    options = parser.parse_args()
    if os.geteuid():
        raise SystemExit("soak: containers need root")
    if not os.path.exists(options.rune):
        raise SystemExit(f"soak: {options.rune} does not exist: run `make` first")
    enter_namespaces()
    with tempfile.TemporaryDirectory(prefix="inclavare-soak-") as directory:
        soak = Soak(os.path.abspath(options.rune), directory)
        print(f"seed {options.seed}; {memory_mib()} MiB of memory available", flush=True)
        try:
            soak.create("first", soak.long)  # makes what stays: the state root, the parent of the control groups
            soak.do("delete", "--force", "first")
            soak.leftovers.begin()
            soak.cycles(options.cycles)
            soak.crowd(options.crowd)
            soak.kills(options.kills, random.Random(options.seed))  # noqa: S311  # chance, not secrets
        finally:
            _clean(soak)
    print(f"{memory_mib()} MiB of memory available", flush=True)


def _clean(soak: Soak) -> None:
    for path in glob.glob(f"{soak.directory}/state/*"):
        wait(soak.start("delete", "--force", os.path.basename(path)))
    soak.leftovers.remove_groups()


if __name__ == "__main__":
    main()
