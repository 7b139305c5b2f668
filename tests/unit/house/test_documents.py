"""What the documents for readers say about the tree is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from inclavare import __version__

CHECKOUT = Path(__file__).parents[3]
DOCUMENTS = sorted(
    str(path.relative_to(CHECKOUT)) for path in (*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md"))
)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
MAKE_TARGET = re.compile(r"`make ([a-z-]+)|^make ([a-z-]+)", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    path = CHECKOUT / document
    links = [link for link in LINK.findall(path.read_text()) if "://" not in link]
    assert not [link for link in links if not (path.parent / link).exists()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_targets_of_make_exist(document: str) -> None:
    rules = re.findall(r"^([a-z -]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    named = {first or second for first, second in MAKE_TARGET.findall((CHECKOUT / document).read_text())}
    assert named <= targets


def test_the_changelog_tells_of_this_version() -> None:
    assert re.search(rf"^## \[?{re.escape(__version__)}\b", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_first_screen_of_the_readme_says_how_to_begin_and_that_emulation_protects_nothing() -> None:
    screen = "\n".join((CHECKOUT / "README.md").read_text().splitlines()[:30])
    for phrase in ("make demo", "make test", "Emulation protects nothing"):
        assert phrase in screen


def test_decisions_fit_a_screen() -> None:
    decisions = list((CHECKOUT / "docs/decisions").glob("*.md"))
    assert decisions
    assert not [path.name for path in decisions if len(path.read_text().splitlines()) > 40]
