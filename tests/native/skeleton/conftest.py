"""The skeleton as `make` built it, and its driver."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def built() -> Path:
    """Return the folder of the built native parts, after `make` has brought them up to date."""
    subprocess.run(["make", "-s", "all", "build/skeleton/drive", "build/skeleton/ecalls"], cwd=ROOT, check=True)
    return ROOT / "src" / "inclavare" / "_native"
