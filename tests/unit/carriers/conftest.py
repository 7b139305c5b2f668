"""A bundle, the administrator's settings, and a log that is kept."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from inclavare import carriers
from inclavare.enclave.hostconfig import HostConfig
from inclavare.log import Log


def emulated_settings() -> HostConfig:
    """Return the settings of a host for tests of enclaves."""
    settings = HostConfig()
    settings.platform = "emulated"
    settings.signature_throw_away_key = True
    settings.cache_size = 0
    settings.build_timeout_s = 60
    return settings


def make_occlum(directory: Path) -> Path:
    """Make a tree like /opt/occlum, and beside it a folder `programs` with stand-ins for occlum and sgx_sign."""
    source = Path(__file__).parents[3]
    for name in ("occlum", "sgx_sign"):
        path = directory / "programs" / name
        path.parent.mkdir(exist_ok=True)
        paths = [str(source / "src"), str(source)]
        program = Path(__file__).with_name("tools_of_occlum.py")
        path.write_text(
            f"#!{sys.executable} -B\nimport sys\nsys.path[:0] = {paths!r}\nexec(open({str(program)!r}).read())"
        )
        path.chmod(0o755)
    library = directory / "opt/build/lib"
    library.mkdir(parents=True)
    for name in ("libocclum-pal.so", "libocclum-libos.so"):
        (library / name).write_text(name)
    return directory / "opt"


@dataclass
class Bundle:
    """A bundle that a test changes, and the call that prepares it."""

    path: Path
    settings: HostConfig
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def rootfs(self) -> Path:
        return self.path / "rootfs"

    @property
    def place(self) -> Path:
        return self.rootfs / "run/rune"

    @property
    def env(self) -> list[str]:
        env: list[str] = self.config["process"]["env"]
        return env

    def write(self) -> None:
        (self.path / "config.json").write_text(json.dumps(self.config))

    def prepare(self) -> str:
        """Prepare the bundle; give what was logged."""
        self.write()
        log = self.path.parent / "log"
        with log.open("wb", buffering=0) as file:
            carriers.prepare(str(self.path), self.settings, Log(file.fileno()), self.environment)
        return log.read_text()

    def written(self) -> dict[str, Any]:
        """Return config.json as it is now."""
        document: dict[str, Any] = json.loads((self.path / "config.json").read_text())
        return document

    def files(self) -> dict[str, str]:
        """Return what is in the bundle, each with a word about what it is; of files the content."""
        found = {}
        for directory, names, files in os.walk(self.path):
            for name in names + files:
                path = Path(directory, name)
                kind = "link" if path.is_symlink() else "directory" if path.is_dir() else ""
                found[str(path.relative_to(self.path))] = kind or (repr(path.read_bytes()) if path.is_file() else "?")
        return found


@pytest.fixture
def settings() -> HostConfig:
    return emulated_settings()


@pytest.fixture
def bundle(tmp_path: Path, settings: HostConfig) -> Iterator[Bundle]:
    made = Bundle(tmp_path / "bundle", settings)
    made.rootfs.mkdir(parents=True)
    (made.rootfs / "etc").mkdir()
    made.config = {
        "ociVersion": "1.0.2",
        "process": {"cwd": "/run/rune", "args": ["/bin/hello"], "env": ["PATH=/bin", "NAME"]},
        "root": {"path": "rootfs"},
    }
    made.write()
    yield made
    left = [pid for pid in Path("/proc").glob("[0-9]*") if str(tmp_path) in _place(pid)]
    assert not left, "processes are left"


def _place(process: Path) -> str:
    try:
        return f"{(process / 'cwd').readlink()} {(process / 'cmdline').read_bytes().decode(errors='replace')}"
    except OSError:
        return ""
