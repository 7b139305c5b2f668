"""bench/soak.py, in small: containers in turn, at once, and rune killed at random moments leave nothing behind."""

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
