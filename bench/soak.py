#!/usr/bin/python3
"""Looks for what rune leaves behind: many containers in turn, many at once, and rune killed at random moments.

Runs in pid, mount and IPC namespaces of its own, so that every process, mount and piece of shared memory in sight is
its own doing: what is there at the end and was not at the beginning is a leak. Needs root. It uses control groups below
a parent of its own only. Exit status 1, with a list, when anything is left or a command fails.

Usage: bench/soak.py [--cycles N] [--crowd N] [--kills N] [--seed N] [--rune PATH]
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import random
import shutil
import sys
import tempfile
import time

import bundle

RUNE = os.path.realpath(__file__ + "/../../build/bin/rune")
MARK = "INCLAVARE_SOAK"  # in the environment: the name of our control groups, once the namespaces are ours
LOOK_EVERY = 1000
GRACE_S = 5.0  # a process that was killed is not gone at once
VICTIMS = ("create", "start", "exec", "run", "kill", "delete", "delete --force")


class Soak:
    """One machine under test: rune with a state root and control groups of its own."""

    def __init__(self, rune: str, directory: str) -> None:
        self.rune = rune
        self.directory = directory
        self.groups = os.environ[MARK]
        self.short = self._bundle("short", ["/bin/true"])
        self.long = self._bundle("long", ["/bin/sleep", "100000"])
        self.before: dict[str, set[str]] = {}

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

    def places(self) -> list[str]:
        """Return our parent of control groups in every hierarchy."""
        return glob.glob(f"/sys/fs/cgroup/*/{self.groups}") + glob.glob(f"/sys/fs/cgroup/{self.groups}")

    def look(self) -> dict[str, set[str]]:
        """Return what is there, by kind."""
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            mounts = set(file.read().splitlines())
        shared: set[str] = set(os.listdir("/dev/shm"))  # noqa: S108  # to look at
        for kind in ("shm", "sem", "msg"):
            with open(f"/proc/sysvipc/{kind}", encoding="ascii") as file:
                shared.update(f"{kind} {line}" for line in file.read().splitlines()[1:])
        return {
            "mount": mounts,
            "control group": {group for place in self.places() for group in glob.glob(f"{place}/**/", recursive=True)},
            "state": set(glob.glob(f"{self.directory}/state/*")),
            "process": {name for name in os.listdir("/proc") if name.isdecimal()},
            "open file": set(os.listdir("/proc/self/fd")),
            "shared memory": shared,
        }

    def check(self, when: str) -> None:
        """Compare with the beginning. Raises SystemExit with a list of what is left."""
        deadline = time.monotonic() + GRACE_S
        while left := [
            f"{kind} {name}" for kind, names in self.look().items() for name in sorted(names ^ self.before[kind])
        ]:
            reap()
            if time.monotonic() > deadline:
                raise SystemExit("\n".join([f"soak: left {when}:", *left]))
            time.sleep(0.01)

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
                self.check(f"after {number} cycles")
                say(f"{number} cycles, nothing left", begin)

    def crowd(self, count: int) -> None:
        """Let containers live at once."""
        begin = time.monotonic()
        names = [f"crowd-{number}" for number in range(count)]
        for name in names:
            self.create(name, self._bundle(name, ["/bin/sleep", "100000"]))
            self.do("start", name)
        reap()
        running = len(self.look()["process"]) - len(self.before["process"])
        if running != count:
            raise SystemExit(f"soak: of {count} containers {running} run")
        say(f"{count} containers alive at once; {memory_mib()} MiB of memory available", begin)
        for name in names:
            self.do("delete", "--force", name)
        self.check(f"after {count} containers at once")
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
            self.check(where)
            self.create("victim", self.long)
            self.do("delete", "--force", "victim")
            self.check(f"{where} and the id was used again")
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
        return bundle.make(self.directory, name, args, f"/{self.groups}/{name}")


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
    _enter_namespaces()
    with tempfile.TemporaryDirectory(prefix="inclavare-soak-") as directory:
        soak = Soak(os.path.abspath(options.rune), directory)
        print(f"seed {options.seed}; {memory_mib()} MiB of memory available", flush=True)
        try:
            soak.create("first", soak.long)  # makes what stays: the state root, the parent of the control groups
            soak.do("delete", "--force", "first")
            reap()
            soak.before = soak.look()
            soak.cycles(options.cycles)
            soak.crowd(options.crowd)
            soak.kills(options.kills, random.Random(options.seed))  # noqa: S311  # chance, not secrets
        finally:
            _clean(soak)
    print(f"{memory_mib()} MiB of memory available", flush=True)


def wait(pid: int) -> int:
    """Wait for a process, as the first of its namespace also for those that nobody else waits for."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def outlive(pid: int) -> None:
    """Wait until a container's process has ended; who waited for something else may have met its end already."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def reap() -> None:
    """Take leave of all processes that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def memory_mib() -> int:
    """Return the memory that is available."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith("MemAvailable"))


def say(words: str, begin: float) -> None:
    """Print a line with the time since the part began."""
    print(f"{words} ({time.monotonic() - begin:.0f} s)", flush=True)


def _enter_namespaces() -> None:
    """Go on in namespaces of our own, by starting again in them, as the first process."""
    if MARK not in os.environ:
        os.environ[MARK] = f"inclavare-soak-{os.getpid()}"
        namespaces = ["--pid", "--fork", "--kill-child", "--mount-proc", "--ipc", "--mount", "--propagation", "private"]
        words = [shutil.which("unshare") or "unshare", *namespaces, sys.executable, *sys.argv]
        os.execv(words[0], words)  # noqa: S606
    words = ["mount", "-t", "tmpfs", "none", "/dev/shm"]  # noqa: S108  # a mount point
    if wait(os.posix_spawnp(words[0], words, os.environ)):
        raise SystemExit("soak: cannot mount a /dev/shm of its own")


def _clean(soak: Soak) -> None:
    for path in glob.glob(f"{soak.directory}/state/*"):
        wait(soak.start("delete", "--force", os.path.basename(path)))
    for path in soak.places():
        with contextlib.suppress(OSError):
            os.rmdir(path)


if __name__ == "__main__":
    main()
