"""The launcher's reader of JSON beside the standard library's: the same values and ends, errors for the same texts."""

from __future__ import annotations

import json
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from json.decoder import JSONDecodeError
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import CHECKOUT

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=3), values, max_size=4),
)
# What a text of JSON is made of, so that many are nearly right.
PIECES = """ { } [ ] , : " "a" "a": \\ \\u \\udd1e \\ud834\\udd1e \\n d834 é \U0001d11e - 0 1 01 .5 e E+ true fals null
    NaN Infinity -Infinity"""
TEXTS = st.lists(st.sampled_from([*PIECES.split(), " ", "\n", "\0"])).map("".join)


def load() -> ModuleType:
    path = str(CHECKOUT / "build/launcher/launcher_json.so")
    spec = spec_from_loader("launcher_json", ExtensionFileLoader("launcher_json", path))
    assert spec is not None
    module = module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


if not (CHECKOUT / "build/launcher/launcher_json.so").exists():
    pytest.skip("rune is a script here: Python's static library is missing", allow_module_level=True)
OURS = load()
DECODER = json.JSONDecoder()
NO_VALUE = "no JSON value"


def ours(text: str, start: int = 0) -> object:
    try:
        return OURS.make_scanner(DECODER)(text, start)
    except StopIteration as error:
        return NO_VALUE if 0 <= error.value <= max(start, len(text)) else error.value


def theirs(text: str, start: int = 0) -> object:
    try:
        return DECODER.scan_once(text, start)  # type: ignore[attr-defined]
    except (StopIteration, JSONDecodeError):
        return NO_VALUE


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_every_value_is_read_as_it_was_written(value: object, indent: int | None, plain: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    assert repr(ours(text)) == repr((value, len(text)))


@given(TEXTS)
def test_every_text_is_read_or_refused_as_the_standard_library_does(text: str) -> None:
    assert repr(ours(text)) == repr(theirs(text))


@given(st.text())
def test_every_string_is_written_as_the_standard_library_writes_it(text: str) -> None:
    assert OURS.encode_basestring_ascii(text) == json.encoder.py_encode_basestring_ascii(text)


@pytest.mark.parametrize("text", ["\ud834", "a\ud834\udd1e", "\udd1e\ud834", "\x7f\x80\xff\uffff"])
def test_lone_surrogates_and_odd_characters_are_written_too(text: str) -> None:
    assert OURS.encode_basestring_ascii(text) == json.encoder.py_encode_basestring_ascii(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_nesting_ends_at_the_limit_of_recursion(text: str) -> None:
    with pytest.raises(RecursionError):
        ours(text)


def test_what_a_hook_raises_goes_through_and_nothing_is_lost() -> None:
    class Rules:
        strict = True
        object_hook = None
        parse_int = float
        parse_float = float
        parse_constant = None

        def object_pairs_hook(self, pairs: list[tuple[str, object]]) -> object:
            if len(pairs) > 1:
                raise KeyError(pairs[1][0])
            return tuple(pairs)

    scan = OURS.make_scanner(Rules())
    before = sys.gettotalrefcount() if hasattr(sys, "gettotalrefcount") else 0
    assert scan('{"a": 1}', 0) == ((("a", 1.0),), 8)
    with pytest.raises(KeyError, match="b"):
        scan('[{"a": 1, "b": 2}]', 0)
    with pytest.raises(TypeError):
        scan("[NaN]", 0)
    assert not before or sys.gettotalrefcount() - before < 100


def test_memory_does_not_grow() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    text = json.dumps([{"name\n": "väl\U0001d11eue" * 100, "n": [1, 2.5, None]}] * 50)
    broken = text[:-20]
    for _ in range(200):
        ours(text)
        ours(broken)
        OURS.encode_basestring_ascii(text)
    before = resident()
    for _ in range(2000):
        ours(text)
        ours(broken)
        OURS.encode_basestring_ascii(text)
    assert resident() - before < 500  # pages


@pytest.mark.parametrize("start", [-1, 3, 10, sys.maxsize])
def test_a_start_outside_of_the_text_is_refused(start: int) -> None:
    if start < 0:
        with pytest.raises(ValueError, match="negative"):
            ours("[]", start)
    else:
        assert ours("[]", start) == NO_VALUE
