"""sgx_arch.h against the kernel's own header."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
INCLUDE = FOLDER.parents[2] / "native/include"


def printed(folder: Path, *flags: str) -> str:
    program = folder / "uapi"
    subprocess.run(["gcc", "-std=c11", *flags, "-o", str(program), str(FOLDER / "uapi.c")], check=True)
    return subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(not Path("/usr/include/x86_64-linux-gnu/asm/sgx.h").exists(), reason="no kernel header of SGX")
def test_the_driver_s_interface_is_the_kernel_header_s(tmp_path: Path) -> None:
    ours = printed(tmp_path, f"-I{INCLUDE}")
    assert ours.count("\n") == 26
    assert ours == printed(tmp_path, "-DFROM_KERNEL")
