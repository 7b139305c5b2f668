from __future__ import annotations

import json

import pytest

from inclavare.errors import SpecError
from inclavare.oci.jsontext import loads
from inclavare.oci.spec import parse
from inclavare.oci.support import refuse_unsupported
from tests.unit.oci.conftest import Document, Edited, put, read_config

UNSUPPORTED = [
    "linux.intelRdt",
]


def supported() -> Document:
    """Return everything.json without what this release does not support."""
    document = read_config("everything.json")
    for path in UNSUPPORTED:
        put(document, path)
    return document


def value_at(document: Document, path: str) -> object:
    for step in path.replace("]", "").replace("[", ".").split("."):
        document = document[int(step)] if isinstance(document, list) else document[step]
    return document


def refusal(document: Document) -> str:
    with pytest.raises(SpecError) as caught:
        refuse_unsupported(parse(document))
    return caught.value.message


def test_everything_else_is_supported() -> None:
    refuse_unsupported(parse(supported()))


@pytest.mark.parametrize("path", UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_name(everything: Document, path: str) -> None:
    document = put(supported(), path, value_at(everything, path))
    assert refusal(document) == f"{path}: is not supported yet"


@pytest.mark.parametrize("path", UNSUPPORTED)
def test_what_was_never_set_is_not_refused(everything: Document, path: str) -> None:
    kind = type(value_at(everything, path))
    refuse_unsupported(parse(put(supported(), path, kind())))


@pytest.mark.parametrize("never", ['{"closID": ""}', '{"enableMonitoring": false}', "{}", '{"a": {"b": ""}}'])
def test_zeros_of_engines_count_as_never_set(never: str) -> None:
    refuse_unsupported(parse(put(supported(), "linux.intelRdt", json.loads(never))))


def test_deep_nesting_is_not_too_deep_for_the_table() -> None:
    deep = loads(b"[" * 700 + b"0" + b"]" * 700)
    refuse_unsupported(parse(put(supported(), "linux.intelRdt", {"closID": deep})))


@pytest.mark.parametrize("platform", ["freebsd", "solaris", "vm", "windows", "zos"])
def test_other_platforms_are_refused(platform: str) -> None:
    assert refusal(put(supported(), platform, {})) == (
        f"{platform}: is not supported: {platform} is for another platform than Linux"
    )


@pytest.mark.parametrize("namespaces", [[], [{"type": "pid"}]])
def test_a_container_has_its_own_mount_namespace(edited_minimal: Edited, namespaces: list[object]) -> None:
    assert refusal(edited_minimal("linux.namespaces", namespaces)) == (
        "linux.namespaces: a container without a mount namespace of its own is not supported"
    )
