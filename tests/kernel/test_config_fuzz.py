"""Damaged configurations through rune itself: exit status 1, one clear line, nothing left."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inclavare.oci.reader import join_path
from tests.kernel.conftest import Bundle, Rune

CONFIGS = Path(__file__).parents[1] / "vectors/configs"
DAMAGES = {
    "cut off": lambda raw: raw[: len(raw) // 2],
    "a byte that is not UTF-8": lambda raw: raw.replace(b'"process"', b'"pro\xffcess"', 1),
    "an encoded surrogate": lambda raw: raw.replace(b'"process"', b'"\xed\xa0\x80"', 1),
    "a lone surrogate": lambda raw: raw.replace(b'"args":', b'"args": ["\\ud800"], "was":', 1),
    "a NUL": lambda raw: raw.replace(b'"args":', b'"args": ["a\\u0000b"], "was":', 1),
    "a member twice": lambda raw: raw.replace(b'"process":', b'"process": {}, "process":', 1),
    "a number without end": lambda raw: raw.replace(b'"uid":', b'"umask": ' + b"9" * 100_000 + b', "uid":', 1),
    "a number beyond all": lambda raw: raw.replace(b'"uid":', b'"umask": 1e999, "uid":', 1),
    "a deep nest": lambda raw: raw.replace(b'"args":', b'"args": ' + b"[" * 200_000, 1),
    "closed too late": lambda raw: raw + b"}",
    "another encoding": lambda raw: raw.decode().encode("utf-16"),
    "too large": lambda raw: raw + b" " * (17 << 20),
}


def _is_refused(rune: Rune, bundle: Bundle, what: str) -> str:
    result = rune("create", "--bundle", bundle.path, "c", timeout=20)
    lines = [line for line in result.error.splitlines() if not line.startswith("hint: ")]
    assert (result.status, len(lines)) == (1, 1), f"{what}: {result.status} {result.error}"
    assert lines[0].startswith("rune: "), what
    assert len(lines[0]) < 1000, what
    return lines[0]


@pytest.mark.parametrize("name", ["docker.json", "podman.json", "containerd.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_text_is_refused_in_one_line(rune: Rune, bundle: Bundle, name: str, damage: str) -> None:
    raw = json.dumps(json.loads((CONFIGS / name).read_bytes())).encode()
    damaged = DAMAGES[damage](raw)
    assert damaged != raw
    (bundle.path / "config.json").write_bytes(damaged)
    _is_refused(rune, bundle, damage)
    assert rune.leftovers() == []


def _places(value: Any, path: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Give (container, key, JSON path) of every member."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        inner = join_path(path, str(key)) if isinstance(value, dict) else f"{path}[{key}]"
        yield value, key, inner
        yield from _places(value[key], inner)


@pytest.mark.parametrize("name", ["docker.json", "docker-tty.json", "podman.json", "containerd.json"])
def test_a_member_of_another_type_is_named_by_its_path(rune: Rune, bundle: Bundle, name: str) -> None:
    document = json.loads((CONFIGS / name).read_bytes())
    places = [
        (container, key, path)
        for container, key, path in _places(document)
        if path in ("hooks", "annotations", "mounts", "process", "root") or path.startswith("linux")
    ]
    for container, key, path in random.Random(name).sample(places, 12):  # noqa: S311  # chance, not secrets
        kept = container[key]
        container[key] = {"odd": 1} if not isinstance(kept, dict) else 7
        (bundle.path / "config.json").write_text(json.dumps(document))
        container[key] = kept
        assert f"rune: {path}" in _is_refused(rune, bundle, path)
    assert rune.leftovers() == []
