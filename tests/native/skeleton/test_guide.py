"""The runtime that docs/guides/skeleton.md tells readers to write, compiled as it says."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "guides" / "skeleton.md"


def blocks(language: str) -> list[str]:
    return [part.split("\n```")[0] for part in GUIDE.read_text(encoding="utf-8").split(f"```{language}\n")[1:]]


@pytest.fixture(scope="session")
def mine(built: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the command that drives the guide's runtime; verbs are to be added."""
    assert built
    folder = tmp_path_factory.mktemp("guide")
    (source,) = blocks("c")
    (folder / "mine.c").write_text(source, encoding="ascii")
    (compile_,) = (block for block in blocks("sh") if block.startswith("gcc"))
    command = [str(ROOT / word) if word == "native/include" else word for word in shlex.split(compile_)]
    subprocess.run([*command, "-Werror"], cwd=folder, check=True)
    return [str(ROOT / "build" / "skeleton" / "drive"), "-", str(folder / "liberpal-mine.so")]


def drive(mine: list[str], *verbs: str) -> list[str]:
    done = subprocess.run([*mine, *verbs], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_the_guides_runtime_runs_programs(mine: list[str]) -> None:
    lines = drive(mine, "version", "init:", "create:/bin/echo hello", "exec", "create:/bin/false", "exec", "destroy")
    assert sorted(lines) == sorted(
        ["> version 2", "> init 0", "> create 0", "hello", "> exec 0 0", "> create 0", "> exec 0 1", "> destroy 0"]
    )


def test_the_guides_runtime_forwards_signals(mine: list[str]) -> None:
    lines = drive(mine, "block:15", "init:", "create:/bin/sleep 100", "kill:15,-1", "exec")
    assert lines[-2:] == ["> kill 0", "> exec 0 143"]


def test_the_guides_runtime_says_what_is_not_there(mine: list[str]) -> None:
    assert drive(mine, "init:", "create:/no/such/program")[-1] == "> create -2"


def test_every_file_that_the_guide_names_exists() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    named = {word.strip("`(),.:;") for word in text.split() if word.strip("`(),.:;").startswith("native/")}
    assert len(named) > 3
    for name in named:
        assert (ROOT / name).exists(), name
    for name in ("encl.S", "encl.lds", "enclave.c", "image.c", "ecall.h"):
        assert name in text
        assert (ROOT / "native" / "skeleton" / name).exists()
