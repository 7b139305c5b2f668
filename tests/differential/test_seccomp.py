"""The seccomp compiler beside libseccomp: the same profile, the same answers, on each architecture.

Ours differs on purpose, which the tests account for: system calls newer than all that a profile names get ENOSYS; names
newer than the installed libseccomp are known; where rules with different actions overlap, and for conditions on what
i386 multiplexes, ours is never laxer.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inclavare.linux.seccomp import MULTIPLEXED, PERMISSIVE, RET_ENOSYS, compile_filter
from inclavare.linux.syscalls import X32_BIT, numbers
from inclavare.oci.reader import Members
from inclavare.oci.seccomp import OPERATORS, Seccomp
from tests.differential import libseccomp
from tests.unit.linux import bpf

CONFIGS = Path(__file__).parents[1] / "vectors/configs"
NATIVE, I386, X32 = numbers()
ABIS = (
    ("SCMP_ARCH_X86_64", bpf.AUDIT_ARCH_X86_64, NATIVE, 0xC000_003E),
    ("SCMP_ARCH_X86", bpf.AUDIT_ARCH_I386, I386, 0x4000_0003),
    ("SCMP_ARCH_X32", bpf.AUDIT_ARCH_X86_64, X32, 0x4000_003E),
)
NEWER = {name for name, number in NATIVE.items() if number > 450 or name in ("uretprobe", "uprobe")}
MULTIPLEXERS = {name: by for by, names in MULTIPLEXED.items() for name in (by, *names) if name}
AARCH64 = 0xC000_00B7
TRACER = 0xFFFF_FFFF
CARRIED = {name for names in MULTIPLEXED.values() for name in names}
CALL_MAX = 600  # no architecture has a number above
# Each architecture has all of these: beside one it lacks (accept, socketcall), libseccomp 2.5.4 loses other rules.
NAMES = [
    *("read", "open", "clone", "personality", "socket", "shmat", "rt_sigaction", "ioctl", "umount2", "openat2"),
    *("mount_setattr", "no_such_call"),
]
ACTIONS = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_LOG",
    "SCMP_ACT_KILL",
]
WORDS = [0, 1, 5, 21, 40, 0xFF, 0x7E02_0000, 0xFFFF_FFFF, (1 << 64) - 40, (1 << 64) - 1]
WIDE_WORDS = [1 << 32, (1 << 32) + 5, (1 << 63) + 1]  # no 32-bit argument has them, though libseccomp thinks so


def parse(profile: dict[str, Any]) -> Seccomp:
    return Seccomp(Members(profile))


@pytest.fixture(scope="session")
def lib() -> ctypes.CDLL:
    return libseccomp.library()


def known_to(lib: ctypes.CDLL, profile: dict[str, Any]) -> dict[str, Any]:
    """Leave out names that the installed libseccomp is too old for."""
    rules = [
        rule | {"names": [name for name in rule["names"] if lib.seccomp_syscall_resolve_name(name.encode()) != -1]}
        for rule in profile.get("syscalls", [])
    ]
    return profile | {"syscalls": [rule for rule in rules if rule["names"]]}


def newest(profile: Seccomp, table: dict[str, int]) -> int:
    """Give the highest number that the profile names, or -1."""
    names = [name for rule in profile.syscalls for name in rule.names]
    carriers = [MULTIPLEXERS.get(name) for name in names if table is I386]
    return max((table[name] for name in (*names, *carriers) if name in table), default=-1)


def is_sound(program: bpf.Program) -> bool:
    """Tell whether libseccomp remembered to load the number: 2.5.4 compares i386's with the architecture at times."""
    for at, (operation, when_true, _, k) in enumerate(program):
        if operation == bpf.JUMP_EQUAL and k == bpf.AUDIT_ARCH_I386:
            then, _, _, offset = program[at + 1 + when_true]
            return then == bpf.RETURN or (then == bpf.LOAD_WORD and offset == 0)
    return True


Call = tuple[int, int, tuple[int, ...]]  # index into ABIS, number, arguments


