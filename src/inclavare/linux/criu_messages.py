"""Messages between rune and CRIU: the parts of CRIU's rpc.proto that rune uses, encoded and decoded.

A message is a table of its fields' names and values; a schema tells their numbers and kinds. Fields that a schema does
not know are skipped when a message is read. No I/O.
"""

from __future__ import annotations

from inclavare.errors import HostError, WireError
from inclavare.wire import protobuf
from inclavare.wire.protobuf import Field, Schema

DUMP, RESTORE, PRE_DUMP, NOTIFY, FEATURE_CHECK, VERSION = 1, 2, 4, 6, 9, 10  # criu_req_type
CGROUP_MODES = {"": 6, "ignore": 0, "soft": 3, "full": 4, "strict": 5}  # criu_cg_mode; "" is CRIU's default

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
    """Write a message; in proto2 a number that is given is there, also if it is 0."""
    return protobuf.encode(schema, message, explicit=True)


def decode(schema: Schema, raw: bytes) -> dict[str, object]:
    """Read a message. Raises HostError for bytes that are none."""
    try:
        return protobuf.decode(schema, raw)
    except WireError as error:
        raise HostError(f"CRIU answered with something that is no message of its protocol: {error}") from error
