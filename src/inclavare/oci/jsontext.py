"""JSON text, without the 7 ms that importing `json` costs.

Reading uses the interpreter's own C scanner and is stricter than `json.loads`: strict UTF-8, no member twice in one
object (the second would silently win), no NaN, no infinity, no nesting that exhausts the stack. `json` is imported only
to say where a malformed document goes wrong.

RFC 8259. Hot path.
"""

from __future__ import annotations

from _json import encode_basestring_ascii, make_scanner

from inclavare.errors import SpecError

_BLANK = " \t\n\r"


def loads(data: bytes, name: str = "config.json") -> object:
    """Return the value of the JSON text `data`; `name` is what errors call it.

    Raises SpecError (with an empty path) when `data` is not one JSON value in UTF-8.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _malformed(name, "a byte that is not UTF-8", *_position(data[: error.start])) from error
    scan = make_scanner(_Rules(name))  # type: ignore[arg-type]  # any object with these attributes will do
    start = len(text) - len(text.lstrip(_BLANK))
    try:
        value, end = scan(text, start)
    except SpecError:
        raise
    except RecursionError:
        raise SpecError("", f"{name} is not acceptable JSON: it is nested too deeply") from None
    except (StopIteration, SystemError, ValueError) as error:
        raise _explain(text, start, name) from error
    rest = text[end:].lstrip(_BLANK)
    if rest:
        raise _malformed(name, "more text after its end", *_position(text[: len(text) - len(rest)]))
    return value


def dumps(value: object, indent: str | None = None) -> str:
    """Return `value` as JSON text, ASCII only, members in the order they were given.

    The text is that of `json.dumps(value, indent=indent)`. Offers what our documents are made of: dict with str keys,
    list, tuple, str, int, bool and None; TypeError for others.
    """
    parts: list[str] = []
    _write(value, indent, "\n", parts)
    return "".join(parts)


class _Rules:
    """What the scanner asks for: its settings, and what to do with the parts it leaves to us."""

    __slots__ = ("name",)
    strict = True
    object_hook = None
    parse_int = int

    def __init__(self, name: str) -> None:
        self.name = name

    def object_pairs_hook(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise SpecError(
                "",
                f"{self.name} is not acceptable JSON: one object has the member {encode_basestring_ascii(twice)} twice",
            )
        return members

    def parse_float(self, text: str) -> float:
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise SpecError("", f"{self.name} is not acceptable JSON: the number {text[:40]} is too large")
        return value

    def parse_constant(self, text: str) -> object:
        raise SpecError("", f"{self.name} is not valid JSON: {text} is not a JSON value")


def _explain(text: str, start: int, name: str) -> SpecError:
    """Scan again with the scanner in Python, which says what it found, and where."""
    from json.decoder import JSONDecodeError, JSONDecoder, py_scanstring  # type: ignore[attr-defined]  # noqa: PLC0415  # 7 ms
    from json.scanner import py_make_scanner  # type: ignore[attr-defined]  # noqa: PLC0415

    rules = _Rules(name)
    decoder = JSONDecoder(
        object_pairs_hook=rules.object_pairs_hook, parse_float=rules.parse_float, parse_constant=rules.parse_constant
    )
    decoder.parse_string = py_scanstring  # type: ignore[attr-defined]
    try:
        py_make_scanner(decoder)(text, start)
    except RecursionError:
        return SpecError("", f"{name} is not acceptable JSON: it is nested too deeply")
    except StopIteration as error:
        return _malformed(name, "a JSON value is expected", *_position(text[: error.value]))
    except JSONDecodeError as error:
        what = "a JSON value is expected" if error.msg == "Expecting value" else error.msg.removesuffix(" at")
        return _malformed(name, what, error.lineno, error.colno)
    except ValueError:
        return SpecError("", f"{name} is not acceptable JSON: a number has too many digits")
    raise AssertionError("a text was malformed once and then was not")


def _malformed(name: str, what: str, line: int, column: int) -> SpecError:
    return SpecError("", f"{name} is not valid JSON: line {line} column {column}: {what}")


def _position(before: str | bytes) -> tuple[int, int]:
    """Line and column, both from 1, of what follows `before`."""
    newline = "\n" if isinstance(before, str) else b"\n"
    return before.count(newline) + 1, len(before) - before.rfind(newline)  # type: ignore[arg-type]


def _write(value: object, indent: str | None, newline: str, parts: list[str]) -> None:
    """Append the text of `value` to `parts`; `newline` is a line's end with the current indentation."""
    if isinstance(value, str):
        parts.append(encode_basestring_ascii(value))
    elif value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif isinstance(value, int):
        parts.append(int.__repr__(value))
    elif isinstance(value, (dict, list, tuple)):
        _write_members(value, indent, newline, parts)
    else:
        raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def _write_members(
    value: dict[str, object] | list[object] | tuple[object, ...], indent: str | None, newline: str, parts: list[str]
) -> None:
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    parts.append(opening)
    inner = "" if indent is None else newline + indent
    separator = inner
    for item in value:
        parts.append(separator)
        separator = ", " if indent is None else "," + inner
        if isinstance(value, dict):
            if not isinstance(item, str):
                raise TypeError(f"cannot write a {type(item).__name__} as the name of a JSON member")
            parts.append(encode_basestring_ascii(item) + ": ")
            _write(value[item], indent, inner, parts)
        else:
            _write(item, indent, inner, parts)
    if value and indent is not None:
        parts.append(newline)
    parts.append(closing)
