"""Whom a file of the host belongs to, where that decides what runs with rune's rights. Hot path.

A file that belongs to root is not yet root's word: what an image holds, and what a program that is root in a container
writes, belongs to root as well. So a file that is loaded must also lie where only the host puts files.
"""

from __future__ import annotations

import os
import stat

from inclavare.errors import EnclaveError

# Here engines keep images, containers and volumes: /var/lib/docker, /run/containerd, /var/lib/kubelet.
CONTENT_OF_CONTAINERS = ("/run", "/var")


def require_trusted(path: str, status: os.stat_result) -> None:
    """Refuse a file that others than root, or than who runs rune, can change. `status` is the file's own, not a link's.

    Raises EnclaveError. It is to be asked before a user namespace is entered: there, root's files belong to nobody.
    """
    if not stat.S_ISREG(status.st_mode):
        raise EnclaveError(f"{path} is not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise EnclaveError(f"{path} belongs to user {status.st_uid}, not to root", f"chown root {path}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EnclaveError(
            f"{path} has mode {stat.S_IMODE(status.st_mode):o}: others than its owner can write it",
            f"chmod go-w {path}",
        )


def require_trusted_place(path: str, of_container: list[str]) -> None:
    """Refuse a file that could be replaced by others, or that may come out of an image or a container.

    `path` and `of_container` (the directories and files of the host that the container can change) are real paths: a
    trusted directory holds on to their meaning until the file is loaded. Raises EnclaveError.
    """
    for place in of_container:
        if _is_below(path, place):
            raise EnclaveError(
                f"{path} can be changed by the container itself: it has {place}", "Install it elsewhere on the host."
            )
    for place in CONTENT_OF_CONTAINERS:
        if _is_below(path, place):
            raise EnclaveError(
                f"{path} may come out of an image or a volume: container engines keep those below {place}",
                "Install it elsewhere on the host, such as in /usr/lib or /opt.",
            )
    while path != "/":
        path = os.path.dirname(path)
        status = os.stat(path)
        if status.st_uid not in (0, os.geteuid()):
            raise EnclaveError(f"the directory {path} belongs to user {status.st_uid}, not to root")
        # In a sticky directory others can add files, but not replace those of root.
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
            raise EnclaveError(
                f"the directory {path} has mode {stat.S_IMODE(status.st_mode):o}: others than its owner can replace "
                "what is in it",
                f"chmod go-w {path}",
            )


def _is_below(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")
