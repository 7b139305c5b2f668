"""Compiles the runtime-spec's seccomp to a BPF filter. Pure.

Per architecture a decision tree over sorted ranges of system call numbers; conditions on arguments are leaves. That is
a quarter of the instructions of a list of comparisons, and compiles in half a millisecond.

Meaning, where the spec leaves it open, is libseccomp's and runc's: x86-64 is always judged; architectures that are not
listed are killed; names the table does not know are left out, and so are rules whose action is the default one; a rule
with two conditions on one argument is two rules. Of several rules for one system call the first without conditions
stands for all. System calls newer than all that the profile names get ENOSYS, so that programs fall back instead of
failing.

Where that would let through what a profile means to deny, this compiler is stricter: of several conditions that hold,
the strictest action counts, whatever their order; and what i386 programs ask for through socketcall and ipc, whose
arguments a filter cannot see, is allowed only by rules without conditions, but denied by any.

runtime-spec: config-linux.md "Seccomp". linux/seccomp.h, linux/filter.h. Hot path.
"""

from __future__ import annotations

from struct import pack

from inclavare.errors import SpecError
from inclavare.linux import headers as k
from inclavare.linux.syscalls import X32_BIT, numbers

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.seccomp import Seccomp, SeccompSyscall

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
JUMP_MAX = 255  # of a conditional jump
LOW = 0xFFFF_FFFF
# operator: jump that compares, and whether the condition holds when the comparison does
NARROW = {
    "SCMP_CMP_EQ": (JEQ, True),
    "SCMP_CMP_NE": (JEQ, False),
    "SCMP_CMP_GT": (JGT, True),
    "SCMP_CMP_LE": (JGT, False),
    "SCMP_CMP_GE": (JGE, True),
    "SCMP_CMP_LT": (JGE, False),
}

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
    "SCMP_ACT_NOTIFY": 0x7FC0_0000,
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
YOUNG_ACTIONS = ("SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY")  # younger than filters are

# linux/net.h and linux/ipc.h: what i386 also calls by a number in the first argument of socketcall(2) or ipc(2).
MULTIPLEXED = {
    "socketcall": (
        *("", "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send"),
        *("recv", "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4"),
        *("recvmmsg", "sendmmsg"),
    ),
    "ipc": (
        *("", "semop", "semget", "semctl", "semtimedop", "", "", "", "", "", "", "msgsnd", "msgrcv", "msgget"),
        *("msgctl", "", "", "", "", "", "", "shmat", "shmdt", "shmget", "shmctl"),
    ),
}
CALL_MASK = 0xFFFF  # ipc(2) takes the upper half of its first argument for a version

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k
Condition = tuple[int, str, int, int]  # index of the argument, operator, value, second value
Alternative = tuple[tuple[Condition, ...], int]  # all these conditions, then this return value
Leaf = tuple[tuple[Alternative, ...], int]  # alternatives in order, else this return value


def compile_filter(profile: Seccomp) -> bytes:
    """Give the filter as an array of struct sock_filter. Raises SpecError for what cannot be compiled."""
    default = _return_value(profile.default_action, profile.default_errno_ret)
    native, i386, x32 = numbers()
    listed = profile.architectures
    x32_code: list[Instruction] = [(RET, 0, 0, RET_KILL_THREAD)]
    if "SCMP_ARCH_X32" in listed:
        x32_code = _judge(profile, x32, default, narrow=True)
    code: list[Instruction] = [(LD_ABS, 0, 0, OFFSET_ARCH)]
    code_64: list[Instruction] = [
        (LD_ABS, 0, 0, OFFSET_NR),
        (JEQ, 0, 1, 0xFFFF_FFFF),  # a tracer took the call away
        (RET, 0, 0, default),
        *_branch(JGE, X32_BIT, x32_code, _judge(profile, native, default, narrow=False)),
    ]
    code_32: list[Instruction] = [(RET, 0, 0, RET_KILL_THREAD)]
    if "SCMP_ARCH_X86" in listed:
        inner = [(LD_ABS, 0, 0, OFFSET_NR), *_judge(profile, i386, default, narrow=True)]
        code_32 = _branch(JEQ, AUDIT_ARCH_I386, inner, code_32)
    code += _branch(JEQ, AUDIT_ARCH_X86_64, code_64, code_32)
    if len(code) > BPF_MAXINSNS:
        raise SpecError("linux.seccomp", f"the filter has {len(code)} instructions, the kernel takes {BPF_MAXINSNS}")
    return b"".join([pack("<HBBI", *instruction) for instruction in code])


def identity(profile: Seccomp) -> bytes:
    """Give bytes that are equal only for profiles with the same filter. No name is empty or has a NUL (oci.reader)."""
    names = "\0\0".join(["\0".join(rule.names) for rule in profile.syscalls])
    rules = [
        (
            rule.action,
            rule.errno_ret,
            [(condition.index, condition.op, condition.value, condition.value_two) for condition in rule.args],
        )
        for rule in profile.syscalls
    ]
    what = (profile.default_action, profile.default_errno_ret, profile.architectures, rules)
    return f"{what}\0\0{names}".encode()


