"""Configurations as engines write them, damaged at every member: read, or refused by the member's path, in little time.

INCLAVARE_FUZZ in the environment multiplies how much is tried (1 unless given).
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inclavare.errors import SpecError
from inclavare.oci.jsontext import loads
from inclavare.oci.reader import join_path
from inclavare.oci.spec import parse
from inclavare.oci.validate import validate
from tests.unit.oci.conftest import CONFIGS

CORPUS = sorted(path.name for path in Path(CONFIGS).glob("*.json"))
EFFORT = int(os.environ.get("INCLAVARE_FUZZ", "1"))
TIME_S = 2.0  # for one reading on a busy machine; the usual is a few milliseconds
ABSENT = object()


def _nested(depth: int) -> object:
    value: object = 0
    for number in range(depth):
        value = [value] if number % 2 else {"a": value}
    return value


ODD: list[object] = [
    *(ABSENT, None, True, False, 0, -1, 1.5, 1e308, 2**31, 2**32, 2**63, 2**64, -(2**63) - 1, 10**4000),
    *("", "/", "..", "a\0b", "\0", "\ud800", "\udfff/", "x" * 100_000, "\u202e", "%s{}", "1" * 5000, "/proc/self/fd/1"),
    *([], {}, [None], [[]], [{}], [""], {"": 0}, {"\0": "\0"}, {"\ud800": ""}, ["x"] * 10_000, _nested(200)),
]


def _places(value: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Give (container, key, JSON path) of every member."""
    if isinstance(value, dict):
        for key in value:
            inner = join_path(path, key)
            yield value, key, inner
            yield from _places(value[key], inner)
    elif isinstance(value, list):
        for index in range(len(value)):
            yield value, index, f"{path}[{index}]"
            yield from _places(value[index], f"{path}[{index}]")


def _read(document: object) -> SpecError | None:
    begin = time.monotonic()
    try:
        validate(parse(document))
    except SpecError as error:
        return error
    finally:
        assert time.monotonic() - begin < TIME_S
    return None


@pytest.mark.parametrize("name", CORPUS)
def test_what_is_odd_anywhere_is_read_or_refused_by_its_path(name: str) -> None:
    document = json.loads(Path(CONFIGS, name).read_text())
    chance = random.Random(name)  # noqa: S311  # chance, not secrets
    before = _read(document)  # everything.json asks for too much
    for container, key, path in list(_places(document)):
        for odd in chance.sample(ODD, min(len(ODD), 2 * EFFORT)):
            kept = list(container.items()) if isinstance(container, dict) else list(container)
            if odd is ABSENT:
                del container[key]
            else:
                container[key] = odd
            error = _read(document)
            container.clear()
            (container.update if isinstance(container, dict) else container.extend)(kept)
            if error is None or (before is not None and error.message == before.message):
                continue
            assert error.path, f"{path} = {odd!r:.60}: {error.message}"
            assert error.message.startswith(f"{error.path}: ")
            assert error.message.isascii()
            assert error.message.isprintable()
            assert len(error.message) < 1000
            if "must be" in error.message and "found" in error.message:
                ours = error.path.startswith(path) or path.startswith(error.path)
                assert ours, f"{path} = {odd!r:.60}: {error.message}"


@pytest.mark.parametrize("name", CORPUS)
def test_damaged_text_is_read_or_refused(name: str) -> None:
    raw = Path(CONFIGS, name).read_bytes()
    chance = random.Random(name)  # noqa: S311  # chance, not secrets
    pieces = (
        *(b"", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b'"', b"\\", b"\\ud800", b"\\u0000", b"{", b"[", b"]", b"}"),
        *(
            b",",
            b":",
            b"null",
            b"NaN",
            b"-",
            b"1e999",
            b"9" * 5000,
            b'{"a":' * 3000,
            b"[" * 100_000,
            b"//",
            b"\xef\xbb\xbf",
        ),
    )
    for _ in range(150 * EFFORT):
        start = chance.randrange(len(raw))
        damaged = raw[:start] + chance.choice(pieces) + raw[start + chance.choice((0, 1, 1, 2, 40)) :]
        begin = time.monotonic()
        message = ""
        try:
            validate(parse(loads(damaged)))
        except SpecError as error:
            message = error.message
        assert message.isascii()
        assert message.isprintable()
        assert time.monotonic() - begin < TIME_S


@pytest.mark.parametrize("name", CORPUS)
def test_a_member_given_twice_is_named(name: str) -> None:
    text = Path(CONFIGS, name).read_text()
    document = json.loads(text)
    for key in document:
        doubled = f'{{"{key}": null, {text.strip()[1:]}'
        with pytest.raises(SpecError, match=f'the member "{key}" twice'):
            loads(doubled.encode())
