"""What the seed of the software platform makes: report keys, reports of architectural enclaves, and launch tokens.

The emulator in an enclave's process derives the same keys from the same seed (docs/sgxemu.md, "Keys"), so that a report
made in a container can be checked outside. Whoever has the seed can forge every one of them: nothing here protects
anything.

The architectural enclaves are no programs but identities: a measurement made up from a name, and the attributes that
Intel's have. Launch tokens follow the rules of Intel's launch enclave with an empty list of signers; the software
platform itself asks for none.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from inclavare.errors import EnclaveError
from inclavare.sgx.arch import (
    SGX_ATTR_AEXNOTIFY,
    SGX_ATTR_CET,
    SGX_ATTR_DEBUG,
    SGX_ATTR_EINITTOKENKEY,
    SGX_ATTR_INIT,
    SGX_ATTR_KSS,
    SGX_ATTR_MODE64BIT,
    SGX_ATTR_PROVISIONKEY,
    SGX_XFRM_LEGACY,
    EinitToken,
    Report,
    TargetInfo,
)
from inclavare.sgx.platform_protocol import InvalidReportError, LaunchRefusedError

SEED_SIZE = 32
CPUSVN = bytes([1]) * 16
REPORT_BODY_SIZE = 384
TOKEN_BODY_SIZE = 192  # of an EINITTOKEN, what its MAC covers

_KEY_EINITTOKEN, _KEY_REPORT = 0, 3  # KEYNAME
# name, policy, isvprodid, isvsvn, configsvn, miscselect, miscmask, attributes, xfrm, their masks, owner epoch, cpusvn,
# isvfamilyid, isvextprodid, mrenclave, mrsigner, keyid, configid, seal fuses
_DEPENDENCIES = struct.Struct("<HHHHH2xII4xQQQQ16s16s16s16s32s32s32s64s16s")
_NONE16, _NONE32, _NONE64 = bytes(16), bytes(32), bytes(64)
_KNOWN_ATTRIBUTES = (
    SGX_ATTR_DEBUG
    | SGX_ATTR_MODE64BIT
    | SGX_ATTR_PROVISIONKEY
    | SGX_ATTR_EINITTOKENKEY
    | SGX_ATTR_CET
    | SGX_ATTR_KSS
    | SGX_ATTR_AEXNOTIFY
)


@dataclass(frozen=True, slots=True)
class ArchitecturalEnclave:
    """The identity of an enclave that is part of the platform."""

    mrenclave: bytes
    mrsigner: bytes
    attributes: int
    xfrm: int
    isvprodid: int
    isvsvn: int

    def target_info(self) -> TargetInfo:
        """Return for whom a report must be made so that this enclave can check it."""
        return TargetInfo(mrenclave=self.mrenclave, attributes=self.attributes, xfrm=self.xfrm)


def _architectural(name: str, attributes: int, isvprodid: int, isvsvn: int) -> ArchitecturalEnclave:
    return ArchitecturalEnclave(
        mrenclave=hashlib.sha256(f"SIMULATED {name}".encode()).digest(),
        mrsigner=hashlib.sha256(b"SIMULATED architectural enclaves").digest(),
        attributes=attributes | SGX_ATTR_INIT | SGX_ATTR_MODE64BIT,
        xfrm=SGX_XFRM_LEGACY,
        isvprodid=isvprodid,
        isvsvn=isvsvn,
    )


# Product ids and kinds are those of Intel's.
QUOTING_ENCLAVE = _architectural("quoting enclave", SGX_ATTR_PROVISIONKEY, 1, 8)
LAUNCH_ENCLAVE = _architectural("launch enclave", SGX_ATTR_EINITTOKENKEY, 0x20, 1)


class SoftKeys:
    """The keys of the platform with `seed` (32 bytes). Raises EnclaveError for another size."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_SIZE:
            raise EnclaveError(f"the seed of a software platform has {SEED_SIZE} bytes, found {len(seed)}")
        self._seed = seed

    def secret(self, label: str) -> bytes:
        """Return 32 bytes that only who has the seed knows, different for each `label` (ASCII)."""
        return hashlib.sha256(self._seed + label.encode("ascii")).digest()

    def report(self, enclave: ArchitecturalEnclave, target: TargetInfo, reportdata: bytes) -> Report:
        """Return the report of an architectural enclave for `target`, with 64 bytes of data. Raises EnclaveError."""
        report = Report(
            cpusvn=CPUSVN,
            attributes=enclave.attributes,
            xfrm=enclave.xfrm,
            mrenclave=enclave.mrenclave,
            mrsigner=enclave.mrsigner,
            isvprodid=enclave.isvprodid,
            isvsvn=enclave.isvsvn,
            reportdata=reportdata,
            keyid=self.secret("sgxemu report keyid"),
        )
        return replace(report, mac=self._report_mac(report, target))

    def check_report(self, report: Report, target: TargetInfo) -> None:
        """Raise InvalidReportError unless `report` was made on this platform for `target`, and is as it was made."""
        if not hmac.compare_digest(self._report_mac(report, target), report.mac):
            raise InvalidReportError(
                "the report's MAC is wrong: it was made on another platform or for another target, or was changed",
                "Enclaves of this host have its keys only if its seed was there when they were made.",
            )

    def launch_token(self, mrenclave: bytes, modulus: bytes, attributes: bytes) -> bytes:
        """Return an EINITTOKEN as `platform_protocol.Launching` says. Raises LaunchRefusedError."""
        flags, xfrm = struct.unpack("<QQ", attributes)
        _require_launchable(flags, xfrm)
        token = EinitToken(
            valid=1,
            attributes=flags & ~SGX_ATTR_INIT,
            xfrm=xfrm,
            mrenclave=mrenclave,
            mrsigner=hashlib.sha256(modulus).digest(),
            cpusvnle=CPUSVN,
            isvprodidle=LAUNCH_ENCLAVE.isvprodid,
            isvsvnle=LAUNCH_ENCLAVE.isvsvn,
            maskedattributesle=LAUNCH_ENCLAVE.attributes & ~SGX_ATTR_MODE64BIT,
            keyid=self.secret("launch token keyid"),
        )
        key = self._key(
            _KEY_EINITTOKEN,
            isvprodid=token.isvprodidle,
            isvsvn=token.isvsvnle,
            attributes=token.maskedattributesle,
            attributes_mask=~SGX_ATTR_MODE64BIT & (1 << 64) - 1,
            mrsigner=LAUNCH_ENCLAVE.mrsigner,
            keyid=token.keyid,
        )
        return replace(token, mac=_cmac(key, token.to_bytes()[:TOKEN_BODY_SIZE])).to_bytes()

    def _report_mac(self, report: Report, target: TargetInfo) -> bytes:
        key = self._key(
            _KEY_REPORT,
            configsvn=target.configsvn,
            miscselect=target.miscselect,
            attributes=target.attributes,
            xfrm=target.xfrm,
            mrenclave=target.mrenclave,
            keyid=report.keyid,
            configid=target.configid,
        )
        return _cmac(key, report.to_bytes()[:REPORT_BODY_SIZE])

    def _key(
        self,
        name: int,
        *,
        isvprodid: int = 0,
        isvsvn: int = 0,
        configsvn: int = 0,
        miscselect: int = 0,
        attributes: int = 0,
        xfrm: int = 0,
        attributes_mask: int = 0,
        mrenclave: bytes = _NONE32,
        mrsigner: bytes = _NONE32,
        keyid: bytes = _NONE32,
        configid: bytes = _NONE64,
    ) -> bytes:
        """Return a key of 16 bytes; what a kind of key does not depend on is left out."""
        owner_epoch, fuses = self.secret("sgxemu owner epoch")[:16], self.secret("sgxemu seal fuses")[:16]
        dependencies = _DEPENDENCIES.pack(
            *(name, 0, isvprodid, isvsvn, configsvn, miscselect, 0, attributes, xfrm, attributes_mask, 0),
            *(owner_epoch, CPUSVN, _NONE16, _NONE16, mrenclave, mrsigner, keyid, configid, fuses),
        )
        return _cmac(self.secret("sgxemu root key")[:16], dependencies)


def _require_launchable(flags: int, xfrm: int) -> None:
    """Refuse what Intel's launch enclave refuses when its list of signers is empty."""
    if flags & ~(_KNOWN_ATTRIBUTES | SGX_ATTR_INIT) or xfrm & SGX_XFRM_LEGACY != SGX_XFRM_LEGACY:
        raise LaunchRefusedError(f"attributes {flags:#x} and XFRM {xfrm:#x} have reserved bits, or lack x87 and SSE")
    if flags & SGX_ATTR_EINITTOKENKEY:
        raise LaunchRefusedError("only a launch enclave may have the key of launch tokens")
    if flags & SGX_ATTR_PROVISIONKEY:
        raise LaunchRefusedError("only an enclave that provisions may have the provisioning key")
    if not flags & SGX_ATTR_DEBUG:
        raise LaunchRefusedError("the enclave is not for debugging, and its signer is on no list")


def _cmac(key: bytes, data: bytes) -> bytes:
    mac = CMAC(AES(key))
    mac.update(data)
    return mac.finalize()