def filter_flags(profile: Seccomp) -> int:
    """Give the SECCOMP_FILTER_FLAG_* bits."""
    bits = 0
    for flag in profile.flags:
        bits |= FLAGS[flag]
    if any(rule.action == "SCMP_ACT_NOTIFY" for rule in profile.syscalls):
        bits |= k.SECCOMP_FILTER_FLAG_NEW_LISTENER
        if bits & k.SECCOMP_FILTER_FLAG_TSYNC:  # else a thread's id and an fd would be told apart by nothing
            bits |= k.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
        return bits
    return bits & ~k.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV  # of notifications, and the kernel refuses it without


def young(profile: Seccomp) -> list[str]:
    """Give the names of flags and actions that not every kernel with filters has."""
    actions = {profile.default_action, *[rule.action for rule in profile.syscalls]}
    return [*profile.flags, *[action for action in YOUNG_ACTIONS if action in actions]]


def check_names(profile: Seccomp) -> None:
    """Raise SpecError for the first name that no architecture of ours knows, which is no rule otherwise."""
    known: set[str] = set().union(*numbers(), *[_multiplexed(table) for table in numbers()])
    for index, rule in enumerate(profile.syscalls):
        for position, name in enumerate(rule.names):
            if name not in known:
                raise SpecError(f"linux.seccomp.syscalls[{index}].names[{position}]", f"unknown system call {name}")


def _return_value(action: str, errno_ret: int | None) -> int:
    if action in WITH_DATA:
        return RETURNS[action] | (EPERM if errno_ret is None else errno_ret)
    return RETURNS[action]


def _judge(profile: Seccomp, table: dict[str, int], default: int, *, narrow: bool) -> list[Instruction]:
    """Code for one architecture, with the number in the accumulator. `narrow`: its arguments have 32 bits."""
    multiplexed = _multiplexed(table)
    leaves = _leaves(profile, table, default, multiplexed)
    first = X32_BIT if any(number >= X32_BIT for number in table.values()) else 0
    ranges: list[tuple[int, Leaf]] = [(first, ((), default))]
    for number in sorted(leaves):
        if leaves[number] != ranges[-1][1]:
            ranges.append((number, leaves[number]))
        if number + 1 not in leaves and ranges[-1][1] != ((), default):
            ranges.append((number + 1, ((), default)))
    names = [name for rule in profile.syscalls for name in rule.names]
    known = [table[name] for name in names if name in table]
    known += [multiplexed[name][0] for name in names if name in multiplexed]
    if known and profile.default_action not in PERMISSIVE and default != RET_ENOSYS:
        newest = max(known) + 1
        if ranges[-1][0] == newest:
            ranges.pop()
        ranges.append((newest, ((), RET_ENOSYS)))
    kept = [
        ranges[index]
        for index in range(len(ranges))
        if index + 1 == len(ranges) or ranges[index][0] != ranges[index + 1][0]
    ]
    return _tree(kept, narrow=narrow)


def _leaves(
    profile: Seccomp, table: dict[str, int], default: int, multiplexed: dict[str, tuple[int, Condition]]
) -> dict[int, Leaf]:
    """What to do for each number that a rule is about."""
    always: dict[int, int] = {}
    sometimes: dict[int, list[Alternative]] = {}
    for rule in profile.syscalls:
        value = _return_value(rule.action, rule.errno_ret)
        if value == default:
            continue
        groups = _groups(rule)
        for name in rule.names:
            number = table.get(name)
            if number is not None:
                if groups:
                    sometimes.setdefault(number, []).extend([(group, value) for group in groups])
                else:
                    always.setdefault(number, value)
            if name in multiplexed and (not groups or _strictness(value) < _strictness(default)):
                carrier, condition = multiplexed[name]
                sometimes.setdefault(carrier, []).append(((condition,), value))
    leaves: dict[int, Leaf] = {}
    for number, alternatives in sometimes.items():
        alternatives.sort(key=lambda alternative: _strictness(alternative[1]))
        leaves[number] = (tuple(alternatives), default)
    for number, value in always.items():
        leaves[number] = ((), value)
    return leaves


def _multiplexed(table: dict[str, int]) -> dict[str, tuple[int, Condition]]:
    """Give for each name that a table's ABI multiplexes: (the multiplexer's number, what its first argument is)."""
    return {
        name: (table[by], (0, "SCMP_CMP_MASKED_EQ", CALL_MASK if by == "ipc" else LOW, call))
        for by, names in MULTIPLEXED.items()
        if by in table
        for call, name in enumerate(names)
        if name
    }


