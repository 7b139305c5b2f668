"""Compiled filters are remembered, and nothing else is taken for one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inclavare.container.filter_cache import DIRECTORY, FILES_MAX, cached_filter, filter_key

CODE = b"\x06\0\0\0\0\0\xff\x7f"


class Compiler:
    """Counts how often it is asked."""

    def __init__(self, directory: Path) -> None:
        self.calls = 0
        self.file = directory / "compiler.py"
        self.file.write_text("v1")

    def __call__(self) -> bytes:
        self.calls += 1
        return CODE


@pytest.fixture
def compiler(tmp_path: Path) -> Compiler:
    return Compiler(tmp_path)


def _cached(root: Path, compiler: Compiler, profile: bytes = b"profile") -> bytes:
    return cached_filter(str(root), filter_key(profile, str(compiler.file)), compiler)


def _entry(root: Path) -> Path:
    (entry,) = (root / DIRECTORY).iterdir()
    return entry


def test_a_filter_is_compiled_once(tmp_path: Path, compiler: Compiler) -> None:
    assert [_cached(tmp_path, compiler), _cached(tmp_path, compiler)] == [CODE, CODE]
    assert compiler.calls == 1
    assert (tmp_path / DIRECTORY).stat().st_mode & 0o777 == 0o700


def test_another_profile_is_another_filter(tmp_path: Path, compiler: Compiler) -> None:
    _cached(tmp_path, compiler)
    _cached(tmp_path, compiler, b"other")
    assert compiler.calls == 2


def test_another_compiler_compiles_again(tmp_path: Path, compiler: Compiler) -> None:
    _cached(tmp_path, compiler)
    compiler.file.write_text("version 2")
    _cached(tmp_path, compiler)
    assert compiler.calls == 2


@pytest.mark.parametrize("change", ["flip", "cut", "empty"])
def test_a_damaged_entry_is_compiled_again(tmp_path: Path, compiler: Compiler, change: str) -> None:
    _cached(tmp_path, compiler)
    content = _entry(tmp_path).read_bytes()
    changed = {"flip": content[:-1] + b"\0", "cut": content[:-4], "empty": b""}[change]
    _entry(tmp_path).write_bytes(changed)
    assert _cached(tmp_path, compiler) == CODE
    assert compiler.calls == 2


def test_a_directory_that_others_can_write_is_not_believed(tmp_path: Path, compiler: Compiler) -> None:
    _cached(tmp_path, compiler)
    (tmp_path / DIRECTORY).chmod(0o777)
    _cached(tmp_path, compiler)
    assert compiler.calls == 2


def test_a_link_is_not_followed(tmp_path: Path, compiler: Compiler) -> None:
    _cached(tmp_path, compiler)
    entry = _entry(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    entry.rename(elsewhere)
    entry.symlink_to(elsewhere)
    _cached(tmp_path, compiler)
    assert compiler.calls == 2


def test_the_number_of_files_is_bounded(tmp_path: Path, compiler: Compiler) -> None:
    for number in range(FILES_MAX + 10):
        _cached(tmp_path, compiler, b"%d" % number)
    assert len(os.listdir(tmp_path / DIRECTORY)) <= FILES_MAX


def test_a_directory_that_cannot_be_made_costs_only_time(tmp_path: Path, compiler: Compiler) -> None:
    (tmp_path / DIRECTORY).write_text("a file")
    assert _cached(tmp_path, compiler) == CODE
