"""Device rules as a BPF program for cgroup v2, which has no files for them. Pure. Hot path.

The program reads the request (linux/bpf.h, struct bpf_cgroup_dev_ctx) and asks the rules from the last to the first:
the first that matches decides. An allowing rule matches when it grants all that is asked for, a denying one when it
takes any of it; so the order of rules means what it means in cgroup v1.
"""

from __future__ import annotations

from struct import pack

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.linux.cgroup_limits import Device

# linux/bpf.h
BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2
ACCESS = {"m": 1, "r": 2, "w": 4}
TYPES = {"b": 1, "c": 2}

LDX_W = 0x61
MOV32_IMM = 0xB4
MOV32_REG = 0xBC
AND32_IMM = 0x54
RSH32_IMM = 0x74
JEQ_IMM = 0x15
JNE_IMM = 0x55
JNE_REG = 0x5D
EXIT = 0x95

R0, R1, TYPE, WANTED, MAJOR, MINOR = range(6)


def compile_rules(rules: list[Device]) -> bytes:
    """Give the program as an array of struct bpf_insn. Without a matching rule everything is denied."""
    code = [
        _insn(LDX_W, TYPE, R1, 0, 0),
        _insn(MOV32_REG, WANTED, TYPE, 0, 0),
        _insn(AND32_IMM, TYPE, 0, 0, 0xFFFF),
        _insn(RSH32_IMM, WANTED, 0, 0, 16),
        _insn(LDX_W, MAJOR, R1, 4, 0),
        _insn(LDX_W, MINOR, R1, 8, 0),
    ]
    for rule in reversed(rules):
        code += _rule(rule)
    code += [_insn(MOV32_IMM, R0, 0, 0, 0), _insn(EXIT, 0, 0, 0, 0)]
    return b"".join(code)


def load_attributes(program: int, count: int, licence: int) -> list[int]:
    """Give the 64-bit words of union bpf_attr for BPF_PROG_LOAD; `program` and `licence` are addresses."""
    return [BPF_PROG_TYPE_CGROUP_DEVICE | count << 32, program, licence, 0, 0, 0]


def attach_attributes(cgroup_fd: int) -> list[int]:
    """Give the words for BPF_PROG_ATTACH; the program's fd belongs into the upper half of the first."""
    return [cgroup_fd, BPF_CGROUP_DEVICE | BPF_F_ALLOW_MULTI << 32]


def _rule(rule: Device) -> list[bytes]:
    allow, kind, major, minor, access = rule
    bits = sum(ACCESS[letter] for letter in set(access))
    tests: list[tuple[int, int, int, int]] = []  # code, register, other register, value
    if kind in TYPES:
        tests.append((JNE_IMM, TYPE, 0, TYPES[kind]))
    if major is not None:
        tests.append((JNE_IMM, MAJOR, 0, major))
    if minor is not None:
        tests.append((JNE_IMM, MINOR, 0, minor))
    tail = [_insn(MOV32_IMM, R0, 0, 0, int(allow)), _insn(EXIT, 0, 0, 0, 0)]
    access_test = [_insn(MOV32_REG, R1, WANTED, 0, 0), _insn(AND32_IMM, R1, 0, 0, bits)]
    if allow:
        access_test.append(_insn(JNE_REG, R1, WANTED, len(tail), 0))
    else:
        access_test.append(_insn(JEQ_IMM, R1, 0, len(tail), 0))
    body = access_test + tail
    for code, register, other, value in reversed(tests):
        body = [_insn(code, register, other, len(body), value), *body]
    return body


def _insn(code: int, target: int, source: int, offset: int, value: int) -> bytes:
    return pack("<BBhi", code, target | source << 4, offset, value)
