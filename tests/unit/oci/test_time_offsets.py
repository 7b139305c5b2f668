from __future__ import annotations

import pytest

from inclavare.errors import SpecError
from inclavare.oci.spec import parse
from inclavare.oci.validate import validate
from tests.unit.oci.conftest import Document, Edited, put

MOUNT = {"type": "mount"}


def refusal(document: Document) -> str:
    with pytest.raises(SpecError) as caught:
        validate(parse(document))
    return caught.value.message


def test_offsets_are_read_in_the_order_of_the_clocks(edited_minimal: Edited) -> None:
    document = edited_minimal("linux.timeOffsets", {"boottime": {"nanosecs": 4}, "monotonic": {"secs": -1}})
    offsets = parse(document).linux.time_offsets
    assert [(offset.clock, offset.secs, offset.nanosecs) for offset in offsets] == [
        ("monotonic", -1, 0),
        ("boottime", 0, 4),
    ]


def test_offsets_need_a_time_namespace_of_the_containers_own(edited_minimal: Edited) -> None:
    document = edited_minimal("linux.timeOffsets", {"monotonic": {"secs": 1}})
    assert refusal(put(document, "linux.namespaces", [MOUNT])) == (
        "linux.timeOffsets: unable to set the clocks without a private time namespace"
    )
    joined = {"type": "time", "path": "/proc/1/ns/time"}
    assert refusal(put(document, "linux.namespaces", [MOUNT, joined])) == (
        'linux.timeOffsets: the time namespace "/proc/1/ns/time" that is joined has its own offsets'
    )
    validate(parse(put(document, "linux.namespaces", [MOUNT, {"type": "time"}])))


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ({"realtime": {"secs": 1}}, "realtime: a time namespace has no such clock, only monotonic and boottime"),
        ({"monotonic": {"nanosecs": 10**9}}, "monotonic.nanosecs: 1000000000 is not between 0 and 999999999"),
        ({"boottime": {"secs": "1"}}, 'boottime.secs: must be an integer, found "1"'),
    ],
)
def test_an_offset_that_cannot_be_set_is_named(edited_minimal: Edited, offsets: object, message: str) -> None:
    assert refusal(edited_minimal("linux.timeOffsets", offsets)) == f"linux.timeOffsets.{message}"
