"""docs/tour.md names real places."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PLACES = sorted(set(re.findall(r"`((?:src|native)/[\w/.]+)(?::(\w+))?`", (ROOT / "docs/tour.md").read_text())))


def test_the_tour_goes_through_many_places() -> None:
    assert len(PLACES) > 40


@pytest.mark.parametrize(("path", "name"), PLACES)
def test_a_place_of_the_tour_exists(path: str, name: str) -> None:
    text = (ROOT / path).read_text()
    if name:
        pattern = rf"^\s*(?:def|class) {name}\b" if path.endswith(".py") else rf"\b{name}\("
        assert re.search(pattern, text, re.MULTILINE), f"{path} has no {name}"
