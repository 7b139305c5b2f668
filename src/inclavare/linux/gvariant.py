"""GVariant text as D-Bus values: so annotations `org.systemd.property.NAME` write a unit's properties. Pure.

`true`, `5`, `uint64 5`, `@t 5`, `'text'`, `['a', 'b']`, `('a', 1)`, `{'key': <1>}`, `b'bytes'`. Without a type a whole
number is int32, one with a point double, text a string; items of an array have one type. Maybe types (`just`,
`nothing`) are not D-Bus's and are refused.

GLib, "GVariant Text Format".
"""

from __future__ import annotations

from inclavare.linux.dbus import DBusError, Variant, encode, split

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from typing import Any

KEYWORDS = {
    "boolean": "b",
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "handle": "h",
    "double": "d",
    "string": "s",
    "objectpath": "o",
    "signature": "g",
}
ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
INTEGERS = "ynqiuxth"
DEPTH_MAX = 32


def parse(text: str) -> Variant:
    """Give the one value that `text` writes. Raises DBusError for text that is none."""
    parser = _Parser(text)
    node = parser.value(0)
    if parser.peek():
        raise parser.error("something follows the value")
    kind = node.signature or _infer(node)
    value = _fit(node, kind)
    encode(kind, (value,))  # its range and its text are the type's
    return Variant(kind, value)


class _Node:
    """A value as it was written. `kind`: number, real, text, bytes, bool, array, tuple, dict, variant."""

    __slots__ = ("kind", "signature", "value")

    def __init__(self, kind: str, value: Any, signature: str = "") -> None:
        self.kind = kind
        self.value = value
        self.signature = signature


