"""In which line of a TOML document a key is set. Python's reader does not tell. Pure.

Every statement of TOML ends with a line, and a document up to the end of any statement is a document: whatever quotes,
dots, brackets and comments there are, the shortest such document that has the key ends with the statement that sets it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from typing import Any


def line_of(text: str, keys: tuple[str, ...]) -> int:
    """Return the first line of the statement that sets `keys` (of a table: that names it first), 0 if none does.

    `text` is a valid document. Lines count from 1.
    """
    import tomllib  # noqa: PLC0415  # not in the saved rune: it is large, and few hosts have the file
    from bisect import bisect_left  # noqa: PLC0415

    lines = text.split("\n")

    def is_set_by(count: int) -> bool:
        """Whether the first `count` lines, with the rest of the statement they end in, set the key."""
        for end in range(count, len(lines) + 1):
            try:
                document = tomllib.loads("\n".join(lines[:end]) + "\n")
            except (ValueError, RecursionError):
                continue  # the middle of a statement
            return _has(document, keys)
        return False

    number = bisect_left(range(1, len(lines) + 1), True, key=is_set_by) + 1
    return number if number <= len(lines) else 0


def _has(value: Any, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True
