"""What libsgxemu.so is to the linker, and how the test enclave is built."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.native.sgx.conftest import EMULATOR, ROOT

API = {"sgxemu_init", "sgxemu_backend", "sgxemu_stats"}


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("programs")
def test_the_library_exports_its_interface_only() -> None:
    assert set(re.findall(r" T (\w+)", output("nm", "-D", "--defined-only", str(EMULATOR)))) == API


@pytest.mark.usefixtures("programs")
def test_the_library_needs_libc_only_and_can_be_loaded_at_any_time() -> None:
    """Thread-local storage of its own would need room that the loader may not have left."""
    assert re.findall(r"NEEDED.*\[(.*)\]", output("readelf", "-dW", str(EMULATOR))) == ["libc.so.6"]
    assert " TLS " not in output("readelf", "-lW", str(EMULATOR))


def test_the_test_enclave_is_built_alike_everywhere(tmp_path: Path) -> None:
    images = []
    for name in ("one", "another/folder"):
        target = tmp_path / name / "sgx-test" / "enclave.elf"
        target.parent.mkdir(parents=True)
        subprocess.run(["make", "-s", "-C", str(ROOT), f"BUILD={tmp_path / name}", str(target)], check=True)
        images.append(target.read_bytes())
    assert images[0] == images[1]