def is_newer(profile: Seccomp, call: Call) -> bool:
    """Tell whether the profile cannot have known a system call, so that we answer ENOSYS."""
    abi, number, _ = call
    name, arch, table, _ = ABIS[abi]
    if (arch == bpf.AUDIT_ARCH_X86_64 and number == TRACER) or profile.default_action in PERMISSIVE:
        return False
    listed = name == "SCMP_ARCH_X86_64" or name in profile.architectures
    return listed and -1 < newest(profile, table) < number


def compare(lib: ctypes.CDLL, profile: Seccomp, calls: Iterable[Call]) -> int:
    """Ask both filters; return how many questions there were."""
    ours = bpf.load(compile_filter(profile))
    theirs = bpf.load(libseccomp.compile_with(lib, profile))
    if not is_sound(theirs):
        return 0
    count = 0
    for call in calls:
        abi, number, arguments = call
        name, arch, _, _ = ABIS[abi]
        wanted = RET_ENOSYS if is_newer(profile, call) else bpf.run(theirs, arch, number, arguments)
        got = bpf.run(ours, arch, number, arguments)
        assert got == wanted, f"{name} {number:#x} {arguments}: {got:#x} instead of {wanted:#x}"
        count += 1
    return count


def every_call(arguments: list[tuple[int, ...]]) -> Iterator[Call]:
    for abi, (name, _, _, _) in enumerate(ABIS):
        bit = X32_BIT if name == "SCMP_ARCH_X32" else 0
        for number in [*range(bit, bit + CALL_MAX), TRACER]:
            for words in arguments:
                yield abi, number, words


@pytest.mark.parametrize("config", ["docker", "containerd", "podman", "everything"])
def test_a_real_profile_means_what_it_means_to_libseccomp(lib: ctypes.CDLL, config: str) -> None:
    profile = json.loads((CONFIGS / f"{config}.json").read_text())["linux"].get("seccomp")
    if profile is None:
        pytest.skip("no seccomp in this configuration")
    if "SCMP_ACT_NOTIFY" in json.dumps(profile):
        pytest.skip("a listener")
    values = {condition["value"] for rule in profile["syscalls"] for condition in rule.get("args") or ()}
    around: list[int] = sorted(
        {value + step & 0xFFFF_FFFF_FFFF_FFFF for value in values for step in (-1, 0, 1)} | {0, 1 << 40}
    )
    arguments: list[tuple[int, ...]] = [(word,) * 6 for word in around]
    assert compare(lib, parse(known_to(lib, profile)), every_call(arguments)) > 3 * CALL_MAX


def test_an_architecture_that_is_not_ours_is_killed() -> None:
    code = bpf.load(compile_filter(parse({"defaultAction": "SCMP_ACT_ALLOW"})))
    assert bpf.run(code, AARCH64, 0) == 0
    assert bpf.run(code, bpf.AUDIT_ARCH_I386, 3) == 0


def test_the_tables_agree(lib: ctypes.CDLL) -> None:
    """libseccomp's database comes from the kernel's tables. It has pseudo numbers for what i386 carries."""
    different = []
    for name, _, table, token in ABIS:
        for call in sorted({*NATIVE, *I386, *X32}):
            theirs = lib.seccomp_syscall_resolve_name_arch(token, call.encode())
            if theirs == -1:
                assert call in NEWER, f"{call} is not newer than libseccomp"
            elif table.get(call, -1) != max(theirs, -1) and not (name == "SCMP_ARCH_X86" and call in CARRIED):
                different.append((name, call, theirs, table.get(call)))
    assert different == []


