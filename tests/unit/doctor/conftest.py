"""Hosts as directory trees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inclavare.cli.runectl import main

# A host on which all of rune works.
WELL = {
    "proc/sys/kernel/osrelease": "6.1.0-18-amd64",
    "proc/filesystems": "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tmqueue\n\text4\nnodev\toverlay\n",
    "proc/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\nudev /dev devtmpfs rw,nosuid 0 0\n",
    "proc/sys/kernel/seccomp/actions_avail": "kill_process trap errno user_notif trace log allow",
    "proc/sys/vm/memfd_noexec": "0",
    "proc/sys/user/max_user_namespaces": "15000",
    "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu xsave fsgsbase\n",
    **{f"proc/self/ns/{name}": "" for name in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")},
}


class HostTree:
    """A host's files below `root`, and runectl doctor on it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capsys = capsys
        for path, text in WELL.items():
            self.write(path, text)

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def text(self, *options: str) -> tuple[int, str]:
        code = main(["doctor", "--root", str(self.root), *options])
        return code, self._capsys.readouterr().out

    def doctor(self, *options: str) -> tuple[int, dict[str, Any]]:
        code, out = self.text(*options, "--json")
        document = json.loads(out)
        assert isinstance(document, dict)
        return code, document

    def finding(self, subject: str, *options: str) -> dict[str, Any]:
        found = [entry for entry in self.doctor(*options)[1]["findings"] if entry["subject"] == subject]
        assert len(found) == 1, subject
        entry = found[0]
        assert isinstance(entry, dict)
        return entry


@pytest.fixture
def host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> HostTree:
    return HostTree(tmp_path / "host", capsys)
