"""Bundles that every runtime takes: a shared, read-only busybox, and all that a test changes in `config`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT"]
MOUNTS = {
    "/proc": ("proc", "nosuid,noexec,nodev"),
    "/dev": ("tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
    "/dev/pts": ("devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"),
    "/dev/shm": ("tmpfs", "nosuid,noexec,nodev,mode=1777,size=1024k"),
    "/tmp": ("tmpfs", "nosuid,nodev,mode=1777,size=65536k"),
}


class Bundle:
    """A directory with config.json, which is written by write()."""

    def __init__(self, path: Path, rootfs: Path, args: Sequence[str], cgroup: str) -> None:
        path.mkdir(parents=True)
        self.path = path
        self.config: dict[str, Any] = {
            "ociVersion": "1.0.2",
            "process": process(args) | {"terminal": False},
            "root": {"path": str(rootfs), "readonly": True},
            "hostname": "kit",
            "mounts": [
                {"destination": place, "type": kind, "source": kind, "options": options.split(",")}
                for place, (kind, options) in MOUNTS.items()
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc")],
                "cgroupsPath": cgroup,
                "resources": {"devices": [{"allow": True, "access": "rwm"}]},
            },
        }

    def write(self) -> Path:
        (self.path / "config.json").write_text(json.dumps(self.config))
        return self.path


def process(args: Sequence[str], **others: object) -> dict[str, object]:
    """Give a process as in config.json and in the spec of an Exec."""
    return {
        "args": list(args),
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        **others,
    }
