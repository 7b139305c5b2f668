"""bench/shims.py does what docs/performance.md says, and a resident shim is no larger than is written there."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

ONE_MIB, FURTHER_MIB = 6.5, 0.3


@pytest.mark.usefixtures("as_root", "busybox")
def test_the_shim_of_a_pod_stays_small(checkout: Path, rune_program: Path) -> None:
    if rune_program.read_bytes()[:4] != b"\x7fELF":
        pytest.skip("the shim is a script here: Python's static library is missing (Debian package libpython3-dev)")
    done = subprocess.run(
        [
            "/usr/bin/python3",
            checkout / "bench/shims.py",
            f"--shim=rune={checkout}/build/bin/containerd-shim-rune-v2",
            *("--rounds=2", "--crowd=3", "--pod=6", "--gib=0.05"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    least = {line[:20].strip(): float(line.split()[-3]) for line in done.stdout.splitlines() if " rune " in line}
    assert {"create", "exec", "until all run", "until all is read"} <= set(least)
    assert 1 < least["one container"] <= ONE_MIB
    assert 0 <= least["each further"] <= FURTHER_MIB
