"""Whom a file of the host belongs to, where that decides what runs with rune's rights. Hot path."""

from __future__ import annotations

import os
import stat

from inclavare.errors import EnclaveError


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
