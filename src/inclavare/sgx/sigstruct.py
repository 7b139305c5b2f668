"""SIGSTRUCT: what was signed, and whether the signature holds, step by step.

`verify` repeats what EINIT checks of a SIGSTRUCT by itself, in its order, and says for each step what was expected and
what was found, so that a refusal is never just an error code. EINIT does not look at the date, hence neither do we:
there are signatures in the world whose date is not BCD.

Q1 and Q2 spare the processor the divisions of S^3 mod M: Q1 = floor(S^2 / M), Q2 = floor(S * (S^2 mod M) / M).
Follows the Intel SDM, volume 3D, "Enclave Signature Structure (SIGSTRUCT)" and the operation section of EINIT.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from inclavare.errors import EnclaveError
from inclavare.sgx.arch import (
    SGX_EXPONENT,
    SGX_MODULUS_SIZE,
    SGX_SIGSTRUCT_HEADER,
    SGX_SIGSTRUCT_HEADER2,
    SGX_SIGSTRUCT_TYPE_DEBUG,
    SGX_SIGSTRUCT_VENDOR_INTEL,
    Sigstruct,
)

TBS_SIZE = 256
# DER of DigestInfo up to the digest, for SHA-256 (RFC 8017, section 9.2, note 1).
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
_DIGEST_SIZE = 32
_ENCODING = b"\0\1" + (b"\0" + _SHA256_PREFIX).rjust(SGX_MODULUS_SIZE - _DIGEST_SIZE - 2, b"\xff")
_MODULUS_BITS = SGX_MODULUS_SIZE * 8
_RESERVED = ("reserved1", "reserved2", "reserved3", "reserved4")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one verification step; `passed` is None where an earlier failure left nothing to check."""

    step: str
    passed: bool | None
    expected: str
    found: str


def is_sigstruct(data: bytes) -> bool:
    """Tell whether `data` have the size of a SIGSTRUCT, which no enclave image has."""
    return len(data) == Sigstruct.SIZE


def to_be_signed(sigstruct: Sigstruct) -> bytes:
    """Return the 256 signed bytes: offsets 0 to 127 and 900 to 1027."""
    data = sigstruct.to_bytes()
    return data[:128] + data[900:1028]


def encoded_digest(tbs: bytes) -> int:
    """Return the number that the signature of `tbs` must give when cubed: EMSA-PKCS1-v1_5 with SHA-256 (RFC 8017)."""
    return int.from_bytes(_ENCODING + hashlib.sha256(tbs).digest(), "big")


def quotients(signature: int, modulus: int) -> tuple[int, int]:
    """Return Q1 and Q2 for the positive numbers `signature` and `modulus`."""
    q1, remainder = divmod(signature * signature, modulus)
    return q1, signature * remainder // modulus


def verify(sigstruct: Sigstruct) -> tuple[Verdict, ...]:
    """Return the verdict of every step, in the order in which EINIT takes them."""
    modulus = int.from_bytes(sigstruct.modulus, "little")
    bits = modulus.bit_length()
    usable = bits == _MODULUS_BITS
    verdicts = [
        _same("header", SGX_SIGSTRUCT_HEADER.hex(), sigstruct.header.hex()),
        # The SDM counts these four bytes to the header; signers set the top one for debug enclaves, and those load.
        Verdict(
            "type",
            sigstruct.type in {0, SGX_SIGSTRUCT_TYPE_DEBUG},
            f"0x00000000 or {SGX_SIGSTRUCT_TYPE_DEBUG:#010x}",
            f"{sigstruct.type:#010x}",
        ),
        Verdict(
            "vendor",
            sigstruct.vendor in {0, SGX_SIGSTRUCT_VENDOR_INTEL},
            f"0x00000000 or {SGX_SIGSTRUCT_VENDOR_INTEL:#010x}",
            f"{sigstruct.vendor:#010x}",
        ),
        _same("header2", SGX_SIGSTRUCT_HEADER2.hex(), sigstruct.header2.hex()),
        _reserved(sigstruct),
        _same("exponent", str(SGX_EXPONENT), str(sigstruct.exponent)),
        _same("modulus size", f"{_MODULUS_BITS} bits", f"{bits} bits"),
    ]
    if not usable:
        return (*verdicts, *(Verdict(step, None, "", "") for step in ("signature", "q1", "q2")))
    signature = int.from_bytes(sigstruct.signature, "little")
    # Of a number that is no signature, the quotients would have more than 384 bytes.
    q1, q2 = quotients(signature % modulus, modulus)
    return (
        *verdicts,
        _signature(sigstruct, signature, modulus),
        _same_number("q1", q1, sigstruct.q1),
        _same_number("q2", q2, sigstruct.q2),
    )