class _Parser:
    """Reads text from left to right."""

    __slots__ = ("_at", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def error(self, what: str) -> DBusError:
        return DBusError(f"{self._text!r} is no GVariant text: {what} (at character {self._at})")

    def peek(self) -> str:
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1
        return self._text[self._at : self._at + 1]

    def value(self, depth: int) -> _Node:
        if depth > DEPTH_MAX:
            raise self.error("it is nested too deeply")
        sign = self.peek()
        if sign == "[":
            return _Node("array", self._items("]", depth))
        if sign == "(":
            return _Node("tuple", self._items(")", depth))
        if sign == "{":
            return _Node("dict", self._entries(depth))
        if sign == "<":
            self._take("<")
            inner = self.value(depth + 1)
            self._take(">")
            return _Node("variant", inner)
        if sign in ("'", '"') and sign:
            return _Node("text", self._quoted())
        if sign == "@":
            self._at += 1
            return self._typed(self._word("abdghinoqstuvxy(){}"), depth)
        if sign == "b" and self._text[self._at + 1 : self._at + 2] in ("'", '"'):
            self._at += 1
            return _Node("bytes", self._quoted().encode("utf-8", "surrogateescape") + b"\0")
        return self._plain(depth)

    def _plain(self, depth: int) -> _Node:
        start = self._at
        while (sign := self._text[self._at : self._at + 1]) and (sign.isalnum() or sign in "+-._"):
            self._at += 1
        word = self._text[start : self._at]
        if word in ("true", "false"):
            return _Node("bool", word == "true")
        if word in KEYWORDS:
            return self._typed(KEYWORDS[word], depth)
        digits = word.lstrip("+-")
        try:
            if word.isascii() and "_" not in word and digits[:1].isdigit() | (digits[:1] == "."):
                octal = digits[:1] == "0" and digits.isdigit()
                return _Node("number", int(word, 8 if octal else 0))
        except ValueError:
            try:
                return _Node("real", float(word))
            except ValueError:
                pass
        self._at = start
        raise self.error(f"{word or 'nothing'} is no value")

    def _typed(self, signature: str, depth: int) -> _Node:
        try:
            complete = len(split(signature)) == 1
        except DBusError:
            complete = False
        if not complete:
            raise self.error(f"{signature!r} is no type of D-Bus")
        node = self.value(depth + 1)
        if node.signature and node.signature != signature:
            raise self.error(f"the value has the type {node.signature}, not {signature}")
        node.signature = signature
        return node

    def _word(self, letters: str) -> str:
        start = self._at
        while (sign := self._text[self._at : self._at + 1]) and sign in letters:
            self._at += 1
        return self._text[start : self._at]

    def _take(self, sign: str) -> None:
        if self.peek() != sign:
            raise self.error(f"{sign} is missing")
        self._at += 1

    def _items(self, end: str, depth: int) -> list[_Node]:
        self._at += 1
        items: list[_Node] = []
        while self.peek() != end:
            items.append(self.value(depth + 1))
            if self.peek() == ",":
                self._at += 1
                if end == "]" and self.peek() == end:
                    raise self.error("a value is missing")
            elif self.peek() != end:
                raise self.error(f", or {end} is missing")
        self._at += 1
        return items

    def _entries(self, depth: int) -> list[tuple[_Node, _Node]]:
        self._take("{")
        entries: list[tuple[_Node, _Node]] = []
        while self.peek() != "}":
            key = self.value(depth + 1)
            self._take(":")
            entries.append((key, self.value(depth + 1)))
            if self.peek() == ",":
                self._at += 1
            elif self.peek() != "}":
                raise self.error(", or } is missing")
        self._at += 1
        return entries

    def _quoted(self) -> str:
        quote = self._text[self._at]
        self._at += 1
        out = []
        while (sign := self._text[self._at : self._at + 1]) != quote:
            self._at += 1
            if sign == "\\":
                sign = self._escaped()
            elif not sign:
                raise self.error(f"{quote} is missing")
            out.append(sign)
        self._at += 1
        return "".join(out)

    def _escaped(self) -> str:
        letter = self._text[self._at : self._at + 1]
        self._at += 1
        size = {"u": 4, "U": 8}.get(letter)
        if size is None:
            return ESCAPES.get(letter, letter)
        digits = self._text[self._at : self._at + size]
        self._at += size
        try:
            return chr(int(digits, 16))
        except (ValueError, OverflowError):
            raise self.error(f"\\{letter}{digits} is no character") from None


def _infer(node: _Node) -> str:
    """Give the type of a value that names none."""
    if node.signature:
        return node.signature
    simple = {"number": "i", "real": "d", "text": "s", "bytes": "ay", "bool": "b", "variant": "v"}.get(node.kind)
    if simple:
        return simple
    if node.kind == "tuple":
        return f"({''.join([_infer(item) for item in node.value])})"
    if not node.value:
        raise DBusError(f"an empty {node.kind} in GVariant text needs a type, such as @as []")
    if node.kind == "array":
        return "a" + _common(node.value)
    return f"a{{{_common([key for key, _ in node.value])}{_common([value for _, value in node.value])}}}"


def _common(nodes: list[_Node]) -> str:
    """Give the type of an array's items: what one names, all have."""
    named = {node.signature for node in nodes if node.signature} or {_infer(node) for node in nodes}
    if named == {"i", "d"}:
        return "d"
    if len(named) != 1:
        raise DBusError(f"items of an array in GVariant text have different types: {', '.join(sorted(named))}")
    return named.pop()


def _fit(node: _Node, signature: str) -> Any:
    """Give the value as `signature` has it in D-Bus."""
    code, kind = signature[0], node.kind
    if node.signature in ("", signature):
        if kind == "bool" and code == "b":
            return node.value
        if kind in ("number", "real") and code == "d":
            return float(node.value)
        if kind == "number" and code in INTEGERS:
            return node.value
        if kind == "text" and code in "sog":
            return node.value
        if kind == "bytes" and signature == "ay":
            return node.value
        if kind == "variant" and code == "v":
            inner = node.value
            return Variant(_infer(inner), _fit(inner, _infer(inner)))
        if kind == "array" and code == "a" and signature[1] != "{":
            items = [_fit(item, signature[1:]) for item in node.value]
            return _bytes(items) if signature == "ay" else items
        if kind == "tuple" and code == "(" and len(types := split(signature[1:-1])) == len(node.value):
            return tuple([_fit(item, one) for item, one in zip(node.value, types, strict=True)])
        if signature[:2] == "a{" and (kind == "dict" or (kind == "array" and not node.value)):
            key, value = split(signature[2:-1])
            return {_fit(one, key): _fit(other, value) for one, other in node.value}
    raise DBusError(f"a {node.signature or kind} in GVariant text is no value of the type {signature}")


def _bytes(items: list[int]) -> bytes:
    try:
        return bytes(items)
    except ValueError as error:
        raise DBusError(f"a byte in GVariant text is not between 0 and 255: {items}") from error