def _groups(rule: SeccompSyscall) -> list[tuple[Condition, ...]]:
    """Give the conditions of a rule: one group whose conditions must all hold, or several; none for a rule without."""
    conditions = [(condition.index, condition.op, condition.value, condition.value_two) for condition in rule.args]
    groups = [tuple(conditions)]
    if len({condition[0] for condition in conditions}) < len(conditions):
        groups = [(condition,) for condition in conditions]
    # Without a mask it always holds.
    groups = [tuple([one for one in group if one[1] != "SCMP_CMP_MASKED_EQ" or one[2]]) for group in groups]
    return groups if all(groups) else []


def _strictness(value: int) -> int:
    """Order actions as the kernel does when several filters answer: the smallest counts."""
    action = value & 0xFFFF_0000
    return action - (1 << 32) if action >> 31 else action


def _tree(ranges: list[tuple[int, Leaf]], *, narrow: bool) -> list[Instruction]:
    """Binary search: ranges[i] begins at its number and goes to the next."""
    if len(ranges) == 1:
        return _leaf(ranges[0][1], narrow=narrow)
    middle = len(ranges) // 2
    return _branch(JGE, ranges[middle][0], _tree(ranges[middle:], narrow=narrow), _tree(ranges[:middle], narrow=narrow))


def _branch(jump: int, value: int, then: list[Instruction], otherwise: list[Instruction]) -> list[Instruction]:
    """If A compares to value so, `then`, else `otherwise`. Both must end in returns."""
    if len(otherwise) <= JUMP_MAX:
        return [(jump, len(otherwise), 0, value), *otherwise, *then]
    if len(then) <= JUMP_MAX:
        return [(jump, 0, len(then), value), *then, *otherwise]
    return [(jump, 0, 1, value), (JA, 0, 0, len(otherwise)), *otherwise, *then]


def _leaf(leaf: Leaf, *, narrow: bool) -> list[Instruction]:
    code: list[Instruction] = []
    alternatives, otherwise = leaf
    for conditions, value in alternatives:
        code += _alternative(conditions, value, narrow=narrow)
    return [*code, (RET, 0, 0, otherwise)]


def _alternative(conditions: tuple[Condition, ...], value: int, *, narrow: bool) -> list[Instruction]:
    """Return `value` when all conditions hold, else fall through behind the last instruction."""
    code: list[Instruction] = [(RET, 0, 0, value)]
    for condition in reversed(conditions):
        if not narrow:
            code = _wide(condition, code)
        elif _fits(condition):
            code = _narrow(condition, code)
        elif condition[1] not in ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE"):
            return []  # every 32-bit argument is smaller
    return code


def _fits(condition: Condition) -> bool:
    """Tell whether a 32-bit argument can have the value compared with, maybe as a negative number."""
    _, op, value, _ = condition
    return op == "SCMP_CMP_MASKED_EQ" or value >> 32 == 0 or value >> 31 == 0x1_FFFF_FFFF


def _narrow(condition: Condition, then: list[Instruction]) -> list[Instruction]:
    """Put the test of a 32-bit argument in front of `then`; when it fails, jump behind it.

    A 64-bit program may leave anything in the upper half: the filter sees it, the system call does not.
    """
    index, op, value, wanted = condition
    size = len(then)
    low = value & LOW
    load: Instruction = (LD_ABS, 0, 0, OFFSET_ARGS + 8 * index)
    if op == "SCMP_CMP_MASKED_EQ":
        return [load, (AND, 0, 0, low), (JEQ, 0, size, wanted & low), *then]
    jump, holds = NARROW[op]
    return [load, (jump, 0, size, low) if holds else (jump, size, 0, low), *then]


def _wide(condition: Condition, then: list[Instruction]) -> list[Instruction]:
    """Put the test of a 64-bit argument in front of `then`; when it fails, jump behind it. The machine has 32 bits."""
    index, op, value, wanted = condition
    size = len(then)
    high, low = value >> 32, value & LOW
    load_low: Instruction = (LD_ABS, 0, 0, OFFSET_ARGS + 8 * index)
    load_high: Instruction = (LD_ABS, 0, 0, OFFSET_ARGS + 8 * index + 4)
    if op == "SCMP_CMP_MASKED_EQ":
        return [
            load_high,
            (AND, 0, 0, high),
            (JEQ, 0, size + 3, wanted >> 32 & high),
            load_low,
            (AND, 0, 0, low),
            (JEQ, 0, size, wanted & low),
            *then,
        ]
    if op == "SCMP_CMP_EQ":
        return [load_high, (JEQ, 0, size + 2, high), load_low, (JEQ, 0, size, low), *then]
    if op == "SCMP_CMP_NE":
        return [load_high, (JEQ, 0, 2, high), load_low, (JEQ, size, 0, low), *then]
    # A larger high word decides for greater, an unequal (so smaller) one against it.
    jump, greater = NARROW[op]
    when_greater, when_smaller = (0, size) if greater else (size, 0)
    return [
        load_high,
        (JGT, when_greater + 3, 0, high),
        (JEQ, 0, when_smaller + 2, high),
        load_low,
        (jump, when_greater, when_smaller, low),
        *then,
    ]