def conditions(words: list[int], operators: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.sampled_from(words)
    return st.fixed_dictionaries(
        {"index": st.integers(0, 2), "op": st.sampled_from(operators), "value": values, "valueTwo": values}
    )


def profiles(
    architectures: list[str], words: list[int], operators: tuple[str, ...] = OPERATORS, conditions_max: int = 3
) -> st.SearchStrategy[dict[str, Any]]:
    rule = st.fixed_dictionaries(
        {
            "names": st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
            "action": st.sampled_from(ACTIONS),
            "args": st.lists(conditions(words, operators), max_size=conditions_max),
        },
        optional={"errnoRet": st.sampled_from([0, 1, 38, 4000])},
    )
    return st.fixed_dictionaries(
        {
            "defaultAction": st.sampled_from(ACTIONS),
            "architectures": st.lists(st.sampled_from(architectures), unique=True),
            "syscalls": st.lists(rule, max_size=5),
        }
    )


def near(names: list[str], arguments: list[tuple[int, ...]]) -> Iterator[Call]:
    """Give the calls of these names on each ABI, and their neighbours."""
    for abi, (_, _, table, _) in enumerate(ABIS):
        numbers_ = {table[name] + step for name in names if name in table for step in (-1, 0, 1)} - {X32_BIT - 1, -1}
        for number in sorted(numbers_):
            for words in arguments:
                yield abi, number, words


def unlike(profile: Seccomp) -> bool:
    """Tell whether ours may be stricter than libseccomp, which also loses conditions of rules on one argument."""
    seen: dict[str, set[int]] = {}
    conditions_of: dict[str, int] = {}
    for rule in profile.syscalls:
        value = libseccomp.action(rule.action, rule.errno_ret)
        for name in rule.names:
            conditions_of[name] = conditions_of.get(name, 0) + bool(rule.args)
            indices = [arg.index for arg in rule.args]
            if (name in MULTIPLEXERS and rule.args) or conditions_of[name] > 1 or len(set(indices)) < len(indices):
                return True
            seen.setdefault(MULTIPLEXERS.get(name, name), set()).add(value if rule.args or name in MULTIPLEXERS else -1)
    return any(len(values - {-1}) > 1 for values in seen.values())


def strictness(answer: int) -> int:
    """Order answers as the kernel does (seccomp(2)): of several filters' the first of this list counts."""
    order = (0x8000_0000, 0, 0x0003_0000, 0x0005_0000, 0x7FF0_0000, 0x7FFC_0000, 0x7FFF_0000)
    return order.index(answer & 0xFFFF_0000)


TRIPLES = st.lists(st.tuples(*[st.sampled_from(WORDS + WIDE_WORDS)] * 3), min_size=1, max_size=6)
EQUAL = ("SCMP_CMP_EQ",)  # of several rules for one call with other operators, libseccomp loses some
EVERY_ARCHITECTURE = [abi[0] for abi in ABIS]
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FUZZ
@given(profile=profiles(EVERY_ARCHITECTURE, WORDS), words=TRIPLES)
def test_any_profile_means_what_it_means_to_libseccomp(
    lib: ctypes.CDLL, profile: dict[str, Any], words: list[tuple[int, ...]]
) -> None:
    parsed = parse(known_to(lib, profile))
    if not unlike(parsed):
        compare(lib, parsed, near(NAMES, words))


@FUZZ
@given(profile=profiles(["SCMP_ARCH_X86_64"], WORDS + WIDE_WORDS), words=TRIPLES)
def test_64_bit_conditions_mean_what_they_mean_to_libseccomp(
    lib: ctypes.CDLL, profile: dict[str, Any], words: list[tuple[int, ...]]
) -> None:
    parsed = parse(known_to(lib, profile))
    if not unlike(parsed):
        compare(lib, parsed, near(NAMES, words))


@FUZZ
@given(profile=profiles(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], WORDS, EQUAL, 1), words=TRIPLES)
def test_no_profile_lets_through_what_libseccomp_stops(
    lib: ctypes.CDLL, profile: dict[str, Any], words: list[tuple[int, ...]]
) -> None:
    parsed = parse(known_to(lib, profile))
    try:
        theirs = bpf.load(libseccomp.compile_with(lib, parsed))
    except ValueError:
        return  # rules that contradict each other: runc refuses the profile
    if not is_sound(theirs):
        return
    ours = bpf.load(compile_filter(parsed))
    for call in near(NAMES, words):
        abi, number, arguments = call
        arch = ABIS[abi][1]
        wanted = RET_ENOSYS if is_newer(parsed, call) else bpf.run(theirs, arch, number, arguments)
        got = bpf.run(ours, arch, number, arguments)
        assert strictness(got) <= strictness(wanted), f"{ABIS[abi][0]} {number:#x} {arguments}: {got:#x}, {wanted:#x}"
