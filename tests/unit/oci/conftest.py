"""Configurations for the tests of the OCI room: fresh copies, and copies with one member changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

CONFIGS = os.path.join(os.path.dirname(__file__), "..", "..", "vectors", "configs")

Document = dict[str, Any]
Edited = Callable[..., Document]


def read_config(name: str) -> Document:
    with open(os.path.join(CONFIGS, name), encoding="utf-8") as file:
        document: Document = json.load(file)
    return document


def put(document: Document, path: str, *value: object) -> Document:
    """Set the member at `path` (`a.b[2].c`) to `value`, or remove it when no value is given."""
    *parents, last = path.replace("]", "").replace("[", ".").split(".")
    place: Any = document
    for step in parents:
        place = place[int(step)] if isinstance(place, list) else place.setdefault(step, {})
    key: Any = int(last) if isinstance(place, list) else last
    if value:
        place[key] = value[0]
    else:
        del place[key]
    return document


@pytest.fixture
def everything() -> Document:
    return read_config("everything.json")


@pytest.fixture
def minimal() -> Document:
    return read_config("minimal.json")


@pytest.fixture
def edited_everything() -> Edited:
    return lambda path, *value: put(read_config("everything.json"), path, *value)


@pytest.fixture
def edited_minimal() -> Edited:
    return lambda path, *value: put(read_config("minimal.json"), path, *value)
