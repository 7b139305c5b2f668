"""Every constant of the kernel's that we write down, beside the C headers of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from inclavare.linux import calls, capabilities, device_filter, headers, rlimits, seccomp
from inclavare.oci import memory_policy, scheduling

# Two programs, since sys/mount.h and linux/mount.h declare the same things.
INCLUDES = (
    (
        *("fcntl.h", "linux/sched.h", "linux/mount.h", "linux/openat2.h", "linux/close_range.h", "linux/prctl.h"),
        *("linux/capability.h", "linux/seccomp.h", "linux/filter.h", "linux/audit.h", "linux/bpf.h", "linux/keyctl.h"),
        *("sys/socket.h", "linux/sockios.h", "net/if.h", "signal.h", "sys/resource.h", "sys/syscall.h", "errno.h"),
        *("linux/net.h", "linux/ipc.h", "linux/ioprio.h", "linux/mempolicy.h", "linux/personality.h"),
    ),
    ("sys/mount.h",),
)
# Where a header spells a constant otherwise than we may: ours -> the header's.
SPELLING = {
    "LINUX_CAPABILITY_VERSION_3": "_LINUX_CAPABILITY_VERSION_3",
    "SCHED_OTHER": "SCHED_NORMAL",
    "X32_BIT": "__X32_SYSCALL_BIT",
    "LD_ABS": "(BPF_LD | BPF_W | BPF_ABS)",
    "JA": "(BPF_JMP | BPF_JA)",
    "JEQ": "(BPF_JMP | BPF_JEQ | BPF_K)",
    "JGT": "(BPF_JMP | BPF_JGT | BPF_K)",
    "JGE": "(BPF_JMP | BPF_JGE | BPF_K)",
    "AND": "(BPF_ALU | BPF_AND | BPF_K)",
    "RET": "(BPF_RET | BPF_K)",
    "OFFSET_NR": "__builtin_offsetof(struct seccomp_data, nr)",
    "OFFSET_ARCH": "__builtin_offsetof(struct seccomp_data, arch)",
    "OFFSET_ARGS": "__builtin_offsetof(struct seccomp_data, args)",
    "RET_KILL_THREAD": "SECCOMP_RET_KILL_THREAD",
    "RET_ENOSYS": "(SECCOMP_RET_ERRNO | ENOSYS)",
    "LDX_W": "(BPF_LDX | BPF_MEM | BPF_W)",
    "MOV32_IMM": "(BPF_ALU | BPF_MOV | BPF_K)",
    "MOV32_REG": "(BPF_ALU | BPF_MOV | BPF_X)",
    "AND32_IMM": "(BPF_ALU | BPF_AND | BPF_K)",
    "RSH32_IMM": "(BPF_ALU | BPF_RSH | BPF_K)",
    "JEQ_IMM": "(BPF_JMP | BPF_JEQ | BPF_K)",
    "JNE_IMM": "(BPF_JMP | BPF_JNE | BPF_K)",
    "JNE_REG": "(BPF_JMP | BPF_JNE | BPF_X)",
    "EXIT": "(BPF_JMP | BPF_EXIT)",
}
# Ours alone: registers by purpose, and bits of our own choice.
OURS = {"R0", "R1", "TYPE", "WANTED", "MAJOR", "MINOR", "JUMP_MAX", "LOW", "CALL_MASK", "IGNORED_FLAGS"}
# Newer than the headers of the oldest system that builds this (Debian 12, Linux 6.1), or only reserved in them; the
# value is the kernel's ABI.
NEWER = {"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "MPOL_WEIGHTED_INTERLEAVE", "SCHED_ISO"}


def _integers(module: ModuleType) -> dict[str, int]:
    return {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and type(value) is int and name not in OURS
    }


def _wanted() -> dict[str, tuple[str, int]]:
    """Give for each of our constants: where it is -> (the header's expression, our value)."""
    wanted = {}
    for module in (headers, device_filter, seccomp):
        for name, value in _integers(module).items():
            wanted[f"{module.__name__}.{name}"] = (SPELLING.get(name, name), value)
    for name, value in _integers(calls).items():
        wanted[f"calls.{name}"] = (f"SYS_{name.removeprefix('SYS_').lower()}", value)
    scheduled = (scheduling.POLICIES, scheduling.FLAGS, scheduling.IO_CLASSES)
    for table in (capabilities.NUMBERS, rlimits.RLIMITS, *scheduled, memory_policy.MODES, memory_policy.FLAGS):
        for name, value in table.items():
            wanted[name] = (SPELLING.get(name, name), value)
    for name, value in seccomp.RETURNS.items():
        wanted[name] = (name.replace("SCMP_ACT", "SECCOMP_RET").replace("RET_NOTIFY", "RET_USER_NOTIF"), value)
    for name, value in seccomp.FLAGS.items():
        wanted[name] = (name, value)
    for by, names in seccomp.MULTIPLEXED.items():
        for number, name in enumerate(names):
            if name:
                wanted[f"{by}:{name}"] = (f"SYS_{name.upper()}" if by == "socketcall" else name.upper(), number)
    for letter, value in device_filter.ACCESS.items():
        long = {"m": "MKNOD", "r": "READ", "w": "WRITE"}[letter]
        wanted[f"ACCESS[{letter}]"] = (f"BPF_DEVCG_ACC_{long}", value)
    for letter, value in device_filter.TYPES.items():
        wanted[f"TYPES[{letter}]"] = (f"BPF_DEVCG_DEV_{'BLOCK' if letter == 'b' else 'CHAR'}", value)
    return wanted


@pytest.fixture(scope="session")
def from_headers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Return what a C program prints for each name; names that the headers lack are left out."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    directory = tmp_path_factory.mktemp("constants")
    wanted = {name: spelled for name, (spelled, _) in _wanted().items()}
    found: dict[str, int] = {}
    for includes in INCLUDES:
        left = {name: spelled for name, spelled in wanted.items() if name not in found}
        found |= _print(directory / "constants.c", includes, left)
    return found


def _print(source: Path, includes: tuple[str, ...], wanted: dict[str, str]) -> dict[str, int]:
    """Compile and run a program for those of `wanted` that the headers know."""
    program = source.with_suffix("")
    while True:
        lines = [f'    printf("{name} %lld\\n", (long long)({spelled}));' for name, spelled in wanted.items()]
        head = ["#define _GNU_SOURCE", *(f"#include <{name}>" for name in includes), "#include <stdio.h>"]
        source.write_text("\n".join([*head, "int main(void) {", *lines, "}", ""]))
        command = ["gcc", "-w", "-o", str(program), str(source)]
        built = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"})
        if built.returncode == 0:
            printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
            return {name: int(value) for name, value in (line.split(" ") for line in printed.splitlines())}
        lacking = set(re.findall(r"'(\w+)' undeclared", built.stderr))
        kept = {name: spelled for name, spelled in wanted.items() if not lacking & set(re.findall(r"\w+", spelled))}
        assert len(kept) < len(wanted), built.stderr
        wanted = kept


@pytest.mark.parametrize("name", sorted(_wanted()))
def test_a_constant_is_the_headers(from_headers: dict[str, int], name: str) -> None:
    spelled, value = _wanted()[name]
    if name not in from_headers:
        assert spelled in NEWER, f"the headers have no {spelled}"
        pytest.skip(f"the headers have no {spelled}")
    assert value & 0xFFFF_FFFF == from_headers[name] & 0xFFFF_FFFF


def test_no_capability_of_this_kernel_is_missing() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert last <= max(capabilities.NUMBERS.values())
