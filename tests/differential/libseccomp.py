"""libseccomp as an oracle: a profile compiled by it, the way that runc uses it."""

from __future__ import annotations

import ctypes
import ctypes.util
import os

import pytest

from inclavare.oci.seccomp import Seccomp

ACTIONS = {
    "SCMP_ACT_KILL": 0x0000_0000,
    "SCMP_ACT_KILL_THREAD": 0x0000_0000,
    "SCMP_ACT_KILL_PROCESS": 0x8000_0000,
    "SCMP_ACT_TRAP": 0x0003_0000,
    "SCMP_ACT_ERRNO": 0x0005_0000,
    "SCMP_ACT_TRACE": 0x7FF0_0000,
    "SCMP_ACT_LOG": 0x7FFC_0000,
    "SCMP_ACT_ALLOW": 0x7FFF_0000,
}
OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")  # enum scmp_compare, from 1
ARCHITECTURES = {"SCMP_ARCH_X86": 0x4000_0003, "SCMP_ARCH_X86_64": 0xC000_003E, "SCMP_ARCH_X32": 0x4000_003E}
EEXIST = 17


class Condition(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def library() -> ctypes.CDLL:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        pytest.skip("needs libseccomp (Debian package libseccomp-dev)")
    found = ctypes.CDLL(name)
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = (ctypes.c_uint32,)
    found.seccomp_release.argtypes = (ctypes.c_void_p,)
    found.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    found.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    found.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    found.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(Condition),
    )
    found.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    return found


def action(name: str, errno_ret: int | None) -> int:
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return ACTIONS[name] | (1 if errno_ret is None else errno_ret)
    return ACTIONS[name]


def compile_with(lib: ctypes.CDLL, profile: Seccomp) -> bytes:
    """Raise ValueError for a profile that libseccomp refuses."""
    default = action(profile.default_action, profile.default_errno_ret)
    context = lib.seccomp_init(default)
    try:
        for name in profile.architectures:
            if name in ARCHITECTURES:
                assert lib.seccomp_arch_add(context, ARCHITECTURES[name]) in (0, -EEXIST)
        for rule in profile.syscalls:
            value = action(rule.action, rule.errno_ret)
            if value == default:
                continue
            conditions = [
                Condition(one.index, OPERATORS.index(one.op.removeprefix("SCMP_CMP_")) + 1, one.value, one.value_two)
                for one in rule.args
            ]
            indices = [condition.arg for condition in conditions]
            alone = len(set(indices)) < len(indices)
            for name in rule.names:
                number = lib.seccomp_syscall_resolve_name(name.encode())
                if number == -1:
                    continue
                for group in [[condition] for condition in conditions] if alone else [conditions]:
                    array = (Condition * len(group))(*group)
                    status = lib.seccomp_rule_add_array(context, value, number, len(group), array)
                    if status:
                        raise ValueError(f"{name}: {os.strerror(-status)}")
        fd = os.memfd_create("filter")
        try:
            assert lib.seccomp_export_bpf(context, fd) == 0
            return os.pread(fd, 1 << 20, 0)
        finally:
            os.close(fd)
    finally:
        lib.seccomp_release(context)
