from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.errors import SpecError
from inclavare.oci.jsontext import dumps, loads

CONFIGS = os.path.join(os.path.dirname(__file__), "..", "..", "vectors", "configs")

scalars = st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=()))
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5), max_leaves=30
)


@pytest.mark.parametrize("name", sorted(name for name in os.listdir(CONFIGS) if name.endswith(".json")))
def test_a_configuration_is_read_as_json_reads_it(name: str) -> None:
    with open(os.path.join(CONFIGS, name), "rb") as file:
        data = file.read()
    assert loads(data) == json.loads(data)


@given(values)
def test_what_was_written_is_read_back(value: object) -> None:
    assert loads(dumps(value).encode()) == value


@given(values, st.sampled_from([None, "\t", "  ", ""]))
def test_text_is_that_of_json(value: object, indent: str | None) -> None:
    assert dumps(value, indent) == json.dumps(value, indent=indent)


def test_members_keep_their_order() -> None:
    assert dumps({"b": 1, "a": (2,)}) == '{"b": 1, "a": [2]}'


@pytest.mark.parametrize("value", [1.5, b"x", {1: 2}, {"a": {3}}])
def test_what_json_does_not_know_is_not_written(value: object) -> None:
    with pytest.raises(TypeError, match="cannot write a"):
        dumps(value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not valid JSON: line 1 column 1: a JSON value is expected"),
        (b" \n ", "is not valid JSON: line 2 column 2: a JSON value is expected"),
        (b"{", "line 1 column 2: Expecting property name enclosed in double quotes"),
        (b'{"a" 1}', "line 1 column 6: Expecting ':' delimiter"),
        (b'{\n\t"a": [1,\n\t2 3]}', "line 3 column 4: Expecting ',' delimiter"),
        (b'{"a": nul}', "line 1 column 7: a JSON value is expected"),
        (b'["\\x"]', "line 1 column 4: Invalid \\escape: 'x'"),
        (b'["a\nb"]', "line 2 column 1: Invalid control character '\\n'"),
        (b'"abc', "line 1 column 1: Unterminated string starting"),
        (b"{} x", "line 1 column 4: more text after its end"),
        (b"{}\n\n {}", "line 3 column 2: more text after its end"),
        (b"01", "line 1 column 2: more text after its end"),
        (b'{"a":\n"\xff"}', "line 2 column 2: a byte that is not UTF-8"),
        (b'"\xed\xa0\x80"', "line 1 column 2: a byte that is not UTF-8"),
        (b"\xef\xbb\xbf{}", "line 1 column 1: a JSON value is expected"),
        (b"NaN", "NaN is not a JSON value"),
        (b"[-Infinity]", "-Infinity is not a JSON value"),
        (b"1e999", "the number 1e999 is too large"),
        (b"-1e999", "the number -1e999 is too large"),
        (b"1" * 5000, "a number has too many digits"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"a":' * 100_000, "it is nested too deeply"),
        (b'[{"args": [], "cwd": "/", "args": 1}]', 'one object has the member "args" twice'),
    ],
)
def test_malformed_text_is_refused_with_its_place(data: bytes, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(data)
    assert caught.value.path == ""
    assert caught.value.message.startswith("config.json is not ")
    assert message in caught.value.message


def test_the_error_names_the_document() -> None:
    with pytest.raises(SpecError, match=r"^process\.json is not valid JSON: line 1 column 2:"):
        loads(b"[", "process.json")


def test_numbers_keep_their_kind() -> None:
    assert repr(loads(b"[1, 1.0, 18446744073709551616, -0, 1e2]")) == "[1, 1.0, 18446744073709551616, 0, 100.0]"


@given(st.binary() | st.text("{}[]:,\"\\ \n0123456789.eE+-trufalsn'u").map(str.encode))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        value = loads(data)
    except SpecError:
        return
    assert json.loads(data) == value
