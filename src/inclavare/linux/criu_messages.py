"""Messages between rune and CRIU: the parts of CRIU's rpc.proto that rune uses, encoded and decoded.

A message is a table of its fields' names and values; a schema tells their numbers and kinds. Fields that a schema does
not know are skipped when a message is read. No I/O.
"""

from __future__ import annotations

from inclavare.errors import HostError

DUMP, RESTORE, PRE_DUMP, NOTIFY, FEATURE_CHECK, VERSION = 1, 2, 4, 6, 9, 10  # criu_req_type
CGROUP_MODES = {"": 6, "ignore": 0, "soft": 3, "full": 4, "strict": 5}  # criu_cg_mode; "" is CRIU's default

MASK64 = (1 << 64) - 1


class Field:
    """A field's number and kind: "int", "bool", "text" or the schema of a message. `repeated`: its value is a list."""

    __slots__ = ("kind", "number", "repeated")

    def __init__(self, number: int, kind: str | dict[str, Field], *, repeated: bool = False) -> None:
        self.number = number
        self.kind = kind
        self.repeated = repeated


Schema = dict[str, Field]

PAGE_SERVER: Schema = {"address": Field(1, "text"), "port": Field(2, "int")}
INHERIT_FD: Schema = {"key": Field(1, "text"), "fd": Field(2, "int")}
CGROUP_ROOT: Schema = {"ctrl": Field(1, "text"), "path": Field(2, "text")}
JOIN_NAMESPACE: Schema = {"ns": Field(1, "text"), "ns_file": Field(2, "text")}
OPTIONS: Schema = {
    "images_dir_fd": Field(1, "int"),
    "pid": Field(2, "int"),
    "leave_running": Field(3, "bool"),
    "ext_unix_sk": Field(4, "bool"),
    "tcp_established": Field(5, "bool"),
    "evasive_devices": Field(6, "bool"),
    "shell_job": Field(7, "bool"),
    "file_locks": Field(8, "bool"),
    "log_level": Field(9, "int"),
    "log_file": Field(10, "text"),
    "ps": Field(11, PAGE_SERVER),
    "notify_scripts": Field(12, "bool"),
    "root": Field(13, "text"),
    "parent_img": Field(14, "text"),
    "track_mem": Field(15, "bool"),
    "auto_dedup": Field(16, "bool"),
    "work_dir_fd": Field(17, "int"),
    "link_remap": Field(18, "bool"),
    "manage_cgroups": Field(24, "bool"),
    "cg_root": Field(25, CGROUP_ROOT, repeated=True),
    "rst_sibling": Field(26, "bool"),
    "inherit_fd": Field(27, INHERIT_FD, repeated=True),
    "manage_cgroups_mode": Field(34, "int"),
    "external": Field(37, "text", repeated=True),
    "empty_ns": Field(38, "int"),
    "join_ns": Field(39, JOIN_NAMESPACE, repeated=True),
    "freeze_cgroup": Field(44, "text"),
    "tcp_skip_in_flight": Field(46, "bool"),
    "lazy_pages": Field(48, "bool"),
    "orphan_pts_master": Field(50, "bool"),
    "config_file": Field(51, "text"),
    "tcp_close": Field(52, "bool"),
    "lsm_profile": Field(53, "text"),
    "lsm_mount_context": Field(63, "text"),
}
FEATURES: Schema = {"mem_track": Field(1, "bool"), "lazy_pages": Field(2, "bool")}
REQUEST: Schema = {
    "type": Field(1, "int"),
    "opts": Field(2, OPTIONS),
    "notify_success": Field(3, "bool"),
    "features": Field(5, FEATURES),
}
RESPONSE: Schema = {
    "type": Field(1, "int"),
    "success": Field(2, "bool"),
    "restore": Field(4, {"pid": Field(1, "int")}),
    "notify": Field(5, {"script": Field(1, "text"), "pid": Field(2, "int")}),
    "cr_errno": Field(7, "int"),
    "features": Field(8, FEATURES),
    "cr_errmsg": Field(9, "text"),
    "version": Field(
        10, {"major_number": Field(1, "int"), "minor_number": Field(2, "int"), "sublevel": Field(4, "int")}
    ),
}


def encode(schema: Schema, message: dict[str, object]) -> bytes:
    """Write a message. Raises KeyError for a field that the schema lacks."""
    parts = []
    for name, value in message.items():
        field = schema[name]
        parts += [_encode_field(field, item) for item in (value if isinstance(value, list) else [value])]
    return b"".join(parts)


def decode(schema: Schema, raw: bytes) -> dict[str, object]:
    """Read a message. Raises HostError for bytes that are none. Of a field that comes twice the last counts."""
    message: dict[str, object] = {}
    names = {field.number: name for name, field in schema.items()}
    at = 0
    while at < len(raw):
        key, at = _read_varint(raw, at)
        wire = key & 7
        value: int | bytes
        if wire == 0:
            value, at = _read_varint(raw, at)
        else:
            size, at = _read_varint(raw, at) if wire == 2 else ({1: 8, 5: 4}.get(wire, len(raw) + 1), at)
            value, at = raw[at : at + size], at + size
            if at > len(raw):
                raise _malformed()
        name = names.get(key >> 3)
        if name is not None:
            message[name] = _value(schema[name].kind, value)
    return message


def _encode_field(field: Field, value: object) -> bytes:
    if isinstance(value, int):
        return _varint(field.number << 3) + _varint(value & MASK64)
    if isinstance(value, dict) and isinstance(field.kind, dict):
        raw = encode(field.kind, value)
    else:
        raw = str(value).encode("utf-8", "surrogateescape")
    return _varint(field.number << 3 | 2) + _varint(len(raw)) + raw


def _value(kind: str | Schema, raw: int | bytes) -> object:
    if isinstance(raw, int):
        if kind == "bool":
            return raw != 0
        if kind == "int":
            return (raw & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000  # all numbers that we read are int32
    elif isinstance(kind, dict):
        return decode(kind, raw)
    elif kind == "text":
        return raw.decode("utf-8", "surrogateescape")
    raise _malformed()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(raw):
            break
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & MASK64, at
    raise _malformed()


def _malformed() -> HostError:
    return HostError("CRIU answered with something that is no message of its protocol")
