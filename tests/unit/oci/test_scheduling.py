from __future__ import annotations

from typing import Any

import pytest

from inclavare.errors import SpecError
from inclavare.oci.scheduling import FLAGS, POLICIES
from inclavare.oci.spec import parse_process

MS = 1_000_000


def process(**members: object) -> dict[str, Any]:
    return {"args": ["x"], "cwd": "/", **members}


def scheduler(**members: object) -> dict[str, Any]:
    return process(scheduler=members)


def refusal(document: dict[str, Any]) -> str:
    with pytest.raises(SpecError) as caught:
        parse_process(document)
    return caught.value.message


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_is_read(policy: str) -> None:
    members: dict[str, object] = {"policy": policy, "nice": -20, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    if policy in ("SCHED_FIFO", "SCHED_RR"):
        members["priority"] = 99
    if policy == "SCHED_DEADLINE":
        members |= {"runtime": 1024, "deadline": 20 * MS}
    read = parse_process(scheduler(**members)).scheduler
    assert read is not None
    assert (read.policy, read.nice, read.flags) == (policy, -20, FLAGS["SCHED_FLAG_RESET_ON_FORK"])
    assert read.priority == members.get("priority", 0)


def test_a_process_without_a_scheduler_has_none() -> None:
    assert parse_process(process()).scheduler is None


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, f"policy: is required, one of {', '.join(POLICIES)}"),
        ({"policy": "SCHED_EXT"}, f'policy: "SCHED_EXT" is not one of {", ".join(POLICIES)}'),
        ({"policy": "SCHED_OTHER", "nice": 20}, "nice: 20 is not between -20 and 19"),
        ({"policy": "SCHED_OTHER", "nice": -21}, "nice: -21 is not between -20 and 19"),
        (
            {"policy": "SCHED_BATCH", "priority": 1},
            "priority: SCHED_BATCH has no priority, only SCHED_FIFO and SCHED_RR have",
        ),
        ({"policy": "SCHED_FIFO"}, "priority: 0 is not between 1 and 99, as SCHED_FIFO needs it"),
        ({"policy": "SCHED_RR", "priority": 100}, "priority: 100 is not between 1 and 99, as SCHED_RR needs it"),
        (
            {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_UTIL_CLAMP_MIN"]},
            "flags[0]: SCHED_FLAG_UTIL_CLAMP_MIN needs a value, for which the runtime-spec has no member",
        ),
        ({"policy": "SCHED_OTHER", "flags": ["x"]}, f'flags[0]: "x" is not one of {", ".join(FLAGS)}'),
        ({"policy": "SCHED_RR", "priority": 1, "runtime": 1}, "runtime: SCHED_RR has none, only SCHED_DEADLINE has"),
        ({"policy": "SCHED_IDLE", "period": 1}, "period: SCHED_IDLE has none, only SCHED_DEADLINE has"),
    ],
)
def test_a_scheduler_that_makes_no_sense_is_refused(members: dict[str, object], message: str) -> None:
    assert refusal(scheduler(**members)) == f"scheduler.{message}"


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"deadline": 2}, "runtime: sched_setattr: `SCHED_DEADLINE` requires `runtime`"),
        ({"runtime": 2000}, "deadline: sched_setattr: `SCHED_DEADLINE` requires `deadline`"),
        (
            {"runtime": 0, "deadline": 2},
            "runtime: sched_setattr: `SCHED_DEADLINE` runtime must be greater than 0",
        ),
        (
            {"runtime": 1023, "deadline": MS},
            f"runtime: sched_setattr: `SCHED_DEADLINE` runtime (1023) must be between 1024 and {2**63 - 1} ns",
        ),
        (
            {"runtime": 2**63, "deadline": 2**63 + 1},
            f"runtime: sched_setattr: `SCHED_DEADLINE` runtime ({2**63}) must be between 1024 and {2**63 - 1} ns",
        ),
        (
            {"runtime": MS, "deadline": MS, "period": 2**63},
            f"period: sched_setattr: `SCHED_DEADLINE` period ({2**63}) must be between 0 and {2**63 - 1} ns",
        ),
        (
            {"runtime": MS + 1, "deadline": MS},
            f"runtime: sched_setattr: `SCHED_DEADLINE` runtime ({MS + 1}) must be <= deadline ({MS})",
        ),
        (
            {"runtime": MS, "deadline": MS + 1, "period": MS},
            f"deadline: sched_setattr: `SCHED_DEADLINE` deadline ({MS + 1}) must be <= period ({MS})",
        ),
    ],
)
def test_times_of_a_deadline_are_checked(times: dict[str, object], message: str) -> None:
    assert refusal(scheduler(policy="SCHED_DEADLINE", **times)) == f"scheduler.{message}"


def test_an_io_priority_is_read() -> None:
    read = parse_process(process(ioPriority={"class": "IOPRIO_CLASS_RT", "priority": 7})).io_priority
    assert read is not None
    assert (read.io_class, read.priority) == ("IOPRIO_CLASS_RT", 7)
    assert parse_process(process()).io_priority is None


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"priority": 1}, "class: is required, one of IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE"),
        ({"class": "x"}, 'class: "x" is not one of IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE'),
        ({"class": "IOPRIO_CLASS_BE", "priority": 8}, "priority: 8 is not between 0 and 7"),
        ({"class": "IOPRIO_CLASS_BE", "priority": -1}, "priority: -1 is not between 0 and 7"),
    ],
)
def test_an_io_priority_that_makes_no_sense_is_refused(members: dict[str, object], message: str) -> None:
    assert refusal(process(ioPriority=members)) == f"ioPriority.{message}"


def test_cpus_of_exec_are_read() -> None:
    read = parse_process(process(execCPUAffinity={"initial": "0-1,4", "final": "8191"})).exec_cpu_affinity
    assert read is not None
    assert (read.initial, read.final) == (0b10011, 1 << 8191)
    empty = parse_process(process(execCPUAffinity={})).exec_cpu_affinity
    assert empty is not None
    assert (empty.initial, empty.final) == (0, 0)


def test_cpus_that_cannot_be_are_refused() -> None:
    assert refusal(process(execCPUAffinity={"initial": "x"})) == (
        'execCPUAffinity.initial: "x" is not a list of numbers and ranges such as "0-3,7"'
    )
    assert refusal(process(execCPUAffinity={"final": "8192"})) == (
        "execCPUAffinity.final: 8192 is beyond the last possible number 8191"
    )
