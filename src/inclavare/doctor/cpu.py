"""What the processor says of SGX: CPUID leaves 7 and 12H (SDM volume 3D, "Detecting and Enumerating Intel SGX").

The leaves come from the device of Linux's cpuid driver where it is there, else from the instruction itself, else only
the flags of /proc/cpuinfo are known.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass

from inclavare.doctor.findings import Finding
from inclavare.doctor.host import Host

Cpuid = Callable[[int, int], tuple[int, int, int, int]]  # leaf, sub-leaf -> EAX, EBX, ECX, EDX

_AREA = "processor"
_EPC_SECTIONS_MAX = 16
# void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t registers[4]), System V calling convention
_CPUID_CODE = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3")


@dataclass(frozen=True, slots=True)
class Sgx:
    """What is known of a processor's SGX; `epc` are its sections as (base, size) in bytes, None when unknown."""

    present: bool
    enabled: bool | None
    flexible_launch_control: bool
    sgx2: bool | None
    epc: tuple[tuple[int, int], ...] | None


def read_sgx(host: Host, cpuid: Cpuid | None = None) -> Sgx:
    """Return what the processor of `host` says; `cpuid` overrides where its leaves come from."""
    cpuid = cpuid or _device(host) or (_instruction() if host.is_this else None)
    if cpuid is not None:
        return decode(cpuid)
    flags = _flags(host)
    # Linux takes the flags away when the firmware has SGX switched off.
    present = "sgx" in flags
    return Sgx(present, True if present else None, "sgx_lc" in flags, "sgx2" in flags if present else None, None)


def decode(cpuid: Cpuid) -> Sgx:
    """Return what the leaves say."""
    if cpuid(0, 0)[0] < 7:
        return Sgx(present=False, enabled=False, flexible_launch_control=False, sgx2=False, epc=())
    _, ebx, ecx, _ = cpuid(7, 0)
    present = bool(ebx >> 2 & 1)
    if not present or cpuid(0, 0)[0] < 0x12:
        return Sgx(present, enabled=False, flexible_launch_control=False, sgx2=False, epc=())
    features = cpuid(0x12, 0)[0]
    sections = []
    for index in range(2, 2 + _EPC_SECTIONS_MAX):
        eax, ebx, low, high = cpuid(0x12, index)
        if eax & 0xF != 1:
            break
        sections.append((_address(eax, ebx), _address(low, high)))
    return Sgx(
        present=True,
        enabled=bool(features & 1) and bool(sections),
        flexible_launch_control=bool(ecx >> 30 & 1),
        sgx2=bool(features >> 1 & 1),
        epc=tuple(sections),
    )


def examine_cpu(host: Host, sgx: Sgx) -> list[Finding]:
    """Say what the processor offers; what is needed depends on the platform that the host is set to."""
    if not sgx.present:
        return [
            Finding(
                _AREA,
                "SGX",
                "note",
                "the processor has none, or the hypervisor does not pass it on",
                "Use a host with SGX, or, for development and tests, the software platform.",
            )
        ]
    findings = [
        Finding(_AREA, "SGX", "ok", "SGX2" if sgx.sgx2 else "SGX1")
        if sgx.enabled
        else Finding(
            _AREA, "SGX", "warning", "there, but switched off by the firmware", "Switch it on in the BIOS (Enabled)."
        )
    ]
    findings.append(
        Finding(_AREA, "flexible launch control", "ok", "there: no launch tokens")
        if sgx.flexible_launch_control
        else Finding(
            _AREA,
            "flexible launch control",
            "warning",
            "not there: Linux's own driver refuses this processor",
            "Use the legacy driver (isgx) and launch tokens (runectl gen-token), or switch it on in the BIOS.",
        )
    )
    if sgx.epc:
        sizes = ", ".join(f"{size / (1 << 20):g} MiB at {base:#x}" for base, size in sgx.epc)
        findings.append(Finding(_AREA, "enclave memory (EPC)", "ok", sizes))
    elif total := _epc_total(host):
        findings.append(Finding(_AREA, "enclave memory (EPC)", "ok", f"{total / (1 << 20):g} MiB"))
    return findings


def _address(low: int, high: int) -> int:
    return (low & 0xFFFFF000) | (high & 0xFFFFF) << 32


def _flags(host: Host) -> set[str]:
    found = re.search(r"^flags\s*:(.*)$", host.text("/proc/cpuinfo") or "", re.MULTILINE)
    return set(found.group(1).split()) if found else set()


def has_fsgsbase(host: Host) -> bool:
    """Tell whether programs may set the FS and GS bases, which the software platform does."""
    return "fsgsbase" in _flags(host)


def _epc_total(host: Host) -> int:
    total = 0
    for name in host.names("/sys/devices/system/node"):
        text = host.text(f"/sys/devices/system/node/{name}/x86/sgx_total_bytes")
        total += int(text) if text and text.isdigit() else 0
    return total


def _device(host: Host) -> Cpuid | None:
    path = host.path("/dev/cpu/0/cpuid")

    def read(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            raw = os.pread(fd, 16, subleaf << 32 | leaf)
        finally:
            os.close(fd)
        if len(raw) != 16:
            raise OSError
        eax, ebx, ecx, edx = (int.from_bytes(raw[at : at + 4], "little") for at in range(0, 16, 4))
        return eax, ebx, ecx, edx

    try:
        read(0, 0)
    except OSError:
        return None
    return read


def _instruction() -> Cpuid | None:
    """Return the instruction as a function; None on another processor, or where memory may not become code."""
    if platform.machine() != "x86_64":
        return None
    import ctypes  # noqa: PLC0415  # only where the driver's device is not there
    import mmap  # noqa: PLC0415

    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    page.write(_CPUID_CODE)
    registers = ctypes.c_uint32 * 4
    entry = ctypes.addressof(ctypes.c_char.from_buffer(page))
    call = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32))(entry)

    def run(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        out = registers()
        call(leaf, subleaf, out)
        assert page  # noqa: S101  # the code must live as long as its caller
        return out[0], out[1], out[2], out[3]

    return run
