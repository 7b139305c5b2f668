"""Machines of tools/vm.py: systemd is PID 1, and the machine is ours alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inclavare.linux.cgroups import Layout, read_layout
from tests.kernel.conftest import Bundle, Result, Rune, rootfs

__all__ = ["rootfs"]  # a fixture


@pytest.fixture(scope="session", autouse=True)
def _machine() -> None:
    if "INCLAVARE_VM" not in os.environ:
        pytest.skip("runs in a virtual machine: make test-vm")


@pytest.fixture(scope="session")
def layout() -> Layout:
    return read_layout()


class Systemctl:
    """What systemd says of units."""

    def __call__(self, *words: str) -> str:
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        return self("show", "--value", f"--property={name}", unit).strip()

    def containers(self) -> list[str]:
        """Return the units that containers of tests have, the failed ones too."""
        listed = self("list-units", "--all", "--plain", "--no-legend", "rune-*.scope", "test-*.scope")
        return [line.split()[0] for line in listed.splitlines()]


class SystemdRune(Rune):
    """A rune that has systemd make the groups."""

    def command(self, *words: str | Path) -> list[str]:
        program, *rest = super().command(*words)
        return [program, "--systemd-cgroup", *rest]


@pytest.fixture
def systemctl() -> Systemctl:
    return Systemctl()


@pytest.fixture
def rune(tmp_path: Path, systemctl: Systemctl) -> Iterator[SystemdRune]:
    program = SystemdRune(tmp_path)
    yield program
    if program.root.exists():
        for state in list(program.root.iterdir()):
            if not state.name.startswith("."):
                program("delete", "--force", state.name)
    assert not program.leftovers()
    assert not systemctl.containers()


@pytest.fixture
def bundle(tmp_path: Path, rootfs: Path) -> Bundle:
    path = tmp_path / tmp_path.name
    path.mkdir()
    made = Bundle(path, rootfs)
    del made.linux["cgroupsPath"]
    return made


def own_groups(result: Result) -> dict[str, str]:
    """Return hierarchy -> group of a /proc/self/cgroup that a container wrote."""
    lines: list[Any] = [line.split(":") for line in result.out.splitlines()]
    return {name: group for _, name, group in lines}
