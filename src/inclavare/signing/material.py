"""Signing material: the 256 bytes of a SIGSTRUCT that are signed, and what a signer can read in them.

Intel's `sgx_sign gendata` and `runectl sign --tbs-out` write it. Layout: offsets 0 to 127 and 900 to 1027 of a
SIGSTRUCT (Intel SDM, volume 3D, "Enclave Signature Structure (SIGSTRUCT)").
"""

from __future__ import annotations

import hashlib

from inclavare.sgx.arch import SGX_ATTR_DEBUG, Sigstruct
from inclavare.sgx.sigstruct import TBS_SIZE, build_date, verify

_HEAD_SIZE = 128
_BODY_OFFSET = 900
_SIGNED_STEPS = ("header", "type", "vendor", "header2", "reserved")  # of verify: what needs no key


def read_material(material: bytes) -> Sigstruct | None:
    """Return the SIGSTRUCT whose signed part `material` is, without key and signature; None for another size."""
    if len(material) != TBS_SIZE:
        return None
    head, body = material[:_HEAD_SIZE], material[_HEAD_SIZE:]
    return Sigstruct.from_bytes((head + bytes(_BODY_OFFSET - _HEAD_SIZE) + body).ljust(Sigstruct.SIZE, b"\0"))


def refusal(material: bytes) -> str:
    """Say why `material` is no signing material of an enclave; an empty string when it is."""
    sigstruct = read_material(material)
    if sigstruct is None:
        return f"expected the {TBS_SIZE} signed bytes of a SIGSTRUCT, found {len(material)} bytes"
    for verdict in verify(sigstruct):
        if verdict.step in _SIGNED_STEPS and not verdict.passed:
            return f"{verdict.step}: expected {verdict.expected}, found {verdict.found}"
    date = build_date(sigstruct.date)
    return f"date: expected 0xYYYYMMDD in BCD, found {date}" if date.startswith("0x") else ""


def described(material: bytes) -> dict[str, object]:
    """Return what an audit log has to tell: size and SHA-256, and of signing material what it makes signed.

    `debug` tells whether an enclave with this signature may be one that debuggers enter: DEBUG is set, or its mask
    leaves it open.
    """
    told: dict[str, object] = {"size": len(material), "sha256": hashlib.sha256(material).hexdigest()}
    if refusal(material):
        return told
    sigstruct = read_material(material)
    assert sigstruct is not None  # noqa: S101  # else it was refused
    return told | {
        "mrenclave": sigstruct.enclavehash.hex(),
        "isvprodid": sigstruct.isvprodid,
        "isvsvn": sigstruct.isvsvn,
        "debug": bool(sigstruct.attributes & SGX_ATTR_DEBUG or not sigstruct.attributes_mask & SGX_ATTR_DEBUG),
        "attributes": f"{sigstruct.attributes:#x}",
        "attributes_mask": f"{sigstruct.attributes_mask:#x}",
        "date": build_date(sigstruct.date),
    }
