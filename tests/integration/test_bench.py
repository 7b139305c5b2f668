"""bench/compare.py does what docs/performance.md says, and rune costs no more than what is written there."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ("run", "create", "start", "state", "exec", "kill", "delete")
TOLERANCE = 1.03

pytestmark = pytest.mark.usefixtures("as_root", "busybox")


def compare(checkout: Path, rune_program: Path, *words: str) -> list[list[str]]:
    """Run the comparison for rune alone and return the words of each line of its table."""
    done = subprocess.run(
        ["/usr/bin/python3", checkout / "bench/compare.py", f"--runtime=rune={rune_program}", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split() for line in done.stdout.splitlines() if " rune " in line]


def test_every_command_is_measured(checkout: Path, rune_program: Path) -> None:
    table = compare(checkout, rune_program, "--rounds=2")
    assert [line[0] for line in table] == list(COMMANDS)
    for _, _, least, median, cpu, peak, ratio in table:
        assert 0 < float(least) <= float(median)
        assert float(cpu) > 0
        assert 1 < float(peak) < 100
        assert ratio == "1.00"


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace (Debian package of that name)")
def test_commands_cost_no_more_than_documented(checkout: Path, rune_program: Path) -> None:
    if rune_program.read_bytes()[:4] != b"\x7fELF":
        pytest.skip("rune is a script here: Python's static library is missing (Debian package libpython3-dev)")
    section = (checkout / "docs/performance.md").read_text().partition("--counts`")[2].partition("\n## ")[0]
    documented = dict(_counts(line.split()) for line in section.splitlines() if line.split()[1:2] == ["rune"])
    assert set(documented) == set(COMMANDS)
    assert all(calls for _, calls in documented.values())
    for command, counts in map(_counts, compare(checkout, rune_program, "--counts")):
        for found, allowed in zip(counts, documented[command], strict=True):
            assert found <= allowed * TOLERANCE, command


def _counts(words: list[str]) -> tuple[str, tuple[int, int]]:
    """Give a command and its instructions and system calls; 0 for what could not be counted."""
    command, _, instructions, calls = (word.replace(",", "") for word in words)
    return command, (int(instructions.replace("-", "0")), int(calls))
