"""What a test of endurance looks at: mounts, control groups, processes, open files, shared memory.

It runs in pid, mount and IPC namespaces of its own, so that all that is in sight is its own doing: what is there at the
end and was not at the beginning is a leak. Control groups are looked at below a parent of our own only.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "INCLAVARE_SOAK"  # in the environment: the name of our control groups, once the namespaces are ours
GRACE_S = 5.0  # a process that was killed is not gone at once


class Leftovers:
    """What was there at the beginning. `paths`: patterns of files that are looked at, too."""

    def __init__(self, *paths: str) -> None:
        self.groups = os.environ[MARK]
        self.paths = paths
        self.before: dict[str, set[str]] = {}

    def begin(self) -> None:
        """Remember what is there."""
        reap()
        self.before = self.look()

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
            "control group": {group for place in self._places() for group in glob.glob(f"{place}/**/", recursive=True)},
            "file": {path for pattern in self.paths for path in glob.glob(pattern)},
            "process": {name for name in os.listdir("/proc") if name.isdecimal()},
            "open file": set(_files()),
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

    def remove_groups(self) -> None:
        """Remove our parent of control groups in every hierarchy."""
        for path in self._places():
            with contextlib.suppress(OSError):
                os.rmdir(path)

    def _places(self) -> list[str]:
        return glob.glob(f"/sys/fs/cgroup/*/{self.groups}") + glob.glob(f"/sys/fs/cgroup/{self.groups}")


def _files() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists
            yield f"{name} {os.readlink(f'/proc/self/fd/{name}').partition('[')[0]}"


def enter_namespaces(*places: str, first: bool = True) -> None:
    """Go on in namespaces of our own, by starting again in them: as the first process, or below a shell that reaps."""
    if MARK not in os.environ:
        os.environ[MARK] = f"inclavare-soak-{os.getpid()}"
        namespaces = ["--pid", "--fork", "--kill-child", "--mount-proc", "--ipc", "--mount", "--propagation", "private"]
        shell = [] if first else ["sh", "-c", '"$@"; exit $?', "sh"]
        words = [shutil.which("unshare") or "unshare", *namespaces, *shell, sys.executable, *sys.argv]
        os.execv(words[0], words)  # noqa: S606
    for place in ("/dev/shm", *places):  # noqa: S108  # a mount point
        os.makedirs(place, exist_ok=True)
        words = ["mount", "-t", "tmpfs", "none", place]
        if wait(os.posix_spawnp(words[0], words, os.environ)):
            raise SystemExit(f"soak: cannot mount a {place} of its own")


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
