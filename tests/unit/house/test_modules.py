"""Rules for the package's modules that no linter knows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
SOURCE = CHECKOUT / "src"
MODULES = sorted(SOURCE.rglob("*.py"))
HOT_COMMANDS = ("create", "start", "run", "state", "kill", "delete", "exec")
SLOW_MODULES = {
    *("argparse", "asyncio", "collections", "contextlib", "ctypes", "dataclasses", "enum", "functools", "inspect"),
    *("json", "logging", "pathlib", "re", "shutil", "subprocess", "tempfile", "threading", "tomllib", "typing"),
}


def test_no_module_is_a_drawer_for_everything() -> None:
    assert MODULES
    drawers = re.compile(r"util(s|ities)?|helpers?|common|misc|managers?")
    assert not [module for module in MODULES if drawers.fullmatch(module.stem)]


def test_modules_stay_readable() -> None:
    assert not {module.name: size for module in MODULES if (size := len(module.read_text().splitlines())) > 460}


def test_no_test_replaces_the_kernel_or_our_own_code() -> None:
    mock = re.compile(r"^\s*(from|import)\s+(unittest|mock)\b|\bmonkeypatch\.setattr\b", re.MULTILINE)
    assert not [
        path for path in (CHECKOUT / "tests").rglob("*.py") if path != Path(__file__) and mock.search(path.read_text())
    ]


@pytest.mark.parametrize("command", HOT_COMMANDS)
def test_a_hot_command_imports_nothing_slow(command: str) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        f"import inclavare.cli.rune, inclavare.cli.{command}_command\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-ISc", program], capture_output=True, text=True, check=True)
    assert not SLOW_MODULES & set(done.stdout.split())
