"""The hardware backend, as far as a machine without SGX can show it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

no_sgx = pytest.mark.skipif(
    any(Path(name).exists() for name in ("/dev/sgx_enclave", "/dev/sgx/enclave", "/dev/isgx")),
    reason="this machine has an SGX device",
)


def hardware(programs: Path, *arguments: str) -> str:
    command = [str(programs / "hardware"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_functions_of_the_vdso_are_found_by_name(programs: Path) -> None:
    assert hardware(programs, "vdso").startswith("vdso sgx=")


@no_sgx
def test_without_a_device_opening_is_enodev(programs: Path) -> None:
    assert hardware(programs, "open") == "open ENODEV\n"


@no_sgx
def test_a_device_that_is_named_and_absent_is_enoent(programs: Path) -> None:
    assert hardware(programs, "open", "/dev/sgx_enclave") == "open ENOENT\n"


def test_a_device_that_is_no_misc_device_is_enodev(programs: Path) -> None:
    assert hardware(programs, "open", "/dev/null") == "open ENODEV\n"


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="making a device node needs root")
@pytest.mark.parametrize(
    ("device", "calls", "others"),
    [
        ("/dev/sgx_enclave", ("0x4008a400", "0xc030a401", "0x4008a402", "0x4008a403"), ("0x401aa401", "0x4018a402")),
        # Its CREATE needs the device's mmap, which the stand-in does not have.
        ("/dev/isgx", ("0x401aa401", "0x4018a402"), ("0xc030a401", "0x4008a402", "0x4008a403")),
    ],
)
def test_each_driver_gets_its_own_ioctls(
    programs: Path, device: str, calls: tuple[str, ...], others: tuple[str, ...]
) -> None:
    """A misc device that refuses every call (fuse) stands under the driver's name in a mount namespace of its own."""
    script = (
        "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod $0 c 10 229 &&"
        " exec strace -X raw -e trace=ioctl,close $1 create $0"
    )
    command = ["unshare", "--mount", "sh", "-c", script, device, str(programs / "hardware")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if "open ok" not in result.stdout:
        pytest.skip(f"the stand-in for the device cannot be opened: {result.stdout}{result.stderr[-200:]}")
    for call in calls:
        assert f", {call}, " in result.stderr
    for call in others:
        assert f", {call}, " not in result.stderr
    assert "close 0" in result.stdout
