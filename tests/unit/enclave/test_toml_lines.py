"""The line of a key in TOML, however the key is written."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.enclave.toml_lines import line_of


@pytest.mark.parametrize(
    ("text", "keys", "line"),
    [
        ("a = 1", "a", 1),
        ("# a = 1\n\na = 1\n", "a", 3),
        ("[t]\nb = 1\na = 1\n", "t.a", 3),
        ("[t.u]\n[t]\na = 1", "t", 1),
        ("[t.u]\n[t]\na = 1", "t.a", 3),
        ("x = 1\nt.a = 1\n", "t.a", 2),
        ("x = 1\nt . \"a\" = 1 # t.b\n't'.b = 2\n", "t.b", 3),
        ('"\\u0061" = 1\n', "a", 1),
        ("x = '''\na = 1\n'''\na = 1\n", "a", 4),
        ('x = """\n[t]\na = 1\n\\""" ""\\\n"""\n[t]\na = 1\n', "t.a", 7),
        ('x = "# a = 1" # a\na = "#"', "a", 2),
        ("x = [\n  # ]\n  {a = 1},\n]\na = [\n]\n", "a", 5),
        ("x = 1\nt = { b = [\n1,\n], a = 1 }\n", "t.a", 2),
        ("x = 1\r\n\r\na = 1\r\n", "a", 3),
        ("[[t]]\na = 1\n[u]\na = 1\n", "u.a", 4),
        ("a = 1\n", "b", 0),
        ("", "b", 0),
        ("a = 1\n", "a.b", 0),
    ],
)
def test_a_key_has_the_line_of_its_statement(text: str, keys: str, line: int) -> None:
    assert line_of(text, tuple(keys.split("."))) == line


NAMES = st.text(alphabet="ab.\"'=#[\\\n é", max_size=8)
VALUES: st.SearchStrategy[str] = st.recursive(
    st.sampled_from(["1", "true", "1.5", "1979-05-27", "'# x'", '"""\n\nx = 1\n"""', "'''\n[a]\n'''"])
    | st.text(alphabet='ab =[]#\\"\n', max_size=9).map(json.dumps),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[" + ", # ]\n".join([*items, "]"])),
    max_leaves=4,
)
COMMENTS = st.sampled_from(["", "\n", "# [t] x = 1\n", " \n\t\n"])


@given(
    st.lists(st.tuples(COMMENTS, NAMES, VALUES), min_size=1, max_size=8, unique_by=lambda entry: entry[1]),
    st.booleans(),
)
def test_any_document_tells_its_lines(entries: list[tuple[str, str, str]], windows: bool) -> None:
    text, lines = "", []
    for comment, name, value in entries:
        text += comment
        lines.append(text.count("\n") + 1)
        text += f"{json.dumps(name)} = {value}\n"
    if windows:
        text = text.replace("\n", "\r\n")
    assert list(tomllib.loads(text)) == [name for _, name, _ in entries]
    assert [line_of(text, (name,)) for _, name, _ in entries] == lines


@given(st.text(alphabet="[]{}='\"#.,\\ \n\r1a") | st.text(), st.lists(NAMES, max_size=3).map(tuple))
def test_any_text_has_a_line_or_none(text: str, keys: tuple[Any, ...]) -> None:
    assert 0 <= line_of(text, keys) <= text.count("\n") + 1
