"""D-Bus messages as bytes, and back: the wire format without any I/O. Pure.

Values are Python's: int, bool, float, str; bytes for `ay`, a list for other arrays, a tuple for a struct, a dict for an
array of dict entries, `Variant` for a variant. Messages are written in little endian and read in both orders. What the
specification forbids is refused when it is read, too: padding that is not zero, text that is not UTF-8, lengths beyond
the end.

D-Bus Specification 0.42, "Type System", "Marshaling (Wire Format)", "Message Format".
"""

from __future__ import annotations

from struct import Struct, pack_into
from struct import error as StructError  # noqa: N812  # it is a class

from inclavare.errors import InclavareError

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

METHOD_CALL = 1
METHOD_RETURN = 2
ERROR = 3
SIGNAL = 4

PATH = 1
INTERFACE = 2
MEMBER = 3
ERROR_NAME = 4
REPLY_SERIAL = 5
DESTINATION = 6
SENDER = 7
SIGNATURE = 8

PREAMBLE_SIZE = 16  # what must be read to know a message's size
MESSAGE_MAX = 1 << 27
ARRAY_MAX = 1 << 26
SIGNATURE_MAX = 255
DEPTH_MAX = 32

_HEADER_TYPES = {PATH: "o", REPLY_SERIAL: "u", SIGNATURE: "g"}  # all others are strings
_FIXED = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I", "b": "I"}
_ORDERS = {108: "<", 66: ">"}  # l, B
_STRUCTS = {(order, code): Struct(order + form) for order in "<>" for code, form in _FIXED.items()}
_ALIGNMENTS = {
    **{code: Struct("<" + form).size for code, form in _FIXED.items()},
    **dict.fromkeys("soa", 4),
    **dict.fromkeys("gv", 1),
    **dict.fromkeys("({", 8),
}


class DBusError(InclavareError):
    """Bytes are no D-Bus message, or a value does not fit its type."""


class Variant:
    """A value that carries its type: a signature of one complete type."""

    __slots__ = ("signature", "value")

    def __init__(self, signature: str, value: Any) -> None:
        self.signature = signature
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Variant) and (self.signature, self.value) == (other.signature, other.value)

    def __hash__(self) -> int:
        return hash(self.signature)

    def __repr__(self) -> str:
        return f"Variant({self.signature!r}, {self.value!r})"


class Message:
    """One message. `fields` maps the codes of header fields to their values; `body` has a value for each type."""

    __slots__ = ("body", "fields", "kind", "serial", "signature")

    def __init__(
        self, kind: int, serial: int, fields: dict[int, Any], signature: str = "", body: Sequence[Any] = ()
    ) -> None:
        self.kind = kind
        self.serial = serial
        self.fields = fields
        self.signature = signature
        self.body = tuple(body)


def encode_message(message: Message) -> bytes:
    """Write a message. Raises DBusError for values that do not fit the signature."""
    body = encode(message.signature, message.body)
    fields = dict(message.fields)
    if message.signature:
        fields[SIGNATURE] = message.signature
    listed = [(code, Variant(_HEADER_TYPES.get(code, "s"), value)) for code, value in sorted(fields.items())]
    header = encode("yyyyuua(yv)", (108, message.kind, 0, 1, len(body), message.serial, listed))
    whole = header + bytes(-len(header) % 8) + body
    if len(whole) > MESSAGE_MAX:
        raise DBusError(f"a D-Bus message of {len(whole)} bytes is too long")
    return whole


def message_size(preamble: bytes) -> int:
    """Give the size of the whole message that begins with these PREAMBLE_SIZE bytes."""
    reader = _Reader(preamble, _order(preamble))
    kind, _, version, body, _, fields = reader.read_all("yyyyuuu")[1:]
    if version != 1 or not kind:
        raise DBusError(f"not a D-Bus message: type {kind}, version {version}")
    size: int = PREAMBLE_SIZE + fields + -fields % 8 + body
    if fields > ARRAY_MAX or size > MESSAGE_MAX:
        raise DBusError(f"a D-Bus message of {size} bytes is too long")
    return size


