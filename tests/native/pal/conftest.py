"""Runelets that are ended with their test, and the recording PAL in its variants."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.native.pal.runelet import ROOT, Runelet, Start


@pytest.fixture(scope="session", autouse=True)
def _built() -> None:
    subprocess.run(["make", "-s", "src/inclavare/_native/runelet", "build/runelet-sanitized"], cwd=ROOT, check=True)


@pytest.fixture(scope="session")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that builds the recording PAL: version, and macros as recorder.c explains them."""
    folder = tmp_path_factory.mktemp("pals")
    folder.chmod(0o755)

    def build(version: int, *macros: str) -> Path:
        library = folder / f"liberpal-{'-'.join([str(version), *macros])}.so"
        if not library.exists():
            options = [f"-D{macro}" for macro in (f"PAL_VERSION={version}", *macros)]
            flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-unused", f"-I{ROOT}/native/include", *options]
            source = Path(__file__).with_name("recorder.c")
            subprocess.run(["gcc", *flags, "-fPIC", "-shared", "-o", library, source], check=True)
        return library

    return build


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a runelet (arguments: see Runelet); all are ended with the test."""
    with contextlib.ExitStack() as stack:

        def begin(pal: Path | str, **settings: Any) -> Runelet:
            runelet = Runelet(Path(tempfile.mkdtemp(dir=tmp_path)), pal, **settings)
            stack.callback(runelet.end)
            return runelet

        yield begin


@pytest.fixture(params=[1, 2, 3])
def pal(request: pytest.FixtureRequest, recorder: Callable[..., Path]) -> Path:
    """Return the recording PAL, in each of its versions."""
    return recorder(request.param)


@pytest.fixture
def pal_v1(recorder: Callable[..., Path]) -> Path:
    return recorder(1)


@pytest.fixture
def pal_v2(recorder: Callable[..., Path]) -> Path:
    return recorder(2)


@pytest.fixture
def pal_v3(recorder: Callable[..., Path]) -> Path:
    return recorder(3)
