from __future__ import annotations

from inclavare.oci.jsontext import dumps
from inclavare.oci.state import hook_state, state_document


def test_the_state_is_printed_as_runc_prints_it() -> None:
    document = state_document(
        container_id="c1",
        pid=42,
        status="running",
        bundle="/b",
        rootfs="/b/rootfs",
        created="2020-06-30T12:00:00.123456789Z",
        annotations={"b": "2", "a": "1"},
    )
    assert dumps(document, "  ") == (
        "{\n"
        '  "ociVersion": "1.3.0",\n'
        '  "id": "c1",\n'
        '  "pid": 42,\n'
        '  "status": "running",\n'
        '  "bundle": "/b",\n'
        '  "rootfs": "/b/rootfs",\n'
        '  "created": "2020-06-30T12:00:00.123456789Z",\n'
        '  "annotations": {\n'
        '    "a": "1",\n'
        '    "b": "2"\n'
        "  },\n"
        '  "owner": ""\n'
        "}"
    )


def test_a_plain_container_has_neither_annotations_nor_enclave() -> None:
    document = state_document(
        container_id="c1", pid=0, status="stopped", bundle="/b", rootfs="/r", created="t", annotations={}
    )
    assert list(document) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]


def test_an_enclave_container_says_so() -> None:
    document = state_document(
        container_id="c1",
        pid=1,
        status="created",
        bundle="/b",
        rootfs="/r",
        created="t",
        annotations={},
        owner="me",
        enclave={"platform": "emulated"},
    )
    assert (document["owner"], document["enclave"]) == ("me", {"platform": "emulated"})


def test_a_hook_gets_the_state_of_the_specification() -> None:
    assert hook_state(container_id="c1", pid=7, status="creating", bundle="/b", annotations={"a": "1"}) == {
        "ociVersion": "1.3.0",
        "id": "c1",
        "status": "creating",
        "pid": 7,
        "bundle": "/b",
        "annotations": {"a": "1"},
    }


def test_a_poststop_hook_gets_no_pid() -> None:
    assert "pid" not in hook_state(container_id="c1", pid=0, status="stopped", bundle="/b", annotations={})
