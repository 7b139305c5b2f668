"""The launcher runs the same code as plain Python, and needs no more of the interpreter than it must."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Bundle, Rune

ELF = b"\x7fELF"


@pytest.fixture
def launcher(rune_program: Path) -> Path:
    if rune_program.read_bytes()[:4] != ELF:
        pytest.skip("rune is a script here: Python's static library is missing (Debian package libpython3-dev)")
    return rune_program


def run(program: Path, *words: str | Path, python: str = "0", cwd: Path | None = None) -> tuple[int, str, str]:
    environment = {**os.environ, "RUNE_PYTHON": python}
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False, env=environment, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["--help"],
        ["exec", "--help"],
        [],
        ["frobnicate"],
        ["--log-level", "loud", "list"],
        ["--root", "ROOT", "list"],
        ["--root", "ROOT", "list", "--format", "json"],
        ["--root", "ROOT", "state", "c\udcffd"],
        ["--root", "ROOT", "exec", "nope", "true"],
        ["--root", "ROOT", "run", "--bundle", "/nonexistent", "c"],
        ["--root", "ROOT", "run", "--bundle", "MALFORMED", "c"],
    ],
    ids=" ".join,
)
def test_it_answers_as_plain_python_does(launcher: Path, tmp_path: Path, words: list[str]) -> None:
    malformed = tmp_path / "malformed"
    malformed.mkdir()
    (malformed / "config.json").write_text('{"ociVersion": "1.0.2", "root": {"path"}}')
    places = {"ROOT": str(tmp_path / "root"), "MALFORMED": str(malformed)}
    words = [places.get(word, word) for word in words]
    assert run(launcher, *words) == run(launcher, *words, python="1")


@pytest.mark.parametrize("python", ["0", "1"])
def test_a_container_runs_in_both_ways(
    launcher: Path, busybox_bundle: Bundle, rune: Rune, as_root: None, python: str
) -> None:
    del rune, as_root
    bundle = busybox_bundle
    bundle.config["process"]["args"] = ["sh", "-c", "echo out; echo err >&2; exit 7"]
    root = bundle.path.parent / "root"
    assert run(launcher, "--root", root, "run", "--bundle", bundle.write(), "c", python=python) == (7, "out\n", "err\n")


def test_spec_writes_the_same_file(launcher: Path, tmp_path: Path) -> None:
    written = []
    for python in ("0", "1"):
        place = tmp_path / python
        place.mkdir()
        assert run(launcher, "spec", python=python, cwd=place) == (0, "", "")
        written.append((place / "config.json").read_text())
    assert written[0] == written[1]


def test_a_launcher_without_its_library_says_so(launcher: Path, tmp_path: Path) -> None:
    copy = tmp_path / "rune"
    shutil.copy(launcher, copy)
    assert run(copy, "list") == (1, "", "rune: its library is not beside it: install it with `make install`\n")


def test_a_full_pipe_and_a_closed_one_end_it_without_a_traceback(launcher: Path) -> None:
    for closing in ("exec 1>&-", "exec 1>/dev/full"):
        done = subprocess.run(
            ["sh", "-c", f"{closing}; exec {launcher} --help"], capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr


def test_it_tells_nothing_of_where_and_when_it_was_built(launcher: Path, checkout: Path) -> None:
    program = launcher.read_bytes()
    told = [str(checkout), *(word for word in os.environ.values() if len(word) > 12)]
    assert [word for word in told if os.fsencode(word) in program] == []


def test_it_is_the_same_however_often_it_is_saved(launcher: Path, checkout: Path, tmp_path: Path) -> None:
    build = checkout / "build/launcher"
    for number in range(5):
        copy = tmp_path / str(number)
        words = [build / "launcher", build / "modules.bin", copy]
        subprocess.run(words, env={"TZ": "UTC"}, input=b"", capture_output=True, check=True)
        assert copy.read_bytes() == launcher.read_bytes()
