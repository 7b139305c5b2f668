"""CRIU's messages: compared with google.protobuf, and strict about what is none."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.errors import HostError
from inclavare.linux import criu_messages as m
from inclavare.wire.protobuf import Schema

KINDS = {"int": 5, "bool": 8, "text": 9}  # FieldDescriptorProto: int32, bool, string


def protobuf(name: str, schema: Schema) -> Any:
    """The message class that google.protobuf makes of a schema."""
    descriptor = pytest.importorskip("google.protobuf.descriptor_pb2", reason="needs protobuf (PyPI)")
    factory = pytest.importorskip("google.protobuf.message_factory")
    file = descriptor.FileDescriptorProto(name=f"{name}.proto", package="criu")

    def add(kind: str, fields: Schema) -> str:
        message = descriptor.DescriptorProto(name=kind)
        for field_name, field in fields.items():
            entry = message.field.add(name=field_name, number=field.number, label=3 if field.repeated else 1)
            if isinstance(field.kind, dict):
                entry.type, entry.type_name = 11, f".criu.{add(f'{kind}_{field_name}', field.kind)}"
            else:
                entry.type = KINDS[field.kind]
        file.message_type.append(message)
        return kind

    add(name, schema)
    return factory.GetMessages([file])[f"criu.{name}"]


def test_protobuf_reads_our_request() -> None:
    options: dict[str, object] = {
        "images_dir_fd": 5,
        "leave_running": True,
        "shell_job": False,
        "log_file": "dump.log",
        "external": ["mnt[/a]:/b", "net[4]:extRootNetNS"],
        "inherit_fd": [{"key": "pipe:[7]", "fd": 0}, {"key": "pipe:[8]", "fd": 1}],
        "ps": {"address": "::1", "port": 65535},
        "empty_ns": 0x4000_0000,
        "pid": -1,
    }
    read = protobuf("request", m.REQUEST)()
    read.ParseFromString(m.encode(m.REQUEST, {"type": m.DUMP, "opts": options}))
    assert (read.type, read.opts.images_dir_fd, read.opts.pid, read.opts.empty_ns) == (m.DUMP, 5, -1, 0x4000_0000)
    assert read.opts.leave_running
    assert not read.opts.shell_job
    assert list(read.opts.external) == options["external"]
    assert [(entry.key, entry.fd) for entry in read.opts.inherit_fd] == [("pipe:[7]", 0), ("pipe:[8]", 1)]
    assert (read.opts.ps.address, read.opts.ps.port) == ("::1", 65535)


def test_we_read_what_protobuf_writes() -> None:
    written = protobuf("response", m.RESPONSE)(type=m.NOTIFY, success=True, cr_errno=-22)
    written.notify.script, written.notify.pid = "setup-namespaces", 1234
    assert m.decode(m.RESPONSE, written.SerializeToString()) == {
        "type": m.NOTIFY,
        "success": True,
        "cr_errno": -22,
        "notify": {"script": "setup-namespaces", "pid": 1234},
    }


def test_fields_that_we_do_not_know_are_skipped() -> None:
    unknown = bytes([0x9D, 0x06, 1, 2, 3, 4, 0x99, 0x06, *range(8), 0x9A, 0x06, 2, 0, 0])
    assert m.decode(m.RESPONSE, unknown + m.encode(m.RESPONSE, {"success": True})) == {"success": True}


@given(st.binary(max_size=64))
def test_random_bytes_are_a_message_or_our_error(raw: bytes) -> None:
    with contextlib.suppress(HostError):
        m.decode(m.RESPONSE, raw)
