"""Compiles the runtime-spec's seccomp to a BPF filter. Pure.

Per architecture a decision tree over sorted ranges of system call numbers; conditions on arguments are leaves. That is
a quarter of the instructions of a list of comparisons, and compiles in half a millisecond.

Meaning, where the spec leaves it open, is libseccomp's and runc's: x86-64 is always judged; architectures that are not
listed are killed; names the table does not know are left out; a rule with two conditions on one argument is two rules.
Of several rules for one system call those with conditions come first, in their order, then the last without. System
calls newer than all that the profile names get ENOSYS, so that programs fall back instead of failing.

runtime-spec: config-linux.md "Seccomp". linux/seccomp.h, linux/filter.h. Hot path.
"""

from __future__ import annotations

from struct import pack

from inclavare.errors import SpecError
from inclavare.linux import headers as k
from inclavare.linux.syscalls import X32_BIT, numbers

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.seccomp import Seccomp, SeccompArg, SeccompSyscall

EPERM = 1
ENOSYS = 38
BPF_MAXINSNS = 4096

# linux/audit.h
AUDIT_ARCH_X86_64 = 0xC000_003E
AUDIT_ARCH_I386 = 0x4000_0003

# linux/filter.h, linux/bpf_common.h
LD_ABS = 0x20  # A = word at offset k of struct seccomp_data
JA = 0x05
JEQ = 0x15
JGT = 0x25
JGE = 0x35
AND = 0x54
RET = 0x06

OFFSET_NR = 0
OFFSET_ARCH = 4
OFFSET_ARGS = 16

RET_KILL_THREAD = 0
RET_ENOSYS = 0x0005_0000 | ENOSYS
RETURNS = {
    "SCMP_ACT_KILL": RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": 0x8000_0000,
    "SCMP_ACT_TRAP": 0x0003_0000,
    "SCMP_ACT_ERRNO": 0x0005_0000,
    "SCMP_ACT_TRACE": 0x7FF0_0000,
    "SCMP_ACT_LOG": 0x7FFC_0000,
    "SCMP_ACT_ALLOW": 0x7FFF_0000,
}
WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": k.SECCOMP_FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": k.SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": k.SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": k.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k
Alternative = tuple[tuple["SeccompArg", ...], int]  # all these conditions, then this return value
Leaf = tuple[tuple[Alternative, ...], int]  # alternatives in order, else this return value


def compile_filter(profile: Seccomp) -> bytes:
    """Give the filter as an array of struct sock_filter. Raises SpecError for what cannot be compiled."""
    default = _return_value(profile.default_action, profile.default_errno_ret)
    native, i386, x32 = numbers()
    listed = profile.architectures
    x32_code = _judge(profile, x32, default) if "SCMP_ARCH_X32" in listed else [(RET, 0, 0, RET_KILL_THREAD)]
    code: list[Instruction] = [(LD_ABS, 0, 0, OFFSET_ARCH)]
    code_64: list[Instruction] = [
        (LD_ABS, 0, 0, OFFSET_NR),
        (JEQ, 0, 1, 0xFFFF_FFFF),  # a tracer took the call away
        (RET, 0, 0, default),
        *_branch(JGE, X32_BIT, x32_code, _judge(profile, native, default)),
    ]
    code_32: list[Instruction] = [(RET, 0, 0, RET_KILL_THREAD)]
    if "SCMP_ARCH_X86" in listed:
        inner = [(LD_ABS, 0, 0, OFFSET_NR), *_judge(profile, i386, default)]
        code_32 = _branch(JEQ, AUDIT_ARCH_I386, inner, code_32)
    code += _branch(JEQ, AUDIT_ARCH_X86_64, code_64, code_32)
    if len(code) > BPF_MAXINSNS:
        raise SpecError("linux.seccomp", f"the filter has {len(code)} instructions, the kernel takes {BPF_MAXINSNS}")
    return b"".join([pack("<HBBI", *instruction) for instruction in code])


def identity(profile: Seccomp) -> bytes:
    """Give bytes that are equal for profiles with the same filter."""
    rules = [
        (
            rule.names,
            rule.action,
            rule.errno_ret,
            [(condition.index, condition.op, condition.value, condition.value_two) for condition in rule.args],
        )
        for rule in profile.syscalls
    ]
    return repr((profile.default_action, profile.default_errno_ret, profile.architectures, rules)).encode()


def filter_flags(profile: Seccomp) -> int:
    """Give the SECCOMP_FILTER_FLAG_* bits."""
    bits = 0
    for flag in profile.flags:
        bits |= FLAGS[flag]
    return bits


def _return_value(action: str, errno_ret: int | None) -> int:
    if action not in RETURNS:
        raise SpecError("linux.seccomp", f"the action {action} is not supported yet")
    if action in WITH_DATA:
        return RETURNS[action] | (EPERM if errno_ret is None else errno_ret)
    return RETURNS[action]


