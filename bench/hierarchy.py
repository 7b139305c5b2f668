"""Lets crun run where cgroup v1 and v2 are mixed.

crun refuses a host whose controllers are in v1 hierarchies while the v2 hierarchy beside them holds some too. Without
that one, in a mount namespace of our own, every runtime sees the same plain v1 host.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

UNIFIED = "/sys/fs/cgroup/unified"


def enter_namespace() -> None:
    """Go on in a mount namespace of our own without a mixed hierarchy, by starting again in it."""
    if os.environ.get("INCLAVARE_BENCH") != "isolated":
        os.environ["INCLAVARE_BENCH"] = "isolated"
        words = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvp(words[0], words)  # noqa: S606
    if os.path.ismount(UNIFIED):
        subprocess.run(["umount", UNIFIED], check=True)


def remove_groups() -> None:
    """Remove the parent groups that runtimes made for the bundles."""
    for name in os.listdir("/sys/fs/cgroup"):
        with contextlib.suppress(OSError):
            os.rmdir(f"/sys/fs/cgroup/{name}/inclavare-bench")
