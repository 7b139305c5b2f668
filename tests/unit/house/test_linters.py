"""The rules of the house that a program can check; `make lint` runs the same."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]


@pytest.mark.linter
@pytest.mark.parametrize("target", ["lint-format", "lint-ruff", "lint-mypy", "lint-rooms", "lint-c"])
def test_the_tree_is_clean(target: str) -> None:
    if target == "lint-c" and not shutil.which("clang-format"):
        pytest.skip("needs clang-format (Debian package of that name)")
    done = subprocess.run(["make", "-s", target], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
