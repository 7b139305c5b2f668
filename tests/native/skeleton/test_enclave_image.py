from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from inclavare.sgx.arch import Sigstruct, Tcs
from inclavare.sgx.layout import read_flat
from inclavare.sgx.measure import image_steps, mrenclave
from inclavare.sgx.sigstruct import require, verify, verify_enclave

ROOT = Path(__file__).parents[3]
GOLDEN = bytes.fromhex((ROOT / "native" / "skeleton" / "MRENCLAVE").read_text(encoding="ascii"))
IMAGE = "src/inclavare/_native/skeleton/encl.bin"


@pytest.fixture(scope="session")
def image(built: Path) -> bytes:
    return (built / "skeleton" / "encl.bin").read_bytes()


def test_the_enclave_measures_as_the_committed_value(image: bytes) -> None:
    assert mrenclave(image_steps(image)).hex() == GOLDEN.hex()


def test_another_directory_builds_the_same_bytes(image: bytes, tmp_path: Path) -> None:
    for name in ("Makefile", "native/skeleton", "src/inclavare"):
        target = tmp_path / "a directory" / "elsewhere" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == "Makefile":
            shutil.copy(ROOT / name, target)
        else:
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("_native", "__pycache__"))
    folder = tmp_path / "a directory" / "elsewhere"
    subprocess.run(["make", "-s", IMAGE, "CC=gcc -O0 -g3"], cwd=folder, check=True)
    assert (folder / IMAGE).read_bytes() == image


def test_the_signature_is_one_of_this_enclave(built: Path) -> None:
    sigstruct = Sigstruct.from_bytes((built / "skeleton" / "encl.ss").read_bytes())
    require((*verify(sigstruct), verify_enclave(sigstruct, GOLDEN)))
    assert (sigstruct.attributes, sigstruct.attributes_mask, sigstruct.xfrm) == (6, 6, 3)


def test_the_image_is_flat_with_one_tcs(image: bytes) -> None:
    flat = read_flat(image)
    tcs = Tcs.from_bytes(image[:4096])
    assert (len(image), flat.enclave_size, flat.ssa_offset) == (4 * 4096 + 17, 8 * 4096, 5 * 4096)
    assert (tcs.nssa, tcs.oentry, tcs.fslimit, tcs.gslimit) == (1, 0x1000, 0xFFFFFFFF, 0xFFFFFFFF)


def test_the_greeting_is_in_the_image(image: bytes) -> None:
    assert image.count(b"Hello Inclavare Containers!\0") == 1
