"""Reads JSON objects with types expected, and knows the JSON path of everything it reads.

A `Members` holds one JSON object and hands out its members, each once. What is absent, null or an empty string counts
as not given: that is how the runtime-spec's Go types write a value that was never set. Members that nobody asked for
are unknown; the runtime-spec ("Extensibility") wants them ignored, so `end` only collects their paths for a warning.

Paths are put together only when somebody needs one, from a chain of parents. Hot path.
"""

from __future__ import annotations

from _json import encode_basestring_ascii

from inclavare.errors import SpecError

UINT16_MAX = (1 << 16) - 1
UINT32_MAX = (1 << 32) - 1
UINT64_MAX = (1 << 64) - 1
INT32_MAX = (1 << 31) - 1
INT64_MIN = -(1 << 63)
INT64_MAX = (1 << 63) - 1

_SHOWN_MAX = 64  # characters of a foreign name or value that an error repeats


class Members:
    """The members of one JSON object, still to be read.

    `unknown` and `warnings` are shared by all objects of a document: the paths of unknown members, and sentences about
    what was understood but will not be done.

    Every reading method raises SpecError, with the member's path, when the member is not what the method expects.
    """

    __slots__ = ("_index", "_left", "_name", "_parent", "unknown", "warnings")

    def __init__(self, members: object, parent: Members | None = None, name: str = "", index: int = -1) -> None:
        self._parent = parent
        self._name = name
        self._index = index
        self.unknown: list[str] = [] if parent is None else parent.unknown
        self.warnings: list[str] = [] if parent is None else parent.warnings
        if not isinstance(members, dict):
            raise SpecError(self.path(), f"must be an object, found {show(members)}")
        self._left: dict[str, object] = dict(members)

    def path(self, name: str = "", index: int = -1) -> str:
        """Return the JSON path of this object, or of its member `name`, or of that member's item `index`."""
        path = "" if self._parent is None else self._parent.path(self._name, self._index)
        if name:
            path = join_path(path, name)
        return path if index < 0 else f"{path}[{index}]"

    def error(self, name: str, message: str, index: int = -1, hint: str = "") -> SpecError:
        """Return the error that says `message` about member `name`, or about its item `index`."""
        return SpecError(self.path(name, index), message, hint)

    def warn(self, name: str, message: str, index: int = -1) -> None:
        """Add a sentence about member `name`, or about its item `index`, to the warnings."""
        self.warnings.append(f"{self.path(name, index)}: {message}")

    def is_empty(self) -> bool:
        """Tell whether the object has no members (left to read)."""
        return not self._left

    def has(self, name: str) -> bool:
        """Tell whether a member is there and neither null nor empty."""
        return bool(self._left.get(name))

    def names(self) -> list[str]:
        """Give the names of all members (left to read)."""
        return list(self._left)

    def end(self) -> None:
        """Declare that all known members were read; the others are unknown."""
        for name in self._left:
            self.unknown.append(self.path(name))

    def flag(self, name: str) -> bool:
        """Return a boolean; False when not given."""
        return self.optional_flag(name) is True

    def optional_flag(self, name: str) -> bool | None:
        """Return a boolean, or None when not given."""
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, bool):
            raise self.error(name, f"must be true or false, found {show(value)}")
        return value

    def number(self, name: str, low: int, high: int) -> int | None:
        """Return an integer between `low` and `high`, both inclusive, or None when not given."""
        value = self._left.pop(name, None)
        return None if value is None else self._in_range(name, -1, value, low, high)

    def need_number(self, name: str, low: int, high: int) -> int:
        """Return an integer between `low` and `high`, both inclusive."""
        value = self.number(name, low, high)
        if value is None:
            raise self.error(name, "is required")
        return value

    def numbers(self, name: str, low: int, high: int) -> list[int]:
        """Return a list of integers between `low` and `high`, both inclusive; empty when not given."""
        return [self._in_range(name, index, item, low, high) for index, item in enumerate(self._list(name))]

    def text(self, name: str) -> str | None:
        """Return a string that the kernel can take (no NUL, valid Unicode), or None when not given or empty."""
        value = self._left.pop(name, None)
        return None if value is None else self._clean(name, -1, value) or None

    def need_text(self, name: str) -> str:
        """Return a string as `text` does, not empty."""
        value = self.text(name)
        if value is None:
            raise self.error(name, "is required and must not be empty")
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of strings as `text` describes them, which may be empty strings; empty when not given."""
        found = self._list(name)
        try:
            together = "".join(found)  # type: ignore[arg-type]  # one look instead of hundreds, at a seccomp profile
            if together.isascii() and "\0" not in together:
                return found[:]  # type: ignore[return-value]
        except TypeError:
            pass  # one is not a string
        return [self._clean(name, index, item) for index, item in enumerate(found)]

    def absolute_path(self, name: str) -> str | None:
        """Return a string that starts with a slash, or None when not given or empty."""
        value = self.text(name)
        if value is not None and not value.startswith("/"):
            raise self.error(name, f"must be an absolute path, found {show(value)}")
        return value

    def need_absolute_path(self, name: str) -> str:
        """Return a string that starts with a slash."""
        value = self.need_text(name)
        if not value.startswith("/"):
            raise self.error(name, f"must be an absolute path, found {show(value)}")
        return value

    def absolute_paths(self, name: str) -> list[str]:
        """Return a list of strings that start with a slash; empty when not given."""
        values = self.texts(name)
        for index, value in enumerate(values):
            if not value.startswith("/"):
                raise self.error(name, f"must be an absolute path, found {show(value)}", index)
        return values

    def choice(self, name: str, allowed: tuple[str, ...]) -> str | None:
        """Return one of `allowed`, or None when not given or empty."""
        value = self.text(name)
        if value is not None and value not in allowed:
            raise self.error(name, f"{show(value)} is not one of {', '.join(allowed)}")
        return value

    def need_choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """Return one of `allowed`."""
        value = self.choice(name, allowed)
        if value is None:
            raise self.error(name, f"is required, one of {', '.join(allowed)}")
        return value

    def choices(self, name: str, allowed: tuple[str, ...]) -> list[str]:
        """Return a list of strings out of `allowed`; empty when not given."""
        values = self.texts(name)
        for index, value in enumerate(values):
            if value not in allowed:
                raise self.error(name, f"{show(value)} is not one of {', '.join(allowed)}", index)
        return values

    def mapping(self, name: str) -> dict[str, str]:
        """Return an object whose members are strings; empty when not given."""
        value = self._left.pop(name, None)
        if value is None:
            return {}
        inner = Members(value, self, name)
        return {inner._clean("", -1, key): inner._clean(key, -1, item) for key, item in inner._left.items()}

    def child(self, name: str) -> Members:
        """Return a member object; one without members when not given."""
        value = self._left.pop(name, None)
        return Members({} if value is None else value, self, name)

    def optional_child(self, name: str) -> Members | None:
        """Return a member object, or None when not given."""
        value = self._left.pop(name, None)
        return None if value is None else Members(value, self, name)

    def need_child(self, name: str) -> Members:
        """Return a member object."""
        value = self.optional_child(name)
        if value is None:
            raise self.error(name, "is required")
        return value

    def children(self, name: str) -> list[Members]:
        """Return a list of objects; empty when not given."""
        return [Members(item, self, name, index) for index, item in enumerate(self._list(name))]

    def raw_object(self, name: str) -> dict[str, object] | None:
        """Return an object as JSON gave it, or None when not given: for what this release does not interpret."""
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, dict):
            raise self.error(name, f"must be an object, found {show(value)}")
        return value

    def raw_list(self, name: str) -> list[object]:
        """Return a list as JSON gave it, empty when not given: for what this release does not interpret."""
        return self._list(name)

    def _list(self, name: str) -> list[object]:
        value = self._left.pop(name, None)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(name, f"must be a list, found {show(value)}")
        return value

    def _in_range(self, name: str, index: int, value: object, low: int, high: int) -> int:
        # bool is an int to Python, but not to JSON.
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(name, f"must be an integer, found {show(value)}", index)
        if not low <= value <= high:
            raise self.error(name, f"{show(value)} is not between {low} and {high}", index)
        return value

    def _clean(self, name: str, index: int, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, found {show(value)}", index)
        if "\0" in value:
            raise self.error(name, f"{show(value)} contains a NUL, which the kernel cannot take", index)
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise self.error(name, f"{show(value)} contains half a surrogate pair", index) from error
        return value


def join_path(path: str, name: str) -> str:
    """Return the JSON path of member `name` of the object at `path`: `linux.sysctl["net.core.somaxconn"]`."""
    if not (name.isascii() and name.isidentifier()) or len(name) > _SHOWN_MAX:
        return f"{path}[{show(name)}]"
    return f"{path}.{name}" if path else name


def show(value: object) -> str:
    """Return a short description of a JSON value for an error: a string in quotes, a number, or its kind."""
    if isinstance(value, str):
        if len(value) > _SHOWN_MAX:
            value = value[:_SHOWN_MAX] + "..."
        return str(encode_basestring_ascii(value))
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if INT64_MIN <= value <= UINT64_MAX else "a number beyond 64 bits"
    if isinstance(value, float):
        return repr(value)
    return "a list" if isinstance(value, list) else "an object"
