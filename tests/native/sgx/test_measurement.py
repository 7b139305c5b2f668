"""MRENCLAVE and SIGSTRUCT: the emulator against values that others computed."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.native.sgx.conftest import PROGRAMS

VECTORS = Path(__file__).resolve().parents[2] / "vectors/sigstruct"
SIGSTRUCTS = ("hello-world.sig", "intel_le.sigstruct.bin", "intel_pce.sigstruct.bin")
VALID, INVALID_SIG_STRUCT, INVALID_SIGNATURE = 0, 1, 8


def image_t(max_mmap_size: int, protection: int, mmap_min_addr: int) -> bytes:
    """Return the flat test image: a TCS, a page of NOPs, 17 bytes of metadata."""
    tcs = bytearray(4096)
    struct.pack_into("<IQ", tcs, 28, 1, 0x1000)
    tcs[64:72] = b"\xff" * 8
    return bytes(tcs) + b"\x90" * 4096 + struct.pack("<QBQ", max_mmap_size, protection, mmap_min_addr)


@pytest.mark.parametrize(
    ("metadata", "mrenclave"),
    [
        ((0, 0, 0), "ea0b6de74d05b8f705df065370885f28797eba2ed64dc799be65ad8b34f8de70"),
        ((0, 1, 65536), "c8ee15da38260315e062427865d7d90007e3b79cbbf56018d6fdad53e3b9e322"),
        ((0, 1, 0), "a710491f8526bff655f16df373e29d7bb0df00612343057e49aaba9e587837d3"),
        ((65536, 0, 0), "baa93040924f8d7a63353232a389750e9e6d2c9e3d1b84862df7be4f0d254bc4"),
    ],
)
def test_a_flat_image_has_the_expected_mrenclave(
    programs: Path, tmp_path: Path, metadata: tuple[int, int, int], mrenclave: str
) -> None:
    image = tmp_path / "image"
    image.write_bytes(image_t(*metadata))
    command = [str(programs.parent / "sgx-measure"), str(image)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == mrenclave + "\n"


def verdicts(programs: Path, sigstruct: bytes, *offsets: int) -> list[int]:
    command = [str(programs / "sigstruct-verify"), *map(str, offsets)]
    result = subprocess.run(command, input=sigstruct, capture_output=True, check=True)
    return [int(line) for line in result.stdout.split()]


@pytest.mark.parametrize("name", SIGSTRUCTS)
def test_a_sigstruct_made_by_others_verifies(programs: Path, name: str) -> None:
    assert verdicts(programs, (VECTORS / name).read_bytes()) == [VALID]


@pytest.mark.parametrize("name", SIGSTRUCTS)
def test_one_flipped_byte_of_it_is_refused(programs: Path, name: str) -> None:
    sigstruct = (VECTORS / name).read_bytes()
    signed = range(900, 1028)
    numbers = (*range(128, 512, 32), *range(516, 900, 32), *range(1040, 1808, 32))
    assert set(verdicts(programs, sigstruct, *range(12))[1:]) == {INVALID_SIG_STRUCT}
    assert set(verdicts(programs, sigstruct, *numbers)[1:]) == {INVALID_SIGNATURE}
    assert VALID not in verdicts(programs, sigstruct, *signed)[1:]


def test_a_quotient_too_small_by_one_is_refused(programs: Path) -> None:
    """The remainder is then not below the modulus: right modulo n, and still no valid SIGSTRUCT."""
    sigstruct = bytearray((VECTORS / SIGSTRUCTS[0]).read_bytes())
    for start in (1040, 1424):
        number = int.from_bytes(sigstruct[start : start + 384], "little")
        for other in (number - 1, number + 1):
            changed = sigstruct[:start] + other.to_bytes(384, "little") + sigstruct[start + 384 :]
            assert verdicts(programs, bytes(changed)) == [INVALID_SIGNATURE]


def test_a_signature_above_the_modulus_is_refused_though_its_cube_is_right(programs: Path) -> None:
    sigstruct = bytearray((VECTORS / "intel_pce.sigstruct.bin").read_bytes())
    modulus = int.from_bytes(sigstruct[128:512], "little")
    signature = int.from_bytes(sigstruct[516:900], "little") + modulus
    q1, remainder = divmod(signature * signature, modulus)
    q2 = signature * remainder // modulus
    for start, number in ((516, signature), (1040, q1), (1424, q2)):
        sigstruct[start : start + 384] = number.to_bytes(384, "little")
    assert verdicts(programs, bytes(sigstruct)) == [INVALID_SIGNATURE]


def test_a_signature_that_is_not_below_the_modulus_is_refused(programs: Path) -> None:
    sigstruct = bytearray((VECTORS / SIGSTRUCTS[0]).read_bytes())
    sigstruct[516:900] = sigstruct[128:512]
    assert verdicts(programs, bytes(sigstruct)) == [INVALID_SIGNATURE]


@pytest.mark.usefixtures("programs")
@settings(max_examples=20, deadline=None)
@given(patches=st.lists(st.tuples(st.integers(0, 1807), st.binary(min_size=1, max_size=64)), min_size=1, max_size=4))
def test_any_bytes_get_a_verdict(patches: list[tuple[int, bytes]]) -> None:
    """The program runs under sanitizers: whatever it reads, it must end with a code and nothing else."""
    original = (VECTORS / SIGSTRUCTS[0]).read_bytes()
    sigstruct = bytearray(original)
    for offset, patch in patches:
        sigstruct[offset : offset + len(patch)] = patch
    changed = bytes(sigstruct[:1808])
    (verdict,) = verdicts(PROGRAMS, changed)
    assert verdict in ({VALID} if changed == original else {INVALID_SIG_STRUCT, INVALID_SIGNATURE})
