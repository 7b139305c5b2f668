"""bench/compare.py does what docs/performance.md says, and rune costs no more than what is written there."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ("run", "create", "start", "state", "exec", "kill", "delete")
TOLERANCE = 1.1  # other versions of Python and of the kernel cost a few system calls more or less

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
def test_commands_make_no_more_system_calls_than_documented(checkout: Path, rune_program: Path) -> None:
    section = (checkout / "docs/performance.md").read_text().partition("--counts`")[2]
    documented = {
        command: int(calls.replace(",", ""))
        for command, calls in re.findall(r"^(\w+) +rune +[\d,-]+ +([\d,]+)$", section, re.MULTILINE)
    }
    assert set(documented) == set(COMMANDS)
    measured = {line[0]: int(line[3].replace(",", "")) for line in compare(checkout, rune_program, "--counts")}
    assert {command: calls for command, calls in measured.items() if calls > documented[command] * TOLERANCE} == {}
