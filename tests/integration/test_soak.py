"""The soaks, in small: what lives, and what is killed at random moments, leaves nothing behind, and no shim grows."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("as_root", "busybox", "rune_program")
@pytest.mark.parametrize(
    ("program", "sizes", "said"),
    [
        ("soak.py", ("--cycles=60", "--crowd=10", "--kills=42"), ["42 kills of rune, nothing left"]),
        (
            "shim_soak.py",
            ("--lives=150", "--calls=1500", "--kills=30"),
            ["150 lives and 1500 calls more in one shim, nothing left", "30 kills, no exit lost, nothing left"],
        ),
    ],
)
def test_nothing_is_left_and_nothing_grows(
    checkout: Path, program: str, sizes: tuple[str, ...], said: list[str]
) -> None:
    done = subprocess.run(
        [checkout / "bench" / program, *sizes],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(words in done.stdout for words in said), done.stdout