def verify_enclave(sigstruct: Sigstruct, mrenclave: bytes) -> Verdict:
    """Return the verdict on whether `sigstruct` signs the enclave measured as `mrenclave` (32 bytes)."""
    return _same("enclave hash", mrenclave.hex(), sigstruct.enclavehash.hex())


def require(verdicts: Iterable[Verdict]) -> None:
    """Raise EnclaveError, naming the step and both values, for the first verdict that is not passed."""
    for verdict in verdicts:
        if not verdict.passed:
            raise EnclaveError(
                f"the SIGSTRUCT fails at step {verdict.step}: expected {verdict.expected}, found {verdict.found}"
            )


def build_date(date: int) -> str:
    """Return the date field as text: `2020-06-30` for BCD 0x20200630.

    Some signers wrote u16 year, u8 month, u8 day as plain numbers; these read as `2019-10-7`. Zero is `none`, anything
    else its hexadecimal form.
    """
    if not date:
        return "none"
    digits = f"{date:08x}"
    if digits.isdecimal() and _plausible(int(digits[4:6]), int(digits[6:])):
        return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"
    year, month, day = date & 0xFFFF, date >> 16 & 0xFF, date >> 24
    if _plausible(month, day):
        return f"{year}-{month}-{day}"
    return f"{date:#010x}"


def _plausible(month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= 31


def _same(step: str, expected: str, found: str) -> Verdict:
    return Verdict(step, expected == found, expected, found)


def _reserved(sigstruct: Sigstruct) -> Verdict:
    for name in _RESERVED:
        value: bytes = getattr(sigstruct, name)
        if any(value):
            return Verdict("reserved", passed=False, expected=f"{name} all zero", found=value.hex())
    return Verdict("reserved", passed=True, expected="zeros", found="zeros")


def _signature(sigstruct: Sigstruct, signature: int, modulus: int) -> Verdict:
    expected = f"PKCS#1 v1.5 of SHA-256 {hashlib.sha256(to_be_signed(sigstruct)).hexdigest()}"
    if not 0 < signature < modulus:
        return Verdict("signature", passed=False, expected=expected, found="a number outside of the modulus")
    block = pow(signature, SGX_EXPONENT, modulus).to_bytes(SGX_MODULUS_SIZE, "big")
    if not block.startswith(_ENCODING):
        return Verdict("signature", passed=False, expected=expected, found=f"no such encoding ({block[:8].hex()}...)")
    return _same("signature", expected, f"PKCS#1 v1.5 of SHA-256 {block[-_DIGEST_SIZE:].hex()}")


def _same_number(step: str, expected: int, found: bytes) -> Verdict:
    """Compare a number with its little endian field; of hundreds of bytes, show the first that differs."""
    for place, (want, have) in enumerate(zip(expected.to_bytes(len(found), "little"), found, strict=True)):
        if want != have:
            return Verdict(step, passed=False, expected=f"{want:#04x} at byte {place}", found=f"{have:#04x}")
    shown = found[:16].hex() + "..."
    return Verdict(step, passed=True, expected=shown, found=shown)
