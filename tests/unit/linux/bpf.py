"""The kernel's machine for seccomp filters: its rules for a program, and what a program answers.

Written from Documentation/networking/filter.rst, seccomp(2) and linux/filter.h, apart from the compiler that it judges.
"""

from __future__ import annotations

import struct

AUDIT_ARCH_X86_64 = 0xC000_003E
AUDIT_ARCH_I386 = 0x4000_0003
MAXINSNS = 4096

LOAD_WORD, LOAD_IMMEDIATE, RETURN, RETURN_A = 0x20, 0x00, 0x06, 0x16
JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, JUMP_SET = 0x05, 0x15, 0x25, 0x35, 0x45
AND = 0x54
CONDITIONAL = (JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, JUMP_SET)
KNOWN = (LOAD_WORD, LOAD_IMMEDIATE, RETURN, JUMP, AND, *CONDITIONAL)

Program = list[tuple[int, int, int, int]]


def load(code: bytes) -> Program:
    """Read an array of struct sock_filter, and check it as the kernel does before it takes a filter."""
    program = [struct.unpack_from("<HBBI", code, offset) for offset in range(0, len(code), 8)]
    assert len(code) % 8 == 0
    assert 0 < len(program) <= MAXINSNS
    for at, (operation, when_true, when_false, k) in enumerate(program):
        left = len(program) - at - 1
        assert operation in KNOWN, hex(operation)
        if operation == JUMP:
            assert k < left
        elif operation in CONDITIONAL:
            assert when_true < left
            assert when_false < left
        elif operation == LOAD_WORD:
            assert k % 4 == 0
            assert k < 64
    assert program[-1][0] == RETURN
    return program


def run(program: Program, arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Give what the filter returns for a system call."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, arch, 0x7F00_DEAD_BEEF, *padded)
    accumulator = at = 0
    while True:
        operation, when_true, when_false, k = program[at]
        at += 1
        if operation == RETURN:
            return k
        if operation == LOAD_WORD:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif operation == LOAD_IMMEDIATE:
            accumulator = k
        elif operation == AND:
            accumulator &= k
        elif operation == JUMP:
            at += k
        else:
            holds = {
                JUMP_EQUAL: accumulator == k,
                JUMP_GREATER: accumulator > k,
                JUMP_GREATER_EQUAL: accumulator >= k,
                JUMP_SET: accumulator & k != 0,
            }[operation]
            at += when_true if holds else when_false