def decode_message(data: bytes) -> Message:
    """Read exactly one message. Raises DBusError for anything else."""
    if len(data) < PREAMBLE_SIZE or message_size(data[:PREAMBLE_SIZE]) != len(data):
        raise DBusError(f"{len(data)} bytes are not one D-Bus message")
    reader = _Reader(data, _order(data))
    _, kind, _, _, _, serial, listed = reader.read_all("yyyyuua(yv)")
    reader.align(8)
    fields = {}
    for code, variant in listed:
        wanted = _HEADER_TYPES.get(code, "s")
        if PATH <= code <= SIGNATURE and variant.signature != wanted:
            raise DBusError(f"the D-Bus header field {code} has the type {variant.signature}, not {wanted}")
        fields[code] = variant.value
    signature = fields.pop(SIGNATURE, "")
    body = reader.read_all(signature)
    reader.end()
    return Message(kind, serial, fields, signature, body)


def encode(signature: str, values: Sequence[Any]) -> bytes:
    """Write values, one for each complete type of the signature."""
    types = split(signature)
    if len(types) != len(values):
        raise DBusError(f"{len(values)} values for the D-Bus signature {signature!r}")
    out = bytearray()
    for kind, value in zip(types, values, strict=True):
        _write(out, kind, value)
    return bytes(out)


def decode(signature: str, data: bytes) -> tuple[Any, ...]:
    """Read values in little endian; no byte may be left over."""
    reader = _Reader(data, "<")
    values = reader.read_all(signature)
    reader.end()
    return values


def split(signature: str) -> list[str]:
    """Cut a signature into its complete types. Raises DBusError when it is none."""
    if len(signature) > SIGNATURE_MAX:
        raise DBusError(f"a D-Bus signature of {len(signature)} characters is too long")
    types = []
    at = 0
    while at < len(signature):
        end = _complete(signature, at, 0, 0)
        types.append(signature[at:end])
        at = end
    return types


def _complete(signature: str, at: int, arrays: int, structs: int) -> int:
    """Give the end of the complete type that begins at `at`."""
    code = signature[at : at + 1]
    if code and code in "ybnqiuxtdhsogv":
        return at + 1
    if arrays > DEPTH_MAX or structs > DEPTH_MAX:
        raise DBusError(f"the D-Bus signature {signature!r} is nested too deeply")
    if code == "a":
        if signature[at + 1 : at + 2] != "{":
            return _complete(signature, at + 1, arrays + 1, structs)
        if signature[at + 2 : at + 3] in ("", *"a({v"):
            raise DBusError(f"{signature!r} is no D-Bus signature: a key is of a basic type")
        end = _complete(signature, at + 3, arrays + 1, structs + 1)
        if _complete(signature, at + 2, arrays, structs) == at + 3 and signature[end : end + 1] == "}":
            return end + 1
    elif code == "(":
        end = at + 1
        while signature[end : end + 1] != ")":
            end = _complete(signature, end, arrays, structs + 1)
        if end > at + 1:
            return end + 1
    raise DBusError(f"{signature!r} is no D-Bus signature")


def _write(out: bytearray, kind: str, value: Any) -> None:
    code = kind[0]
    out += bytes(-len(out) % _ALIGNMENTS[code])
    try:
        if code in _FIXED:
            if code == "b" and not isinstance(value, bool):
                raise DBusError(f"{value!r} is no boolean")
            out += _STRUCTS["<", code].pack(value)
        elif code in "sog":
            _write_text(out, code, value)
        elif code == "v":
            if len(split(value.signature)) != 1:
                raise DBusError(f"a variant has one type, not {value.signature!r}")
            _write_text(out, "g", value.signature)
            _write(out, value.signature, value.value)
        elif code == "(":
            inner = split(kind[1:-1])
            for one, item in zip(inner, value, strict=True):
                _write(out, one, item)
        else:
            _write_array(out, kind[1:], value)
    except (StructError, TypeError, ValueError, AttributeError) as error:
        raise DBusError(f"{value!r} is no value of the D-Bus type {kind!r}: {error}") from error


