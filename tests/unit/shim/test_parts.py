"""Small parts of the shim that are of bytes and values alone."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.cli.shim import _parse
from inclavare.errors import SpecError, UsageError
from inclavare.shim import options
from inclavare.shim.log import ShimLog, describe
from inclavare.shim.logger import _unquote


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("/usr/bin/logger", "/usr/bin/logger"),
        ("a%20b", "a b"),
        ("a+b", "a+b"),
        ("%2Fx%3d", "/x="),
        ("100%", "100%"),
        ("%zz%4", "%zz\x04"),
        ("%C3%A9", "é"),
        ("", ""),
    ],
)
def test_a_url_is_unquoted(given_text: str, expected: str) -> None:
    assert _unquote(given_text) == expected


@pytest.mark.parametrize(
    ("words", "flags", "action"),
    [
        (["-id", "x", "-namespace", "n", "start"], {"id": "x", "namespace": "n"}, "start"),
        (["-id=x", "--namespace=n=m", "delete"], {"id": "x", "namespace": "n=m"}, "delete"),
        (["-debug", "-id", "-x", "start", "-late"], {"debug": "", "id": "-x"}, "start"),
        (["-debug=false", "-id", "", "start"], {"id": ""}, "start"),
        (["--", "start"], {}, "start"),
        ([], {}, ""),
    ],
)
def test_flags_are_gos(words: list[str], flags: dict[str, str], action: str) -> None:
    assert _parse(words) == (flags, action)


@pytest.mark.parametrize("words", [["-unknown"], ["-id"], ["-"], ["---id", "x"]])
def test_flags_that_are_none_are_refused_or_words(words: list[str]) -> None:
    try:
        flags, action = _parse(words)
    except UsageError:
        return
    assert (flags, action) in (({}, "-"), ({"id": "x"}, ""))


def test_options_outlive_their_shim() -> None:
    given_options = options.Options()
    given_options.values.update(root="/r", io_uid=5, systemd_cgroup=True)
    again = options.from_json(given_options.json())
    assert again.values == given_options.values
    assert again.root("ns") == "/r/ns"
    assert options.Options().root("ns") == "/run/containerd/runc/ns"


@given(raw=st.binary(max_size=100))
def test_any_bytes_are_options_or_refused(raw: bytes) -> None:
    try:
        options.from_json(raw)
    except SpecError:
        return


@pytest.mark.parametrize("raw", [b"[]", b"7", b"null", b'{"root":7,"unknown":1,"io_uid":true}'])
def test_options_of_another_hand_are_passed_over(raw: bytes) -> None:
    assert options.from_json(raw).values == options.Options().values


def test_a_full_or_broken_log_loses_lines_and_nothing_else() -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    log = ShimLog(writer)
    for _ in range(3000):
        log.error("x" * 100)
    os.close(reader)
    log.error("nobody reads it")  # Python ignores SIGPIPE, as the shim does
    os.close(writer)


def test_an_error_that_nobody_foresaw_is_told_in_one_line() -> None:
    try:
        raise ValueError("odd")  # noqa: TRY301  # it needs a traceback
    except ValueError as error:
        told = describe(error)
    assert told.startswith("ValueError: odd, ")
    assert "test_parts.py:" in told
    assert "\n" not in told
