"""Every message of the shim against Google's library: the same bytes, both ways.

The kit's descriptors are written down apart from rune's tables, so a wrong number in one of them shows here.
"""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inclavare.shim import messages as m
from inclavare.shim import metrics
from inclavare.wire import protobuf, ttrpc
from tests.containerd_kit import schema as kit
from tests.containerd_kit.events import TOPICS

TASK, RUNC, BOOT = kit.TASK, "containerd.runc.v1.", "containerd.runtime.bootstrap.v1."
NAMED: dict[str, protobuf.Schema] = {
    "ttrpc.Request": ttrpc.REQUEST_SCHEMA,
    "ttrpc.Response": ttrpc.RESPONSE_SCHEMA,
    "google.rpc.Status": ttrpc.STATUS,
    "google.protobuf.Any": m.ANY,
    "google.protobuf.Timestamp": m.TIMESTAMP,
    "containerd.types.Mount": m.MOUNT,
    "containerd.types.Envelope": m.ENVELOPE,
    "containerd.types.RuntimeInfo": m.RUNTIME_INFO,
    "containerd.services.events.ttrpc.v1.ForwardRequest": m.FORWARD,
    "containerd.v1.types.ProcessInfo": m.PROCESS_INFO,
    "containerd.events.TaskIO": m.TASK_IO,
    f"{RUNC}Options": m.RUNC_OPTIONS,
    f"{RUNC}CheckpointOptions": m.CHECKPOINT_OPTIONS,
    f"{RUNC}ProcessDetails": m.PROCESS_DETAILS,
    "runtimeoptions.v1.Options": m.RUNTIME_OPTIONS,
    f"{BOOT}BootstrapParams": m.BOOTSTRAP,
    f"{BOOT}BootstrapResult": m.BOOTSTRAPPED,
    metrics.V1_TYPE: metrics.V1,
    metrics.V2_TYPE: metrics.V2,
    **{f"containerd.events.{name}": schema for name, (_, schema) in m.EVENTS.items()},
    **{kit.METHODS[name][0]: asked for name, (asked, _) in m.METHODS.items()},
    **{kit.METHODS[name][1]: answered for name, (_, answered) in m.METHODS.items()},
}
# Those of containerd's that the shim does not use.
LEFT_OUT = {
    "google.rpc.Status": {"details"},
    metrics.V1_TYPE: set[str](),
    "io.containerd.cgroups.v1.Block": {
        *("io_queued_recursive", "io_service_time_recursive", "io_wait_time_recursive", "io_merged_recursive"),
        *("io_time_recursive", "sectors_recursive"),
    },
}
KINDS = {
    "bool": {"bool"},
    "bytes": {"bytes"},
    "double": {"double"},
    "int": {"int32", "int64"},
    "text": {"string"},
    "uint": {"uint32", "uint64", "int32"},  # an enum is an int32
}
TYPES = {getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{name.upper()}"): name for name in kit.SCALARS}
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
UINT32, INT32 = st.integers(0, 2**32 - 1), st.integers(-(2**31), 2**31 - 1)
VALUES = {
    "bool": st.booleans(),
    "bytes": st.binary(max_size=200),
    "double": st.floats(allow_nan=False),
    "string": TEXT,
    "uint32": UINT32,
    "uint64": st.integers(0, 2**64 - 1),
    "int32": INT32,
    "int64": st.integers(-(2**63), 2**63 - 1),
}
names = pytest.mark.parametrize("name", NAMED)
few = settings(
    max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None
)  # for each of many messages


def compare(schema: protobuf.Schema, descriptor: Any) -> None:
    """Compare the numbers and kinds of all fields, those of messages in it, too."""
    theirs = {field.number: field for field in descriptor.fields}
    ours = {field.number: field for field in schema.values()}
    assert len(ours) == len(schema), f"{descriptor.full_name} has a number twice"
    missing = {theirs[number].name for number in set(theirs) - set(ours)}
    assert not set(ours) - set(theirs)
    assert missing == LEFT_OUT.get(descriptor.full_name, set()), descriptor.full_name
    for number, field in ours.items():
        other = theirs[number]
        assert field.repeated == other.is_repeated, other.full_name
        if isinstance(field.kind, dict):
            compare(field.kind, other.message_type)
        else:
            assert TYPES[other.type] in KINDS[field.kind], other.full_name


def values(schema: protobuf.Schema, descriptor: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Give messages with any of their fields, in the order of their numbers, in which Google's library writes them."""
    theirs = {field.number: field for field in descriptor.fields}
    found: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in sorted(schema.items(), key=lambda item: item[1].number):
        other = theirs[field.number]
        if isinstance(field.kind, dict):
            one: st.SearchStrategy[Any] = values(field.kind, other.message_type)
        elif field.kind == "uint" and TYPES[other.type] == "int32":
            one = st.integers(0, 2**31 - 1)
        else:
            one = VALUES[TYPES[other.type]]
        found[name] = st.lists(one, min_size=1, max_size=3) if field.repeated else one
    return st.fixed_dictionaries({}, optional=found).map(
        lambda some: {name: some[name] for name in found if name in some}
    )


def fill(message: Any, schema: protobuf.Schema, given_values: dict[str, Any]) -> None:
    theirs = {field.number: field for field in message.DESCRIPTOR.fields}
    for name, value in given_values.items():
        field, other = schema[name], theirs[schema[name].number]
        if other.message_type is not None and other.message_type.GetOptions().map_entry:
            getattr(message, other.name).update({entry.get("key", ""): entry.get("value", "") for entry in value})
        elif isinstance(field.kind, dict):
            for item in value if field.repeated else [value]:
                target = getattr(message, other.name).add() if field.repeated else getattr(message, other.name)
                target.SetInParent() if not field.repeated else None
                fill(target, field.kind, item)
        elif field.repeated:
            getattr(message, other.name).extend(value)
        else:
            setattr(message, other.name, value)


def without_nothing(schema: protobuf.Schema, message: dict[str, Any]) -> dict[str, Any]:
    """Take away what is not sent: numbers that are 0, empty strings."""
    kept = {}
    for name, value in message.items():
        field = schema[name]
        if isinstance(field.kind, dict):
            items = value if field.repeated else [value]
            inner = [without_nothing(field.kind, item) for item in items]
            kept[name] = inner if field.repeated else inner[0]
        elif field.repeated or value:
            kept[name] = value
    return kept


def has_map(descriptor: Any) -> bool:
    return any(
        field.message_type is not None and field.message_type.GetOptions().map_entry for field in descriptor.fields
    )


def test_all_messages_of_the_shim_are_here() -> None:
    schemas = [value for name, value in vars(m).items() if name.isupper() and isinstance(value, dict)]
    schemas = [each for each in schemas if all(isinstance(field, protobuf.Field) for field in each.values())]
    assert len(schemas) > 25
    inside = [m.ID, m.PROCESS, m.PID, m.EMPTY]  # of several messages, which are here
    assert not [schema for schema in schemas if schema not in [*NAMED.values(), *inside, protobuf.ENTRY]]


def test_the_service_has_all_methods() -> None:
    assert set(m.METHODS) == set(kit.METHODS)
    assert {name: topic for name, (topic, _) in m.EVENTS.items()} == TOPICS


@names
def test_numbers_and_kinds_are_those_of_containerd(name: str) -> None:
    compare(NAMED[name], kit.message_class(name).DESCRIPTOR)


@names
@few
@given(data=st.data())
def test_what_is_written_is_what_google_writes(name: str, data: st.DataObject) -> None:
    cls, schema = kit.message_class(name), NAMED[name]
    message = data.draw(values(schema, cls.DESCRIPTOR))
    theirs = cls()
    fill(theirs, schema, message)
    ours = protobuf.encode(schema, message)
    if has_map(cls.DESCRIPTOR):  # the order of a map's entries is nobody's business
        assert cls.FromString(ours) == theirs
    else:
        assert ours == theirs.SerializeToString()
    assert cls.FromString(protobuf.encode(schema, message, explicit=True)) == theirs


@names
@few
@given(data=st.data())
def test_what_google_writes_is_read(name: str, data: st.DataObject) -> None:
    cls, schema = kit.message_class(name), NAMED[name]
    message = data.draw(values(schema, cls.DESCRIPTOR))
    theirs = cls()
    fill(theirs, schema, message)
    read = protobuf.decode(schema, theirs.SerializeToString())
    if not has_map(cls.DESCRIPTOR):
        assert read == without_nothing(schema, message)
    again = cls()
    fill(again, schema, read)
    assert again == theirs


@names
def test_an_absent_field_has_the_value_that_proto3_gives_it(name: str) -> None:
    parsed = protobuf.parse(NAMED[name], b"")
    theirs = kit.message_class(name)()
    assert set(parsed) == set(NAMED[name])
    for field in theirs.DESCRIPTOR.fields:
        ours = next((key for key, each in NAMED[name].items() if each.number == field.number), None)
        if ours is not None and field.message_type is None and not field.is_repeated:
            assert parsed[ours] == getattr(theirs, field.name)


def test_a_time_is_a_timestamp() -> None:
    assert m.timestamp(0) is None
    written = protobuf.encode(m.TIMESTAMP, m.timestamp(1_700_000_000_123_456_789) or {})
    theirs = kit.message_class("google.protobuf.Timestamp").FromString(written)
    assert (theirs.seconds, theirs.nanos) == (1_700_000_000, 123_456_789)
