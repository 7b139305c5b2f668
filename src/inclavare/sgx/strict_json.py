"""JSON as signers write it, read without mercy: every value by its path, with its type and range.

Names that nobody reads are allowed, because Intel adds some; names given twice, floating-point numbers where integers
belong, and deep nesting are not. Every refusal is an AttestationError with the path of the value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from inclavare.errors import AttestationError

MAX_DOCUMENT_SIZE = 1 << 22
_HEX = re.compile(r"[0-9A-Fa-f]*\Z")
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z\Z", re.ASCII)
_SHOWN = 40  # characters of a value in a message


def load(text: str | bytes, path: str) -> Value:
    """Return the document `text`, UTF-8. Raises AttestationError under `path`."""
    if len(text) > MAX_DOCUMENT_SIZE:
        raise AttestationError(path, f"expected at most {MAX_DOCUMENT_SIZE} bytes, found {len(text)}")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        document = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise AttestationError(path, f"expected JSON: {error}") from error
    return Value(document, path)


def split_signed(text: str | bytes, name: str) -> tuple[str, str]:
    """Return the exact text of the member `name`, which is what was signed, and the signature, 128 hexadecimal digits.

    `text` is what Intel's service serves: `{"tcbInfo":{...},"signature":"..."}` or the like. Raises AttestationError.
    """
    document = load(text, "")
    document.member(name).mapping()
    signature = document.member("signature").hexadecimal(64).hex()
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    start = _member_start(text, name)
    _, end = _DECODER.raw_decode(text, start)
    return text[start:end], signature


def _member_start(text: str, name: str) -> int:
    """Return where the value of a member of the outermost object begins; that it has the member is known."""
    offset = text.index("{") + 1
    while True:
        key, offset = _DECODER.raw_decode(text, _blanks(text, offset))
        offset = _blanks(text, _blanks(text, offset) + 1)  # the colon
        if key == name:
            return offset
        _, offset = _DECODER.raw_decode(text, offset)
        offset = _blanks(text, offset) + 1  # the comma


def _blanks(text: str, offset: int) -> int:
    while text[offset] in " \t\r\n":
        offset += 1
    return offset


class Value:
    """A value in a document, and its path."""

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str) -> None:
        self.value = value
        self.path = path

    def member(self, name: str) -> Value:
        """Return the member `name` of this object; it must be there."""
        value = self.optional(name)
        if value is None:
            raise AttestationError(self._path_of(name), "missing")
        return value

    def optional(self, name: str) -> Value | None:
        """Return the member `name` of this object, or None if there is none."""
        mapping = self.mapping()
        return Value(mapping[name], self._path_of(name)) if name in mapping else None

    def mapping(self) -> Mapping[str, Any]:
        """Return this object's members."""
        if not isinstance(self.value, dict):
            raise self._expected("an object")
        return self.value

    def items(self) -> Iterator[Value]:
        """Yield the elements of this array."""
        if not isinstance(self.value, list):
            raise self._expected("an array")
        return (Value(value, f"{self.path}[{index}]") for index, value in enumerate(self.value))

    def text(self) -> str:
        """Return this string."""
        if not isinstance(self.value, str):
            raise self._expected("a string")
        return self.value

    def one_of(self, choices: tuple[str, ...]) -> str:
        """Return this string, which must be one of `choices`."""
        if self.text() not in choices:
            raise self._expected(f"one of {', '.join(choices)}")
        return self.text()

    def integer(self, maximum: int, minimum: int = 0) -> int:
        """Return this integer, which must not be outside of the two."""
        if type(self.value) is not int or not minimum <= self.value <= maximum:
            raise self._expected(f"an integer from {minimum} to {maximum}")
        return self.value

    def hexadecimal(self, size: int) -> bytes:
        """Return the `size` bytes that this string has as hexadecimal digits."""
        text = self.text()
        if len(text) != 2 * size or not _HEX.match(text):
            raise self._expected(f"{2 * size} hexadecimal digits")
        return bytes.fromhex(text)

    def time(self) -> int:
        """Return this time, `2025-06-19T10:56:11Z`, as unix seconds."""
        match = _TIME.match(self.text())
        try:
            if match is None:
                raise self._expected("a time as 2025-06-19T10:56:11Z")
            return int(datetime(*map(int, match.groups()), tzinfo=UTC).timestamp())  # type: ignore[misc, arg-type]
        except ValueError as error:
            raise self._expected("a time as 2025-06-19T10:56:11Z") from error

    def _path_of(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _expected(self, expected: str) -> AttestationError:
        found = repr(self.value)
        if len(found) > _SHOWN:
            found = f"{found[:_SHOWN]}..."
        return AttestationError(self.path, f"expected {expected}, found {found}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} is there twice")
    return mapping


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse)
