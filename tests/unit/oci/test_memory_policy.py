from __future__ import annotations

import pytest

from inclavare.errors import SpecError
from inclavare.oci import number_list
from inclavare.oci.memory_policy import FLAGS, MODES
from inclavare.oci.reader import Members
from inclavare.oci.spec import parse
from tests.unit.oci.conftest import Edited

NODES = 'needs nodes, such as "0-3,7"'


@pytest.mark.parametrize(
    ("text", "bits", "again"),
    [("0", 1, "0"), ("0-3,7", 0x8F, "0-3,7"), ("1,0, 2", 7, "0-2"), ("63-64", 3 << 63, "63-64"), ("5-5\n", 32, "5")],
)
def test_a_list_of_numbers_is_read(text: str, bits: int, again: str) -> None:
    assert number_list.parse(Members({"a": text}), "a", 64) == bits
    assert number_list.render(bits) == again


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bad", 'a: "bad" is not a list of numbers and ranges such as "0-3,7"'),
        ("0,", 'a: "0," is not a list of numbers and ranges such as "0-3,7"'),
        ("1-", 'a: "1-" is not a list of numbers and ranges such as "0-3,7"'),
        ("-1", 'a: "-1" is not a list of numbers and ranges such as "0-3,7"'),
        ("1-2-3", 'a: "1-2-3" is not a list of numbers and ranges such as "0-3,7"'),
        ("3-1", "a: the range 3-1 runs backwards"),
        ("0-65", "a: 65 is beyond the last possible number 64"),
    ],
)
def test_a_list_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        number_list.parse(Members({"a": text}), "a", 64)
    assert caught.value.message == message


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_read(edited_minimal: Edited, mode: str) -> None:
    without = mode in ("MPOL_DEFAULT", "MPOL_LOCAL")
    members = {"mode": mode} if without else {"mode": mode, "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]}
    policy = parse(edited_minimal("linux.memoryPolicy", members)).linux.memory_policy
    assert policy is not None
    assert (policy.mode, policy.nodes) == (mode, 0 if without else 3)
    assert policy.flags == (0 if without else FLAGS["MPOL_F_STATIC_NODES"])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, f"mode: is required, one of {', '.join(MODES)}"),
        ({"mode": "BAD_MODE"}, f'mode: "BAD_MODE" is not one of {", ".join(MODES)}'),
        ({"mode": "MPOL_BIND", "flags": ["x"]}, f'flags[0]: "x" is not one of {", ".join(FLAGS)}'),
        ({"mode": "MPOL_BIND"}, f"nodes: MPOL_BIND {NODES}"),
        ({"mode": "MPOL_BIND", "nodes": "10284838"}, "nodes: 10284838 is beyond the last possible number 1023"),
        ({"mode": "MPOL_DEFAULT", "nodes": "0"}, "nodes: MPOL_DEFAULT takes no nodes"),
        ({"mode": "MPOL_LOCAL", "flags": ["MPOL_F_STATIC_NODES"]}, "flags: MPOL_LOCAL takes no flags"),
        (
            {"mode": "MPOL_PREFERRED", "flags": ["MPOL_F_STATIC_NODES"]},
            f"nodes: MPOL_PREFERRED with MPOL_F_STATIC_NODES {NODES}",
        ),
        (
            {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]},
            "flags: nodes are either MPOL_F_STATIC_NODES or MPOL_F_RELATIVE_NODES, not both",
        ),
        (
            {"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]},
            "flags: MPOL_F_NUMA_BALANCING is only for MPOL_BIND and MPOL_PREFERRED_MANY",
        ),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(
    edited_minimal: Edited, members: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        parse(edited_minimal("linux.memoryPolicy", members))
    assert caught.value.message == f"linux.memoryPolicy.{message}"
