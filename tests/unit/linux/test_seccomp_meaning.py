"""What a compiled filter answers, beside the rules read one by one: any profile, on each architecture."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inclavare.errors import SpecError
from inclavare.linux import headers as k
from inclavare.linux.seccomp import compile_filter, filter_flags, identity
from inclavare.linux.syscalls import X32_BIT, name_of, numbers
from inclavare.oci.reader import Members
from inclavare.oci.seccomp import OPERATORS, Seccomp, SeccompArg
from tests.unit.linux import bpf

NATIVE, I386, X32 = numbers()
ABIS = {
    "SCMP_ARCH_X86_64": (bpf.AUDIT_ARCH_X86_64, NATIVE),
    "SCMP_ARCH_X86": (bpf.AUDIT_ARCH_I386, I386),
    "SCMP_ARCH_X32": (bpf.AUDIT_ARCH_X86_64, X32),
}
# From the strictest on, as seccomp(2) orders them.
ANSWERS = {
    "SCMP_ACT_KILL_PROCESS": 0x8000_0000,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_TRAP": 0x0003_0000,
    "SCMP_ACT_ERRNO": 0x0005_0000,
    "SCMP_ACT_TRACE": 0x7FF0_0000,
    "SCMP_ACT_LOG": 0x7FFC_0000,
    "SCMP_ACT_ALLOW": 0x7FFF_0000,
}
KILL, EPERM, ENOSYS, ALLOW = 0, 0x0005_0001, 0x0005_0026, 0x7FFF_0000
NAMES = ["read", "clone", "personality", "ioctl", "rt_sigaction", "mount_setattr", "umount", "no_such_call"]
WORDS = [0, 1, 5, 0xFF, 0x7E02_0000, 0xFFFF_FFFF, 1 << 32, (1 << 32) + 5, (1 << 63) + 1, (1 << 64) - 40, (1 << 64) - 1]


def parse(profile: dict[str, Any]) -> Seccomp:
    return Seccomp(Members(profile))


def answer(profile: dict[str, Any], name: str, *arguments: int, abi: str = "SCMP_ARCH_X86_64") -> int:
    arch, table = ABIS[abi]
    return bpf.run(bpf.load(compile_filter(parse(profile))), arch, table[name], arguments)


def rule(names: str, action: str = "SCMP_ACT_ALLOW", *args: tuple[int, str, int, int], **more: int) -> dict[str, Any]:
    conditions = [
        {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": value_two}
        for index, op, value, value_two in args
    ]
    return {"names": names.split(), "action": action, "args": conditions, **more}


def deny(*rules: dict[str, Any], architectures: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "architectures": list(architectures), "syscalls": list(rules)}


def allow(*rules: dict[str, Any], architectures: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": list(architectures), "syscalls": list(rules)}


@pytest.mark.parametrize(
    ("op", "holds"),
    [
        ("NE", (True, False, True, True)),
        ("LT", (True, False, False, False)),
        ("LE", (True, True, False, False)),
        ("EQ", (False, True, False, False)),
        ("GE", (False, True, True, True)),
        ("GT", (False, False, True, True)),
    ],
)
@pytest.mark.parametrize("value", [7, 0x5_0000_0007, 0xFFFF_FFFF])
def test_operators_compare_all_64_bits(op: str, holds: tuple[bool, ...], value: int) -> None:
    profile = deny(rule("ioctl", "SCMP_ACT_ALLOW", (1, op, value, 0)))
    found = tuple(
        answer(profile, "ioctl", 0, word) == ALLOW for word in (value - 1, value, value + 1, value + (1 << 40))
    )
    assert found == holds


def test_a_masked_comparison_looks_at_the_masks_bits_of_both() -> None:
    profile = deny(rule("clone", "SCMP_ACT_ALLOW", (0, "MASKED_EQ", 0x3_0000_0003, 0x9_0000_0001)))
    assert answer(profile, "clone", 0x1_0000_0001) == ALLOW
    assert answer(profile, "clone", 0xFFFF_FFF5_FFFF_FFFD) == ALLOW
    assert answer(profile, "clone", 0x1_0000_0002) == EPERM
    assert answer(profile, "clone", 0x1) == EPERM


def test_conditions_of_one_rule_must_all_hold() -> None:
    profile = deny(rule("ioctl", "SCMP_ACT_ALLOW", (0, "EQ", 1, 0), (2, "GT", 9, 0)))
    assert [answer(profile, "ioctl", *words) for words in ((1, 0, 10), (1, 0, 9), (2, 0, 10))] == [ALLOW, EPERM, EPERM]


def test_two_conditions_on_one_argument_are_two_rules() -> None:
    profile = deny(rule("ioctl", "SCMP_ACT_ALLOW", (0, "EQ", 1, 0), (0, "EQ", 3, 0)))
    assert [answer(profile, "ioctl", word) for word in (1, 2, 3)] == [ALLOW, EPERM, ALLOW]


def test_the_first_rule_without_conditions_stands_for_all() -> None:
    profile = deny(
        rule("read", "SCMP_ACT_TRAP", (0, "EQ", 1, 0)), rule("read"), rule("read", "SCMP_ACT_KILL"), rule("write")
    )
    assert answer(profile, "read", 1) == ALLOW


@pytest.mark.parametrize("turned", [False, True])
def test_the_strictest_condition_that_holds_counts(turned: bool) -> None:
    rules = [rule("read", "SCMP_ACT_LOG", (0, "GE", 1, 0)), rule("read", "SCMP_ACT_KILL_PROCESS", (0, "EQ", 5, 0))]
    profile = deny(*(reversed(rules) if turned else rules))
    assert [answer(profile, "read", word) for word in (0, 4, 5)] == [EPERM, 0x7FFC_0000, 0x8000_0000]


@pytest.mark.parametrize(
    ("action", "extra", "value"),
    [
        ("SCMP_ACT_KILL", {}, 0),
        ("SCMP_ACT_KILL_THREAD", {}, 0),
        ("SCMP_ACT_KILL_PROCESS", {}, 0x8000_0000),
        ("SCMP_ACT_TRAP", {}, 0x0003_0000),
        ("SCMP_ACT_ERRNO", {}, EPERM),
        ("SCMP_ACT_ERRNO", {"errnoRet": 0}, 0x0005_0000),
        ("SCMP_ACT_ERRNO", {"errnoRet": 38}, ENOSYS),
        ("SCMP_ACT_TRACE", {}, 0x7FF0_0001),
        ("SCMP_ACT_TRACE", {"errnoRet": 500}, 0x7FF0_01F4),
        ("SCMP_ACT_LOG", {}, 0x7FFC_0000),
        ("SCMP_ACT_NOTIFY", {}, 0x7FC0_0000),
    ],
)
def test_an_action_becomes_the_kernels_value(action: str, extra: dict[str, int], value: int) -> None:
    assert answer(allow(rule("read", action, **extra)), "read") == value
    default = {f"default{name[0].upper()}{name[1:]}": number for name, number in extra.items()}
    assert answer({"defaultAction": action, **default}, "read") == value


def test_unknown_names_change_nothing() -> None:
    assert compile_filter(parse(deny(rule("read no_such_call")))) == compile_filter(parse(deny(rule("read"))))


@pytest.mark.parametrize(
    ("default", "after"),
    [("SCMP_ACT_ERRNO", ENOSYS), ("SCMP_ACT_KILL", ENOSYS), ("SCMP_ACT_LOG", 0x7FFC_0000), ("SCMP_ACT_ALLOW", ALLOW)],
)
def test_calls_newer_than_the_profile_are_not_there_unless_it_is_permissive(default: str, after: int) -> None:
    code = bpf.load(compile_filter(parse({"defaultAction": default, "syscalls": [rule("openat2", "SCMP_ACT_TRAP")]})))
    assert bpf.run(code, bpf.AUDIT_ARCH_X86_64, NATIVE["openat2"]) == 0x0003_0000
    assert bpf.run(code, bpf.AUDIT_ARCH_X86_64, NATIVE["openat2"] + 1) == after
    assert bpf.run(code, bpf.AUDIT_ARCH_X86_64, X32_BIT - 1) == after


def test_a_call_that_a_tracer_took_away_gets_the_default_answer() -> None:
    code = bpf.load(compile_filter(parse(deny(rule("read"), architectures=("SCMP_ARCH_X32",)))))
    assert bpf.run(code, bpf.AUDIT_ARCH_X86_64, 0xFFFF_FFFF) == EPERM


def test_architectures_that_are_not_listed_are_killed_even_where_all_is_allowed() -> None:
    code = bpf.load(compile_filter(parse(allow())))
    assert bpf.run(code, bpf.AUDIT_ARCH_X86_64, 0) == ALLOW
    assert bpf.run(code, bpf.AUDIT_ARCH_X86_64, X32_BIT) == KILL
    assert bpf.run(code, bpf.AUDIT_ARCH_I386, 3) == KILL
    assert bpf.run(code, 0xC000_00B7, 0) == KILL  # aarch64


def test_foreign_architectures_give_no_code() -> None:
    plain = compile_filter(parse(deny(rule("read"))))
    assert compile_filter(parse(deny(rule("read"), architectures=("SCMP_ARCH_ARM", "SCMP_ARCH_S390X")))) == plain


def test_each_architecture_has_its_own_numbers() -> None:
    profile = deny(rule("rt_sigaction"), architectures=("SCMP_ARCH_X86", "SCMP_ARCH_X32"))
    code = bpf.load(compile_filter(parse(profile)))
    for arch, number in (
        (bpf.AUDIT_ARCH_X86_64, 13),
        (bpf.AUDIT_ARCH_I386, 174),
        (bpf.AUDIT_ARCH_X86_64, X32_BIT + 512),
    ):
        assert bpf.run(code, arch, number) == ALLOW
        assert bpf.run(code, arch, number - 1) == EPERM


@pytest.mark.parametrize(
    ("name", "by", "call"), [("socket", "socketcall", 1), ("sendmmsg", "socketcall", 20), ("shmctl", "ipc", 24)]
)
def test_what_i386_multiplexes_is_reached_there(name: str, by: str, call: int) -> None:
    for profile, here, elsewhere in (
        (allow(rule(name, "SCMP_ACT_ERRNO"), architectures=("SCMP_ARCH_X86",)), EPERM, ALLOW),
        (deny(rule(name), architectures=("SCMP_ARCH_X86",)), ALLOW, EPERM),
    ):
        assert answer(profile, by, call, abi="SCMP_ARCH_X86") == here
        assert answer(profile, by, call - 1, abi="SCMP_ARCH_X86") == elsewhere


def test_the_version_in_the_first_argument_of_ipc_does_not_lead_around_a_rule() -> None:
    profile = allow(rule("shmget", "SCMP_ACT_ERRNO"), architectures=("SCMP_ARCH_X86",))
    assert answer(profile, "ipc", 23 | 1 << 16, abi="SCMP_ARCH_X86") == EPERM


def test_conditions_behind_a_pointer_count_only_when_they_deny() -> None:
    inet = (0, "EQ", 2, 0)
    denied = allow(rule("socket", "SCMP_ACT_ERRNO", inet), architectures=("SCMP_ARCH_X86",))
    assert answer(denied, "socketcall", 1, abi="SCMP_ARCH_X86") == EPERM
    allowed = deny(rule("socket", "SCMP_ACT_ALLOW", inet), architectures=("SCMP_ARCH_X86",))
    assert answer(allowed, "socketcall", 1, abi="SCMP_ARCH_X86") == EPERM
    assert answer(allowed, "socket", 2, abi="SCMP_ARCH_X86") == ALLOW


@pytest.mark.parametrize(("value", "word"), [((1 << 64) - 1, 0xFFFF_FFFF), ((1 << 64) - 40, 0xFFFF_FFD8)])
def test_a_negative_value_is_32_bits_long_where_arguments_are(value: int, word: int) -> None:
    profile = deny(rule("ioctl", "SCMP_ACT_ALLOW", (0, "EQ", value, 0)), architectures=("SCMP_ARCH_X86",))
    assert answer(profile, "ioctl", word, abi="SCMP_ARCH_X86") == ALLOW
    assert answer(profile, "ioctl", word) == EPERM


@pytest.mark.parametrize(
    ("op", "always"), [("EQ", False), ("NE", True), ("LT", True), ("LE", True), ("GT", False), ("GE", False)]
)
@pytest.mark.parametrize("word", [0, 5, 1 << 32, 5 << 32, (1 << 64) - 1])
def test_every_32_bit_argument_is_smaller_than_a_longer_value(op: str, always: bool, word: int) -> None:
    """Whatever a 64-bit program leaves in the upper half."""
    profile = deny(rule("ioctl", "SCMP_ACT_ALLOW", (0, op, 5 << 32, 0)), architectures=("SCMP_ARCH_X86",))
    assert (answer(profile, "ioctl", word, abi="SCMP_ARCH_X86") == ALLOW) is always


def test_flags_become_bits() -> None:
    flags = [f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")]
    profile = parse({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags})
    wanted = k.SECCOMP_FILTER_FLAG_TSYNC | k.SECCOMP_FILTER_FLAG_LOG | k.SECCOMP_FILTER_FLAG_SPEC_ALLOW
    assert filter_flags(profile) == wanted


def test_a_filter_that_the_kernel_would_not_take_is_refused() -> None:
    conditions = [rule("ioctl", "SCMP_ACT_ALLOW", (1, "EQ", value << 20, 0)) for value in range(1100)]
    with pytest.raises(SpecError, match=r"5\d\d\d instructions, the kernel takes 4096"):
        compile_filter(parse(deny(*conditions)))


def test_jumps_over_hundreds_of_instructions_arrive() -> None:
    rules = [
        rule(name, "SCMP_ACT_ALLOW", (1, "EQ", value << 20, 0)) for name in ("read", "ioctl") for value in range(200)
    ]
    code = bpf.load(compile_filter(parse(deny(*rules))))
    for number, value, wanted in ((0, 199, ALLOW), (0, 200, EPERM), (16, 0, ALLOW), (16, 199, ALLOW), (1, 0, EPERM)):
        assert bpf.run(code, bpf.AUDIT_ARCH_X86_64, number, (0, value << 20)) == wanted


@pytest.mark.parametrize("more", range(5))
@pytest.mark.parametrize("count", range(40, 56))
def test_branches_about_as_long_as_a_jump_reaches_are_right(count: int, more: int) -> None:
    """A conditional jump reaches 255 instructions. Each condition takes 5 or, when it compares order, 6."""
    rules = [rule("write", "SCMP_ACT_ALLOW", (1, "EQ", value << 20, 0)) for value in range(count)]
    rules += [rule("write", "SCMP_ACT_ALLOW", (1, "GT", (1 << 50) + value, 0)) for value in range(more)]
    code = bpf.load(compile_filter(parse(deny(rule("read close"), *rules))))
    for number, value, wanted in (
        (0, 0, ALLOW),
        (1, count - 1, ALLOW),
        (1, count, EPERM),
        (3, 0, ALLOW),
        (4, 0, ENOSYS),
    ):
        assert bpf.run(code, bpf.AUDIT_ARCH_X86_64, number, (0, value << 20)) == wanted


def test_equal_identities_are_of_equal_filters_only() -> None:
    one, other = parse(deny(rule("read"))), parse(deny(rule("read", "SCMP_ACT_ALLOW", (0, "EQ", 0, 0))))
    assert identity(one) == identity(parse(deny(rule("read"))))
    assert identity(one) != identity(other)
    assert (
        len({identity(parse(deny(*map(rule, names)))) for names in (["read write"], ["read", "write"], ["readwrite"])})
        == 3
    )


def test_numbers_have_names() -> None:
    assert [name_of(number) for number in (0, 16, 435, 100_000)] == ["read", "ioctl", "clone3", "100000"]
    assert (NATIVE["read"], I386["read"], X32["read"], X32["ioctl"]) == (0, 3, X32_BIT, X32_BIT | 514)


# --- any profile ----------------------------------------------------------------------------------------------------


def holds(condition: SeccompArg, word: int, *, narrow: bool) -> bool:
    value, wanted = condition.value, condition.value_two
    if narrow:
        word &= 0xFFFF_FFFF
        if condition.op == "SCMP_CMP_MASKED_EQ" or value >= (1 << 64) - (1 << 31):
            value, wanted = value & 0xFFFF_FFFF, wanted & 0xFFFF_FFFF
    return {
        "SCMP_CMP_NE": word != value,
        "SCMP_CMP_LT": word < value,
        "SCMP_CMP_LE": word <= value,
        "SCMP_CMP_EQ": word == value,
        "SCMP_CMP_GE": word >= value,
        "SCMP_CMP_GT": word > value,
        "SCMP_CMP_MASKED_EQ": word & value == wanted & value,
    }[condition.op]


def value_of(action: str, errno_ret: int | None) -> int:
    with_data = action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
    return ANSWERS[action] | ((1 if errno_ret is None else errno_ret) if with_data else 0)


def meaning(profile: Seccomp, abi: str, number: int, words: tuple[int, ...]) -> int:
    """Read the rules one by one."""
    _, table = ABIS[abi]
    if abi not in ("SCMP_ARCH_X86_64", *profile.architectures):
        return KILL
    default = value_of(profile.default_action, profile.default_errno_ret)
    known = [table[name] for one in profile.syscalls for name in one.names if name in table]
    if known and number > max(known) and list(ANSWERS).index(profile.default_action) < 5:
        return ENOSYS
    found = []
    for one in profile.syscalls:
        value = value_of(one.action, one.errno_ret)
        if value == default or number not in [table.get(name) for name in one.names]:
            continue
        true = [holds(arg, words[arg.index], narrow=abi != "SCMP_ARCH_X86_64") for arg in one.args]
        always = [arg.op == "SCMP_CMP_MASKED_EQ" and not arg.value for arg in one.args]
        alone = len({arg.index for arg in one.args}) < len(one.args)
        if any(always) if alone else all(always):
            return value
        if any(true) if alone else all(true):
            found.append(value)
    order = list(ANSWERS.values())
    return min(found, key=lambda value: order.index(value & 0xFFFF_0000), default=default)


def profiles() -> st.SearchStrategy[dict[str, Any]]:
    words = st.sampled_from(WORDS)
    errno_ret = st.sampled_from([0, 1, 38, 4095])
    condition = st.fixed_dictionaries(
        {"index": st.integers(0, 2), "op": st.sampled_from(OPERATORS), "value": words, "valueTwo": words}
    )
    one = st.fixed_dictionaries(
        {
            "names": st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
            "action": st.sampled_from(list(ANSWERS)),
            "args": st.lists(condition, max_size=3),
        },
        optional={"errnoRet": errno_ret},
    )
    return st.fixed_dictionaries(
        {
            "defaultAction": st.sampled_from(list(ANSWERS)),
            "architectures": st.lists(st.sampled_from(list(ABIS)), unique=True),
            "syscalls": st.lists(one, max_size=6),
        },
        optional={"defaultErrnoRet": errno_ret},
    )


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(profile=profiles(), words=st.tuples(*[st.sampled_from(WORDS)] * 3))
def test_any_profile_answers_as_its_rules_read_one_by_one(profile: dict[str, Any], words: tuple[int, ...]) -> None:
    parsed = parse(profile)
    code = bpf.load(compile_filter(parsed))
    for abi, (arch, table) in ABIS.items():
        for number in {table[name] + step for name in NAMES if name in table for step in (-1, 0, 1)} - {
            X32_BIT - 1,
            -1,
        }:
            wanted = meaning(parsed, abi, number, words)
            got = bpf.run(code, arch, number, words)
            assert got == wanted, f"{abi} {number:#x} {words}: {got:#x} instead of {wanted:#x}"
