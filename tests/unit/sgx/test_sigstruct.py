from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from inclavare.errors import EnclaveError
from inclavare.sgx.arch import Sigstruct
from inclavare.sgx.measure import mrsigner
from inclavare.sgx.sign import SigningParameters, sign, unsigned
from inclavare.sgx.sigstruct import build_date, is_sigstruct, require, to_be_signed, verify, verify_enclave

VECTORS = Path(__file__).parents[2] / "vectors" / "sigstruct"
FILES = sorted(path.name for path in VECTORS.iterdir() if path.name != "INDEX.md")


@pytest.fixture(scope="module")
def signed(key: rsa.RSAPrivateKey) -> bytes:
    return sign(unsigned(bytes(range(32)), SigningParameters(date=0x20200630)), key).to_bytes()


def failing_steps(data: bytes) -> list[str]:
    return [verdict.step for verdict in verify(Sigstruct.from_bytes(data)) if not verdict.passed]


def flipped(data: bytes, place: int, bit: int = 0) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def test_there_are_three_foreign_files() -> None:
    assert len(FILES) == 3


@pytest.mark.parametrize("name", FILES)
def test_what_others_signed_verifies(name: str) -> None:
    assert failing_steps((VECTORS / name).read_bytes()) == []


def test_the_original_projects_example_reads_as_its_guide_shows() -> None:
    sigstruct = Sigstruct.from_bytes((VECTORS / "hello-world.sig").read_bytes())
    assert build_date(sigstruct.date) == "2019-10-7"
    assert mrsigner(sigstruct.modulus).hex() == "5bde1ae94215c4ad6c6c4430ba880fd841b2184637ac907a44b832b1b226bbd4"
    assert sigstruct.enclavehash.hex() == "7470ffc919e823e0f6a9592e05fe523b228b491865aadf0cfe7ce5ddd31412b5"
    assert (sigstruct.attributes, sigstruct.xfrm, sigstruct.vendor, sigstruct.isvprodid) == (6, 3, 0, 0)


@pytest.mark.parametrize(
    ("place", "step"),
    [
        (0, "header"),
        (11, "header"),
        (12, "type"),
        (14, "type"),
        (15, "signature"),  # the type's debug bit may be set, but it is signed
        (16, "vendor"),
        (20, "signature"),  # the date: signed, not checked
        (24, "header2"),
        (40, "signature"),
        (44, "reserved"),
        (127, "reserved"),
        (128, "signature"),  # the modulus
        (511, "modulus size"),
        (512, "exponent"),
        (516, "signature"),
        (899, "signature"),
        (900, "signature"),
        (910, "reserved"),
        (928, "signature"),
        (960, "signature"),
        (992, "reserved"),
        (1027, "signature"),
        (1028, "reserved"),
        (1040, "q1"),
        (1423, "q1"),
        (1424, "q2"),
        (1807, "q2"),
    ],
)
def test_one_flipped_byte_fails_the_step_that_checks_it(signed: bytes, place: int, step: str) -> None:
    assert failing_steps(flipped(signed, place, 7))[0] == step


def test_a_flipped_byte_anywhere_is_refused(signed: bytes) -> None:
    for place in range(0, len(signed), 13):
        assert failing_steps(flipped(signed, place)), place


def test_a_failure_names_its_step_and_both_values(signed: bytes) -> None:
    changed = flipped(signed, 1424 + 5)
    with pytest.raises(EnclaveError) as caught:
        require(verify(Sigstruct.from_bytes(changed)))
    right, wrong = signed[1429], changed[1429]
    assert caught.value.message == (
        f"the SIGSTRUCT fails at step q2: expected {right:#04x} at byte 5, found {wrong:#04x}"
    )


def test_a_signature_of_other_bytes_shows_both_digests(signed: bytes) -> None:
    good, bad = (verify(Sigstruct.from_bytes(data))[-3] for data in (signed, flipped(signed, 20)))
    assert good.step == bad.step == "signature"
    assert bad.found == good.expected
    assert bad.expected != bad.found


def test_a_signature_beyond_the_modulus_is_refused(signed: bytes) -> None:
    sigstruct = replace(Sigstruct.from_bytes(signed), signature=b"\xff" * 384)
    assert [verdict.found for verdict in verify(sigstruct) if verdict.step == "signature"] == [
        "a number outside of the modulus"
    ]


def test_after_a_wrong_modulus_the_signature_is_not_checked() -> None:
    verdicts = {verdict.step: verdict.passed for verdict in verify(Sigstruct())}
    assert verdicts["modulus size"] is False
    assert [verdicts[step] for step in ("signature", "q1", "q2")] == [None, None, None]


def test_another_enclave_is_refused_with_both_hashes(signed: bytes) -> None:
    sigstruct = Sigstruct.from_bytes(signed)
    assert verify_enclave(sigstruct, bytes(range(32))).passed
    verdict = verify_enclave(sigstruct, bytes(32))
    assert (verdict.passed, verdict.expected, verdict.found) == (False, "00" * 32, bytes(range(32)).hex())


def test_the_signed_bytes_are_two_ranges() -> None:
    data = bytes(index % 251 for index in range(1808))
    assert to_be_signed(Sigstruct.from_bytes(data)) == data[:128] + data[900:1028]


@pytest.mark.parametrize(
    ("date", "text"),
    [
        (0x20200630, "2020-06-30"),
        (int.from_bytes(bytes.fromhex("30062020"), "little"), "2020-06-30"),
        (0x070A07E3, "2019-10-7"),
        (0, "none"),
        (0xFFFFFFFF, "0xffffffff"),
        (0x20201330, "0x20201330"),
    ],
)
def test_dates_are_read_in_both_ways_of_writing(date: int, text: str) -> None:
    assert build_date(date) == text


@given(st.binary(min_size=1808, max_size=1808))
def test_random_bytes_never_verify(data: bytes) -> None:
    assert is_sigstruct(data)
    assert failing_steps(data)


@given(st.integers(0, 1 << 32))
def test_every_date_reads_as_something(date: int) -> None:
    assert build_date(date)