def _judge(profile: Seccomp, table: dict[str, int], default: int) -> list[Instruction]:
    """Code for one architecture, with the number in the accumulator."""
    leaves = _leaves(profile, table, default)
    first = X32_BIT if any(number >= X32_BIT for number in leaves) else 0
    ranges: list[tuple[int, Leaf]] = [(first, ((), default))]
    for number in sorted(leaves):
        if leaves[number] != ranges[-1][1]:
            ranges.append((number, leaves[number]))
        if number + 1 not in leaves and ranges[-1][1] != ((), default):
            ranges.append((number + 1, ((), default)))
    if leaves and profile.default_action not in PERMISSIVE and default != RET_ENOSYS:
        newest = max(leaves) + 1
        if ranges[-1][0] == newest:
            ranges.pop()
        ranges.append((newest, ((), RET_ENOSYS)))
    kept = [
        ranges[index]
        for index in range(len(ranges))
        if index + 1 == len(ranges) or ranges[index][0] != ranges[index + 1][0]
    ]
    return _tree(kept)


def _leaves(profile: Seccomp, table: dict[str, int], default: int) -> dict[int, Leaf]:
    """What to do for each number that the profile names."""
    leaves: dict[int, Leaf] = {}
    for rule in profile.syscalls:
        value = _return_value(rule.action, rule.errno_ret)
        for name in rule.names:
            number = table.get(name)
            if number is None:
                continue
            alternatives, otherwise = leaves.get(number, ((), default))
            if rule.args:
                leaves[number] = ((*alternatives, *_alternatives(rule, value)), otherwise)
            else:
                leaves[number] = (alternatives, value)
    return {number: _simplify(leaf) for number, leaf in leaves.items()}


def _alternatives(rule: SeccompSyscall, value: int) -> list[Alternative]:
    indices = [condition.index for condition in rule.args]
    if len(set(indices)) < len(indices):
        return [((condition,), value) for condition in rule.args]
    return [(tuple(rule.args), value)]


def _simplify(leaf: Leaf) -> Leaf:
    """Conditions that change nothing need no code."""
    alternatives, otherwise = leaf
    while alternatives and alternatives[-1][1] == otherwise:
        alternatives = alternatives[:-1]
    return alternatives, otherwise


def _tree(ranges: list[tuple[int, Leaf]]) -> list[Instruction]:
    """Binary search: ranges[i] begins at its number and goes to the next."""
    if len(ranges) == 1:
        return _leaf(ranges[0][1])
    middle = len(ranges) // 2
    return _branch(JGE, ranges[middle][0], _tree(ranges[middle:]), _tree(ranges[:middle]))


def _branch(jump: int, value: int, then: list[Instruction], otherwise: list[Instruction]) -> list[Instruction]:
    """If A compares to value so, `then`, else `otherwise`. Both must end in returns."""
    if len(otherwise) <= 255:
        return [(jump, len(otherwise), 0, value), *otherwise, *then]
    if len(then) <= 255:
        return [(jump, 0, len(then), value), *then, *otherwise]
    return [(jump, 0, 1, value), (JA, 0, 0, len(otherwise)), *otherwise, *then]


def _leaf(leaf: Leaf) -> list[Instruction]:
    code: list[Instruction] = []
    alternatives, otherwise = leaf
    for conditions, value in alternatives:
        code += _alternative(conditions, value)
    return [*code, (RET, 0, 0, otherwise)]


def _alternative(conditions: tuple[SeccompArg, ...], value: int) -> list[Instruction]:
    """Return `value` when all conditions hold, else fall through behind the last instruction."""
    code: list[Instruction] = [(RET, 0, 0, value)]
    for condition in reversed(conditions):
        code = _condition(condition, code)
    return code


def _condition(condition: SeccompArg, then: list[Instruction]) -> list[Instruction]:
    """Put the test in front of `then`; when it fails, jump behind it. Arguments are 64 bits, the machine has 32."""
    low_at = OFFSET_ARGS + 8 * condition.index
    high_at = low_at + 4
    value = condition.value
    op = condition.op
    size = len(then)
    if op == "SCMP_CMP_MASKED_EQ":
        wanted = condition.value_two
        return [
            (LD_ABS, 0, 0, high_at),
            (AND, 0, 0, value >> 32),
            (JEQ, 0, size + 3, wanted >> 32),
            (LD_ABS, 0, 0, low_at),
            (AND, 0, 0, value & 0xFFFF_FFFF),
            (JEQ, 0, size, wanted & 0xFFFF_FFFF),
            *then,
        ]
    high, low = value >> 32, value & 0xFFFF_FFFF
    load_high, load_low = (LD_ABS, 0, 0, high_at), (LD_ABS, 0, 0, low_at)
    if op == "SCMP_CMP_EQ":
        return [load_high, (JEQ, 0, size + 2, high), load_low, (JEQ, 0, size, low), *then]
    if op == "SCMP_CMP_NE":
        return [load_high, (JEQ, 0, 2, high), load_low, (JEQ, size, 0, low), *then]
    greater = op in ("SCMP_CMP_GT", "SCMP_CMP_GE")
    jump = JGT if op in ("SCMP_CMP_GT", "SCMP_CMP_LE") else JGE
    # A larger high word decides for greater, an unequal (so smaller) one against it.
    when_greater, when_smaller = (0, size) if greater else (size, 0)
    return [
        load_high,
        (JGT, when_greater + 3, 0, high),
        (JEQ, 0, when_smaller + 2, high),
        load_low,
        (jump, when_greater, when_smaller, low),
        *then,
    ]
