from __future__ import annotations

import pytest

from inclavare.errors import SpecError
from inclavare.oci.reader import UINT64_MAX, Members, join_path, show


@pytest.mark.parametrize(
    ("path", "name", "joined"),
    [
        ("", "process", "process"),
        ("process", "args", "process.args"),
        ("linux.sysctl", "net.core.somaxconn", 'linux.sysctl["net.core.somaxconn"]'),
        ("annotations", 'a"b\n', 'annotations["a\\"b\\n"]'),
        ("a", "", 'a[""]'),
        ("a", "gr\u00fcn", 'a["gr\\u00fcn"]'),
        ("a", "x" * 100, f'a["{"x" * 64}..."]'),
    ],
)
def test_paths_stay_readable(path: str, name: str, joined: str) -> None:
    assert join_path(path, name) == joined


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        (True, "true"),
        (7, "7"),
        (1.5, "1.5"),
        (UINT64_MAX + 1, "a number beyond 64 bits"),
        ('a"b', '"a\\"b"'),
        ("\ud800", '"\\ud800"'),
        ("x" * 65, f'"{"x" * 64}..."'),
        ([1], "a list"),
        ({}, "an object"),
    ],
)
def test_values_are_shown_in_short(value: object, shown: str) -> None:
    assert show(value) == shown


def test_paths_are_known_at_any_depth() -> None:
    top = Members({"a": {"b": [{}, {"c": [1, "x"]}]}})
    inner = top.child("a").children("b")[1]
    assert inner.path("c", 1) == "a.b[1].c[1]"
    with pytest.raises(SpecError, match=r'^a\.b\[1\]\.c\[1\]: must be an integer, found "x"$'):
        inner.numbers("c", 0, 9)


def test_null_counts_as_not_given() -> None:
    names = ("flag", "number", "text", "list", "object")
    members = Members(dict.fromkeys(names))
    assert members.flag("flag") is False
    assert members.number("number", 0, 1) is None
    assert members.text("text") is None
    assert members.texts("list") == []
    assert members.optional_child("object") is None
    members.end()
    assert members.unknown == []


def test_members_that_nobody_read_are_unknown() -> None:
    top = Members({"a": {"extra": 1}, "more": None})
    top.child("a").end()
    top.end()
    assert top.unknown == ["a.extra", "more"]


def test_reading_leaves_the_document_as_it_was() -> None:
    document = {"a": "x"}
    Members(document).text("a")
    assert document == {"a": "x"}


def test_true_is_not_a_number() -> None:
    with pytest.raises(SpecError, match="n: must be an integer, found true"):
        Members({"n": True}).number("n", 0, 1)


def test_a_whole_float_is_not_an_integer() -> None:
    with pytest.raises(SpecError, match=r"n: must be an integer, found 1\.0"):
        Members({"n": 1.0}).number("n", 0, 1)
