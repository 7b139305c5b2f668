"""Lets crun run where cgroup v1 and v2 are mixed.

crun refuses a host whose controllers are in v1 hierarchies while the v2 hierarchy beside them holds some too. With
those mounted as v1 for the time of a measurement, every runtime sees the same plain v1 host. The mounts are made in a
mount namespace of our own, and undone at the end, so that the controllers return to where they were.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

UNIFIED = "/sys/fs/cgroup/unified/cgroup.controllers"
ATTEMPTS = 20


def enter_namespace() -> None:
    """Go on in a mount namespace of our own, by starting again in it."""
    if os.environ.get("INCLAVARE_BENCH") != "isolated":
        os.environ["INCLAVARE_BENCH"] = "isolated"
        words = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvp(words[0], words)  # noqa: S606


@contextlib.contextmanager
def free_of_hybrid(directory: str) -> Iterator[bool]:
    """Mount the controllers of a v2 hierarchy beside v1 as v1, below `directory`, as long as the context lasts.

    Tells whether there is none left: they cannot be had while anybody has a group in the v2 hierarchy.
    """
    mounted = []
    try:
        for place in [f"{directory}/{name}" for name in _stray_controllers()]:
            os.mkdir(place)  # runc takes the controller's name from the place
            if not _mount(place):
                break
            mounted.append(place)
        yield not _stray_controllers()
    finally:
        for place in mounted:
            _unmount(place)


def remove_groups() -> None:
    """Remove the parent groups that runtimes made for the bundles."""
    for name in os.listdir("/sys/fs/cgroup"):
        with contextlib.suppress(OSError):
            os.rmdir(f"/sys/fs/cgroup/{name}/inclavare-bench")


def _stray_controllers() -> list[str]:
    try:
        with open(UNIFIED, encoding="ascii") as file:
            return file.read().split()
    except FileNotFoundError:
        return []


def _mount(place: str) -> bool:
    """Mount one controller. It is busy while a group of the v2 hierarchy exists, or has just ceased to."""
    for _ in range(ATTEMPTS):
        words = ["mount", "-t", "cgroup", "-o", os.path.basename(place), "none", place]
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            return True
        time.sleep(0.5)
    return False


def _unmount(place: str) -> None:
    """Unmount one controller and see it return; a hierarchy whose last group is just gone stays for a while."""
    for path, _, _ in os.walk(place, topdown=False):
        if path != place:
            os.rmdir(path)
    for _ in range(ATTEMPTS):
        time.sleep(1)
        subprocess.run(["umount", place], check=True)
        time.sleep(0.5)
        if os.path.basename(place) in _stray_controllers():
            return
        if not _mount(place):
            break
    print(f"bench: {os.path.basename(place)} does not return to {os.path.dirname(UNIFIED)} yet", file=sys.stderr)
