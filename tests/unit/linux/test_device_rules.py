"""Device rules: what the spec's list means, what v1's kernel makes of ours, and what v2's program answers."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inclavare.errors import SpecError
from inclavare.linux.cgroup_limits import ALWAYS_ALLOWED, Device, device_rules
from inclavare.linux.device_filter import compile_rules
from inclavare.oci.spec import parse_resources

Rule = dict[str, Any]
DENY_ALL: Rule = {"allow": False, "access": "rwm"}
ALLOW_ALL: Rule = {"allow": True, "access": "rwm"}
BITS = {"m": 1, "r": 2, "w": 4}  # linux/bpf.h, BPF_DEVCG_ACC_*
KINDS = {"b": 1, "c": 2}
NODES = list(itertools.product("bc", (1, 10, 136), (3, 200)))


def rules_of(*rules: Rule) -> list[Device]:
    return device_rules(parse_resources({"devices": list(rules)}))


def exceptions_of(*rules: Rule) -> set[Device]:
    """Give what these rules add to the usual."""
    return set(rules_of(*rules)[1:]) - set(ALWAYS_ALLOWED)


def rule(allow: bool, kind: str, major: int | None, minor: int | None, access: str) -> Rule:
    numbers = {name: number for name, number in (("major", major), ("minor", minor)) if number is not None}
    return {"allow": allow, "type": kind, "access": access, **numbers}


def fits(mine: Device, kind: str, major: int, minor: int) -> bool:
    _, its_kind, its_major, its_minor, _ = mine
    return its_kind in ("a", kind) and its_major in (None, major) and its_minor in (None, minor)


def meaning(rules: list[Device], kind: str, major: int, minor: int, letter: str) -> bool:
    """The last rule that fits decides, as each reads."""
    for one in reversed(rules):
        if fits(one, kind, major, minor) and letter in one[4]:
            return one[0]
    return False


def kernel_v1(rules: list[Device], kind: str, major: int, minor: int, access: str) -> bool:
    """security/device_cgroup.c: an allowed exception must grant all that is asked for, a denied one takes any of it."""
    default = rules[0][0]
    meeting = [set(one[4]) for one in rules[1:] if fits(one, kind, major, minor)]
    if default:
        return not any(granted & set(access) for granted in meeting)
    return any(granted >= set(access) for granted in meeting)


def run(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """The instructions that the program uses (Documentation/bpf/standardization/instruction-set.rst)."""
    context = struct.pack("<III", sum(BITS[letter] for letter in access) << 16 | KINDS[kind], major, minor)
    registers = [0] * 11
    at = 0
    while True:
        code, both, offset, value = struct.unpack_from("<BBhi", program, at * 8)
        to, source = both & 15, both >> 4
        at += 1
        match code:
            case 0x61:
                assert source == 1
                (registers[to],) = struct.unpack_from("<I", context, offset)
            case 0xB4:
                registers[to] = value & 0xFFFF_FFFF
            case 0xBC:
                registers[to] = registers[source]
            case 0x54:
                registers[to] &= value & 0xFFFF_FFFF
            case 0x74:
                registers[to] >>= value
            case 0x15:
                at += offset if registers[to] == value else 0
            case 0x55:
                at += offset if registers[to] != value else 0
            case 0x5D:
                at += offset if registers[to] != registers[source] else 0
            case 0x95:
                return bool(registers[0])
            case _:
                pytest.fail(f"unknown instruction {code:#x}")


def test_a_rule_for_all_kinds_with_numbers_is_not_a_rule_for_all_devices() -> None:
    """v1's kernel takes `a 10:200 rw` for `a`."""
    found = exceptions_of(DENY_ALL, {"allow": True, "major": 10, "minor": 200, "access": "rw"})
    assert found == {(True, "b", 10, 200, "rw"), (True, "c", 10, 200, "rw")}


def test_a_rule_for_a_part_of_the_access_to_all_devices_is_not_one_for_all_access() -> None:
    assert exceptions_of(DENY_ALL, {"allow": True, "access": "r"}) == {
        (True, "b", None, None, "rm"),  # with the m that everybody has
        (True, "c", None, None, "rm"),
    }


def test_access_to_one_device_adds_up() -> None:
    read, write = rule(True, "c", 10, 200, "r"), rule(True, "c", 10, 200, "w")
    assert exceptions_of(DENY_ALL, read, write) == {(True, "c", 10, 200, "rw")}


def test_what_is_taken_again_is_not_there() -> None:
    assert exceptions_of(DENY_ALL, rule(True, "c", 10, 200, "rw"), rule(False, "c", 10, 200, "w")) == {
        (True, "c", 10, 200, "r")
    }
    assert exceptions_of(DENY_ALL, rule(True, "c", 10, 200, "rw"), rule(False, "c", 10, None, "rwm")) == set()


def test_a_rule_for_all_devices_forgets_those_before() -> None:
    assert rules_of(rule(True, "c", 10, 200, "rw"), ALLOW_ALL) == [(True, "a", None, None, "rwm")]
    assert exceptions_of(ALLOW_ALL, DENY_ALL) == set()


def test_where_all_is_allowed_the_exceptions_are_denied() -> None:
    assert rules_of(ALLOW_ALL, rule(False, "c", 10, 200, "rw")) == [
        (True, "a", None, None, "rwm"),
        (False, "c", 10, 200, "rw"),
    ]


def test_a_part_of_what_an_earlier_rule_says_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"denies c 10:200 rw, a part of what an earlier rule allows") as caught:
        rules_of(DENY_ALL, rule(True, "c", 10, None, "rw"), rule(False, "c", 10, 200, "rw"))
    assert caught.value.path == "linux.resources.devices[2]"
    with pytest.raises(SpecError, match=r"allows c 10:200 r, a part of what an earlier rule denies"):
        rules_of(ALLOW_ALL, rule(False, "c", None, 200, "rw"), rule(True, "c", 10, 200, "r"))


NUMBERS = st.sampled_from([None, None, 1, 10, 136]), st.sampled_from([None, None, 3, 200])
ACCESS = st.sampled_from(["rwm", "rwm", "rw", "r", "m", "w"])
RULES = st.lists(st.builds(rule, st.booleans(), st.sampled_from("abc"), *NUMBERS, ACCESS), max_size=6)


@settings(max_examples=500)
@given(rules=RULES)
def test_any_rules_mean_the_same_as_written_in_v1_and_in_v2(rules: list[Rule]) -> None:
    try:
        found = rules_of(*rules)
    except SpecError:
        return
    asked: list[Device] = [
        *((one["allow"], one["type"], one.get("major"), one.get("minor"), one["access"]) for one in rules),
        *ALWAYS_ALLOWED,
    ]
    program = compile_rules(found)
    for node in NODES:
        for access in ("r", "w", "m"):
            assert kernel_v1(found, *node, access) == meaning(asked, *node, access), (node, access)
        for access in ("r", "w", "m", "rw"):
            assert run(program, *node, access) == kernel_v1(found, *node, access), (node, access)
