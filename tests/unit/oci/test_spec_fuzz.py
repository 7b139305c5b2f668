"""Whatever a configuration holds, reading it ends in a value or in our error."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inclavare.errors import SpecError
from inclavare.oci.jsontext import loads
from inclavare.oci.spec import parse, parse_process, parse_resources
from inclavare.oci.validate import validate
from tests.unit.oci.conftest import Document, read_config

CONFIGS = [
    json.dumps(read_config(name)) for name in ("everything.json", "docker.json", "podman.json", "docker-tty.json")
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 2**32 - 1, 2**63, 2**64])
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()), max_size=8)
    | st.sampled_from(["/", "..", "a/../b", "a\0", "SCMP_ACT_NOTIFY", "time", "net.x"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a JSON value."""
    found: list[tuple[Any, Any]] = []
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found.append((value, key))
        found += places(value[key])
    return found


@given(values)
def test_any_value_is_read_or_refused(value: object) -> None:
    for read in (parse, parse_process, parse_resources):
        try:
            read(value)
        except SpecError:
            continue


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(CONFIGS), st.data())
def test_any_change_of_a_configuration_is_read_or_refused(text: str, data: st.DataObject) -> None:
    document: Document = json.loads(text)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(document)))
        if data.draw(st.booleans()):
            container[key] = data.draw(values)
        elif isinstance(container, dict):
            container[data.draw(st.text(max_size=8))] = container.pop(key)
        else:
            container.insert(key, container[key])
    message = ""
    try:
        validate(parse(document))
    except SpecError as error:
        message = error.message
    assert message.encode().isascii()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CONFIGS), st.data())
def test_any_damage_to_the_text_is_read_or_refused(text: str, data: st.DataObject) -> None:
    raw = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        raw[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        validate(parse(loads(bytes(raw))))
    except SpecError:
        return
