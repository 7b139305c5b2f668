"""The soaks, in small: what lives, and what is killed at random moments, leaves nothing behind, and no shim grows."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("as_root", "busybox")
def test_containers_and_killed_runes_leave_nothing_behind(checkout: Path, rune_program: Path) -> None:
    done = subprocess.run(
        [checkout / "bench/soak.py", f"--rune={rune_program}", "--cycles=60", "--crowd=10", "--kills=42"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "42 kills of rune, nothing left" in done.stdout


@pytest.mark.usefixtures("as_root", "busybox", "rune_program")
def test_a_shim_neither_grows_nor_loses_an_exit(checkout: Path) -> None:
    done = subprocess.run(
        [checkout / "bench/shim_soak.py", "--lives=150", "--calls=1500", "--kills=30"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "150 lives and 1500 calls more in one shim, nothing left" in done.stdout
    assert "30 kills, no exit lost, nothing left" in done.stdout
