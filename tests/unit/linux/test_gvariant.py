"""GVariant text: its values, and text that is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.linux.dbus import DBusError, Variant
from inclavare.linux.gvariant import KEYWORDS, parse


@pytest.mark.parametrize(
    ("text", "signature", "value"),
    [
        ("true", "b", True),
        ("5", "i", 5),
        ("-0x10", "i", -16),
        ("017", "i", 15),
        ("1.5e3", "d", 1500.0),
        ("uint64 20000000", "t", 20000000),
        ("@t 5", "t", 5),
        ("double 5", "d", 5.0),
        ("objectpath '/a'", "o", "/a"),
        ("'it\\'s'", "s", "it's"),
        ('"\\u00e4\\n"', "s", "ä\n"),
        ("b'ab'", "ay", b"ab\0"),
        ("['a', 'b']", "as", ["a", "b"]),
        ("[byte 1, 2]", "ay", b"\x01\x02"),
        ("@ay [1, 2]", "ay", b"\x01\x02"),
        ("[1, 2.5]", "ad", [1.0, 2.5]),
        ("@as []", "as", []),
        ("@a{sv} {}", "a{sv}", {}),
        ("('a', uint32 1)", "(su)", ("a", 1)),
        ("(1,)", "(i)", (1,)),
        ("{'key': <1>, 'other': <'text'>}", "a{sv}", {"key": Variant("i", 1), "other": Variant("s", "text")}),
        ("  [ ( 'a' , true ) ] ", "a(sb)", [("a", True)]),
    ],
)
def test_text_is_a_value_of_its_type(text: str, signature: str, value: Any) -> None:
    assert parse(text) == Variant(signature, value)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "word",
            "5 5",
            "'open",
            "[1, 'a']",
            "[1,",
            "[,]",
            "{1: 2",
            "[]",
            "{}",
            "()",
            "nothing",
            "just 5",
            "<5",
            "@q",
        ),
        *("uint64 -1", "byte 300", "@ay [300]", "5000000000", "inf", "1_000", "@(ss) ('a',)", "string 5", "boolean 1"),
        *("uint32 uint64 5", "@ms 'a'", "'a\\u12'", "[" * 100 + "]" * 100, "objectpath 'a'", "b'\\x"),
    ],
)
def test_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DBusError):
        parse(text)


@given(
    st.one_of(st.text(), st.lists(st.sampled_from([*KEYWORDS, *"@[](){}<>,:'\"b1-. asv", "true", "\\u"])).map("".join))
)
def test_any_text_is_a_value_or_our_error(text: str) -> None:
    try:
        parse(text)
    except DBusError:
        return


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_quoted_text_is_itself(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    assert parse(f"'{quoted}'") == Variant("s", text)


@given(st.integers(0, 2**64 - 1))
def test_any_number_of_64_bits_is_itself(number: int) -> None:
    assert parse(f"uint64 {number}") == Variant("t", number)
