"""config.json: the variables that a carrier adds, written so that nobody ever reads a half of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from inclavare.carriers.job import Job
from inclavare.enclave.config import KEYS

ANNOTATIONS = dict(KEYS.values())


def add_variables(job: Job, variables: Mapping[str, str]) -> None:
    """Add variables to process.env of the bundle's config.json where neither it nor an annotation has them.

    Everything else stays as it is, in its order.
    """
    entries = list(job.process.get("env") or [])
    present = {str(entry).partition("=")[0] for entry in entries}
    annotations = job.configuration.get("annotations") or {}
    added = [
        f"{name}={value}"
        for name, value in variables.items()
        if name not in present and not annotations.get(ANNOTATIONS.get(name, ""))
    ]
    if not added:
        return
    document = {**job.configuration, "process": {**job.process, "env": [*entries, *added]}}
    path = f"{job.bundle}/config.json"
    temporary = f"{job.bundle}/.config.json.{os.getpid()}"
    job.undo.append(lambda: os.unlink(temporary))
    status = os.stat(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(json.dumps(document).encode("ascii"))
        os.fchmod(fd, status.st_mode & 0o7777)
        os.fchown(fd, status.st_uid, status.st_gid)
    os.rename(temporary, path)
