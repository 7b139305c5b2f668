"""Builds the test enclave, its host and its images once a session."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.native.sgx import image
from tests.native.sgx.image import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[3]
EMULATOR = ROOT / "src/inclavare/_native/libsgxemu.so"
PROGRAMS = ROOT / "build/sgx-test"
SEED = b"the seed of the emulator's tests"
ALL = (1 << 64) - 1
DEBUG = 2
PRODUCTION, DEBUGGED, PROVISION, TOKEN, KSS = 0x04, 0x06, 0x14, 0x24, 0x84

VARIANTS = {
    "": Identity(),
    "other": Identity(),
    "wild_ossa": Identity(),
    "svn": Identity(isvsvn=9, isvprodid=8),
    "noexinfo": Identity(miscselect=0),
    "avx": Identity(xfrm=7),
    "debug_refused": Identity(attributes=PRODUCTION, secs_attributes=DEBUGGED),
    "debug_masked": Identity(attributes=PRODUCTION, secs_attributes=DEBUGGED, attributes_mask=ALL & ~DEBUG),
    "xfrm_refused": Identity(xfrm=3, secs_xfrm=7),
    "xfrm_masked": Identity(xfrm=3, secs_xfrm=7, xfrm_mask=ALL & ~4),
    "misc_refused": Identity(miscselect=1, secs_miscselect=0),
    "misc_masked": Identity(miscselect=1, secs_miscselect=0, miscmask=0xFFFFFFFE),
    "intel": Identity(vendor=0x8086),
    "debug_type": Identity(sigtype=0x80000000),
    "provision": Identity(attributes=PROVISION),
    "token": Identity(attributes=TOKEN),
    "kss": Identity(
        attributes=KSS, isvfamilyid=b"F" * 16, isvextprodid=b"E" * 16, configid=b"C" * 64, configsvn=5
    ),
    "kss_sibling": Identity(attributes=KSS, isvprodid=8, configsvn=5),
}  # fmt: skip


@pytest.fixture(scope="session")
def programs() -> Path:
    """Return the folder of the built test programs; libsgxemu.so is built too."""
    names = ["host", "enclave.elf", "sigstruct-verify", "hardware"]
    targets = [str((PROGRAMS / name).relative_to(ROOT)) for name in names]
    targets += ["build/sgx-measure", str(EMULATOR.relative_to(ROOT))]
    subprocess.run(["make", "-s", "-C", str(ROOT), *targets], check=True)
    return PROGRAMS


@pytest.fixture(scope="session")
def images(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment that names the emulator and the images of all variants."""
    folder = tmp_path_factory.mktemp("images")
    keys = [rsa.generate_private_key(public_exponent=3, key_size=3072) for _ in range(2)]
    pages = image.elf_pages((programs / "enclave.elf").read_bytes())
    # Bytes that differ from the plain image: for another MRENCLAVE, and an SSA that wraps around the address space.
    patches = {
        "other": (pages[-1].offset, b"\1"),
        "wild_ossa": (pages[0].offset + 16, (-4096).to_bytes(8, "little", signed=True)),
    }
    environment = {**os.environ, "SGX_TEST_EMULATOR": str(EMULATOR)}
    for suffix, identity in VARIANTS.items():
        path = folder / f"{suffix or 'plain'}.img"
        offset, patch = patches.get(suffix, (0, b""))
        image.build(path, image.patched(pages, offset, patch), keys[suffix == "other"], identity)
        environment["SGX_TEST_IMAGE" + ("_" + suffix if suffix else "")] = str(path)
    return environment


@pytest.fixture(scope="session")
def run_host(programs: Path, images: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs one check of the host and returns how it ended."""

    def run(*arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        command = [*prefix, str(programs / "host"), *arguments]
        return subprocess.run(command, env=images, capture_output=True, text=True, timeout=30, check=False)

    return run