def _write_text(out: bytearray, code: str, value: str) -> None:
    raw = value.encode()
    if b"\0" in raw:
        raise ValueError("it has a NUL")
    if code == "g":
        split(value)
    elif code == "o":
        _check_path(value)
    out += (len(raw).to_bytes(1, "little") if code == "g" else len(raw).to_bytes(4, "little")) + raw + b"\0"


def _write_array(out: bytearray, inner: str, value: Any) -> None:
    size_at = len(out)
    out += bytes(4)
    out += bytes(-len(out) % _ALIGNMENTS[inner[0]])
    start = len(out)
    if inner == "y":
        out += bytes(value)
    elif inner[0] == "{":
        for entry in value.items():
            _write(out, f"({inner[1:-1]})", entry)
    else:
        for item in value:
            _write(out, inner, item)
    if len(out) - start > ARRAY_MAX:
        raise ValueError("it is too long")
    pack_into("<I", out, size_at, len(out) - start)


def _order(data: bytes) -> str:
    order = _ORDERS.get(data[0])
    if order is None:
        raise DBusError(f"not a D-Bus message: it begins with {data[:1]!r}")
    return order


def _check_path(value: str) -> None:
    parts = value[1:].split("/")
    fine = value == "/" or (value[:1] == "/" and all(part.replace("_", "a").isalnum() for part in parts))
    if not fine or not value.isascii():
        raise ValueError("it is no object path")


class _Reader:
    """Reads values from bytes, in order."""

    __slots__ = ("_at", "_data", "_order")

    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._order = order
        self._at = 0

    def read_all(self, signature: str) -> tuple[Any, ...]:
        return tuple([self._read(kind, 0) for kind in split(signature)])

    def end(self) -> None:
        if self._at != len(self._data):
            raise DBusError(f"{len(self._data) - self._at} bytes too many in a D-Bus message")

    def align(self, size: int) -> None:
        padding = self._take(-self._at % size)
        if padding.strip(b"\0"):
            raise DBusError("padding in a D-Bus message is not zero")

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise DBusError("a D-Bus message ends too early")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _read(self, kind: str, depth: int) -> Any:
        if depth > 2 * DEPTH_MAX:
            raise DBusError("a D-Bus message is nested too deeply")
        code = kind[0]
        self.align(_ALIGNMENTS[code])
        if code in _FIXED:
            value = _STRUCTS[self._order, code].unpack(self._take(_ALIGNMENTS[code]))[0]
            if code == "b" and value > 1:
                raise DBusError(f"a D-Bus boolean is {value}")
            return bool(value) if code == "b" else value
        if code in "sog":
            return self._text(code)
        if code == "v":
            signature = self._text("g")
            if len(split(signature)) != 1:
                raise DBusError(f"a variant has one type, not {signature!r}")
            return Variant(signature, self._read(signature, depth + 1))
        if code == "(":
            return tuple([self._read(inner, depth + 1) for inner in split(kind[1:-1])])
        return self._array(kind[1:], depth)

    def _text(self, code: str) -> str:
        size = self._take(1)[0] if code == "g" else self._read("u", 0)
        raw = self._take(size + 1)
        try:
            value = raw[:-1].decode()
        except UnicodeDecodeError as error:
            raise DBusError("a D-Bus string is not UTF-8") from error
        if raw[-1] or "\0" in value:
            raise DBusError("a D-Bus string has a NUL inside or none at its end")
        if code == "g":
            split(value)
        elif code == "o":
            try:
                _check_path(value)
            except ValueError as error:
                raise DBusError(f"{value!r} in a D-Bus message: {error}") from error
        return value

    def _array(self, inner: str, depth: int) -> Any:
        size = self._read("u", 0)
        if size > ARRAY_MAX:
            raise DBusError(f"an array of {size} bytes in a D-Bus message is too long")
        self.align(_ALIGNMENTS[inner[0]])
        if inner == "y":
            return self._take(size)
        end = self._at + size
        if end > len(self._data):
            raise DBusError("a D-Bus message ends too early")
        items = []
        kind = f"({inner[1:-1]})" if inner[0] == "{" else inner
        while self._at < end:
            items.append(self._read(kind, depth + 1))
        if self._at != end:
            raise DBusError("an item of a D-Bus array is longer than the array")
        return dict(items) if inner[0] == "{" else items
