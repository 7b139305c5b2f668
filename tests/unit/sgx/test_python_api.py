"""The examples of docs/python-api.md run, and the package's names are there and come late."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import inclavare.sgx

CHECKOUT = Path(__file__).parents[3]
VECTORS = CHECKOUT / "tests/vectors/attestation"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", (CHECKOUT / "docs/python-api.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: bytes) -> None:
    assert len(EXAMPLES) == 5
    shutil.copy(VECTORS / "quotes/phala_sgx.bin", tmp_path / "quote.bin")
    shutil.copy(VECTORS / "sets/phala_sgx__eval17_v3_2025-07-04.json", tmp_path / "collateral.json")
    (tmp_path / "encl.bin").write_bytes(image)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in EXAMPLES:
        exec(example, names)  # noqa: S102  # the document's own


def test_every_name_is_there() -> None:
    for name in inclavare.sgx.__all__:
        assert getattr(inclavare.sgx, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        inclavare.sgx.nothing  # noqa: B018  # the access is what is tested


def test_importing_the_package_loads_nothing() -> None:
    program = "import sys; before = set(sys.modules); import inclavare.sgx; print(*sys.modules.keys() - before)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=CHECKOUT / "src"
    )
    assert set(done.stdout.split()) == {"__future__", "inclavare", "inclavare.sgx"}
