"""Report keys and launch tokens of the software platform, with a seed and nothing else."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from inclavare.errors import EnclaveError
from inclavare.sgx.arch import EinitToken, TargetInfo
from inclavare.sgx.platform_protocol import InvalidReportError, LaunchRefusedError
from inclavare.sgx.softkeys import LAUNCH_ENCLAVE, QUOTING_ENCLAVE, SoftKeys

SEED = bytes(range(32))
DEBUG_64 = struct.pack("<QQ", 6, 3)


@pytest.fixture
def keys() -> SoftKeys:
    return SoftKeys(SEED)


def test_a_report_is_checked_by_its_target(keys: SoftKeys) -> None:
    target = QUOTING_ENCLAVE.target_info()
    report = keys.report(LAUNCH_ENCLAVE, target, bytes(range(64)))
    keys.check_report(report, target)
    assert report.reportdata == bytes(range(64))
    assert report.mrenclave == LAUNCH_ENCLAVE.mrenclave


@pytest.mark.parametrize(
    "change",
    [
        {"reportdata": bytes(63) + b"\1"},
        {"mrenclave": bytes(32)},
        {"attributes": 7},
        {"cpusvn": bytes(16)},
        {"isvsvn": 9},
        {"keyid": bytes(32)},
        {"mac": bytes(16)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_report_that_was_changed_is_refused(keys: SoftKeys, change: dict[str, bytes | int]) -> None:
    target = QUOTING_ENCLAVE.target_info()
    report = keys.report(QUOTING_ENCLAVE, target, bytes(64))
    with pytest.raises(InvalidReportError, match="MAC is wrong"):
        keys.check_report(replace(report, **change), target)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"mrenclave": bytes(32)}, {"attributes": 5}, {"xfrm": 7}, {"configsvn": 1}, {"miscselect": 1}],
    ids=lambda change: next(iter(change)),
)
def test_a_report_for_another_target_is_refused(keys: SoftKeys, change: dict[str, bytes | int]) -> None:
    target: TargetInfo = replace(QUOTING_ENCLAVE.target_info(), **change)  # type: ignore[arg-type]
    report = keys.report(LAUNCH_ENCLAVE, target, bytes(64))
    keys.check_report(report, target)
    with pytest.raises(InvalidReportError):
        keys.check_report(report, QUOTING_ENCLAVE.target_info())


def test_a_report_of_another_platform_is_refused(keys: SoftKeys) -> None:
    target = QUOTING_ENCLAVE.target_info()
    with pytest.raises(InvalidReportError):
        keys.check_report(SoftKeys(bytes(32)).report(LAUNCH_ENCLAVE, target, bytes(64)), target)


def test_a_debug_enclave_gets_a_token(keys: SoftKeys) -> None:
    token = EinitToken.from_bytes(keys.launch_token(b"e" * 32, b"m" * 384, DEBUG_64))
    assert (token.valid, token.attributes, token.xfrm) == (1, 6, 3)
    assert token.mrenclave == b"e" * 32
    assert token.mrsigner == hashlib.sha256(b"m" * 384).digest()
    assert (token.isvprodidle, token.maskedattributesle, token.maskedmiscselectle) == (0x20, 0x21, 0)


def test_the_mac_of_a_token_is_that_of_the_launch_key(keys: SoftKeys) -> None:
    raw = keys.launch_token(b"e" * 32, b"m" * 384, DEBUG_64)
    token = EinitToken.from_bytes(raw)

    def secret(label: str) -> bytes:
        return hashlib.sha256(SEED + label.encode()).digest()[:16]

    def cmac(key: bytes, data: bytes) -> bytes:
        mac = CMAC(AES(key))
        mac.update(data)
        return mac.finalize()

    dependencies = bytearray(296)  # docs/sgxemu.md
    struct.pack_into("<HH", dependencies, 4, token.isvprodidle, token.isvsvnle)
    struct.pack_into("<Q", dependencies, 24, token.maskedattributesle)
    struct.pack_into("<Q", dependencies, 40, (1 << 64) - 1 - 4)
    dependencies[56:72] = secret("sgxemu owner epoch")
    dependencies[72:88] = token.cpusvnle
    dependencies[152:184] = LAUNCH_ENCLAVE.mrsigner
    dependencies[184:216] = token.keyid
    dependencies[280:296] = secret("sgxemu seal fuses")
    assert cmac(cmac(secret("sgxemu root key"), bytes(dependencies)), raw[:192]) == token.mac


@pytest.mark.parametrize(
    ("flags", "xfrm", "why"),
    [
        (4, 3, "not for debugging"),
        (6 | 0x10, 3, "provisioning key"),
        (6 | 0x20, 3, "launch enclave"),
        (6 | 0x8, 3, "reserved"),
        (6 | 1 << 63, 3, "reserved"),
        (6, 1, "x87 and SSE"),
    ],
)
def test_the_launch_enclave_refuses_what_intels_does(keys: SoftKeys, flags: int, xfrm: int, why: str) -> None:
    with pytest.raises(LaunchRefusedError, match=why):
        keys.launch_token(bytes(32), bytes(384), struct.pack("<QQ", flags, xfrm))


def test_a_seed_of_another_size_is_refused() -> None:
    with pytest.raises(EnclaveError, match="32 bytes, found 31"):
        SoftKeys(bytes(31))
