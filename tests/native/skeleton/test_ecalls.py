"""The enclave called by a host that does not keep to the rules."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EIO, EFAULT, EBUSY, ENOSYS = 5, 14, 16, 38
UNTOUCHED = 4711

EXPECTED = {
    "a good address": 0,
    "an unknown number": -ENOSYS,
    "a huge number": -ENOSYS,
    "not aligned": -EFAULT,
    "beyond all addresses": -EFAULT,
    "the start of the image": -EFAULT,
    "the text": -EFAULT,
    "the first bytes": -EFAULT,
    "the last bytes": -EFAULT,
    "over the end": -EFAULT,
    "over the start": -EFAULT,
    "directly behind": 0,
    "a good report": 0,
    "target info inside": -EFAULT,
    "report data inside": -EFAULT,
    "report inside": -EFAULT,
    "a call inside": UNTOUCHED,
    "a call not aligned": UNTOUCHED,
    "busy": -EBUSY,
}
# What is not there for some enclaves: there is nothing below address 0, and somebody may live behind the enclave.
OPTIONAL = {"over the start", "directly behind"}


def called(built: Path, folder: Path) -> dict[str, str]:
    done = subprocess.run(
        [ROOT / "build" / "skeleton" / "ecalls", built / "libsgxemu.so"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "the enclave is busy: another thread has used its only TCS for 1 s" in done.stderr.splitlines()
    lines = done.stdout.splitlines()
    return {
        name: line[len(name) + 1 :]
        for name in [*EXPECTED, "nothing there", "afterwards", "and then"]
        for line in lines
        if line.startswith(name + " ")
    }


@pytest.mark.parametrize("options", [[], ["-n", "-m", "10000"], ["-n"], ["-s", "30000"], ["-s", "100000"]])
def test_only_memory_outside_of_the_enclave_is_touched(built: Path, tmp_path: Path, options: list[str]) -> None:
    image = built / "skeleton" / "encl.bin"
    key = ROOT / "build" / "skeleton" / "signing_key.pem"
    command: list[str | Path] = ["/usr/bin/python3", "-m", "inclavare.cli.runectl", "sign", "--key", key]
    command += [image, tmp_path / "encl.ss"]
    if options:
        command += [*options, "-o", tmp_path / "encl.bin"]
    else:
        shutil.copy(image, tmp_path)
    subprocess.run(command, env={"PYTHONPATH": str(ROOT / "src")}, check=True)
    results = called(built, tmp_path)
    for name, expected in EXPECTED.items():
        if name in results or name not in OPTIONAL:
            assert results[name] == str(expected), name


def test_after_an_exception_the_enclave_is_not_entered_again(built: Path, tmp_path: Path) -> None:
    for name in ("encl.bin", "encl.ss"):
        shutil.copy(built / "skeleton" / name, tmp_path)
    results = called(built, tmp_path)
    assert results["nothing there"].startswith("exception 0, function 3, vector 14")
    assert results["and then"] == str(-EIO)
