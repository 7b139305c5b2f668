"""Plans what few containers ask for: clocks, scheduling, priorities, memory policy. Pure; imported only then."""

from __future__ import annotations

from errno import EBUSY, EINVAL, EPERM

from inclavare.container.plan import CALL_WRITE_FILE
from inclavare.linux import headers as k
from inclavare.linux.calls import (
    SYS_IOPRIO_SET,
    SYS_PERSONALITY,
    SYS_SCHED_SETAFFINITY,
    SYS_SCHED_SETATTR,
    SYS_SET_MEMPOLICY,
    SYS_UNSHARE,
)
from inclavare.oci import memory_policy, number_list
from inclavare.oci.scheduling import CPU_MAX, IO_CLASSES, POLICIES

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.plan import Plan
    from inclavare.oci.linux import Linux
    from inclavare.oci.memory_policy import MemoryPolicy
    from inclavare.oci.process import Process
    from inclavare.oci.scheduling import IOPriority, Scheduler
    from inclavare.oci.time_offsets import TimeOffset


def set_clocks(plan: Plan, offsets: list[TimeOffset]) -> None:
    """Plan a time namespace for the child. Its clocks can be set only as long as no process is in it."""
    plan.add(SYS_UNSHARE, k.CLONE_NEWTIME, words="make a time namespace")
    lines = "".join([f"{offset.clock} {offset.secs} {offset.nanosecs}\n" for offset in offsets])
    told = ", ".join([f"{offset.clock} {offset.secs} s {offset.nanosecs} ns" for offset in offsets])
    plan.add(
        CALL_WRITE_FILE,
        plan.string("/proc/self/timens_offsets"),
        plan.string(lines),
        len(lines),
        words=f"set the clocks of the time namespace: {told}",
    )


def set_attributes(plan: Plan, process: Process, linux: Linux) -> None:
    """Plan how the process is scheduled, how its reads and writes are, where its memory comes from, and the like."""
    if process.scheduler is not None:
        _set_scheduler(plan, process.scheduler)
    if process.io_priority is not None:
        _set_io_priority(plan, process.io_priority)
    if linux.memory_policy is not None:
        _set_memory_policy(plan, linux.memory_policy)
    if linux.personality is not None:
        number = {"LINUX": k.PER_LINUX, "LINUX32": k.PER_LINUX32}[linux.personality]
        plan.add(SYS_PERSONALITY, number, words=f"set the personality {linux.personality}")


def set_affinity(plan: Plan, member: str, cpus: int) -> None:
    """Plan on which CPUs the process runs; `member` of process.execCPUAffinity says so."""
    words = f"run on the CPUs {number_list.render(cpus)} (process.execCPUAffinity.{member})"
    size = (CPU_MAX + 1) // 8
    plan.add(
        SYS_SCHED_SETAFFINITY,
        0,
        size,
        plan.data(cpus.to_bytes(size, "little")),
        words=words,
        sentences={EINVAL: f"cannot {words}: Invalid argument; the process may use none of them"},
    )


def _set_scheduler(plan: Plan, scheduler: Scheduler) -> None:
    numbers = (
        (48, 4),  # struct sched_attr of the first version
        (POLICIES[scheduler.policy], 4),
        (scheduler.flags, 8),
        (scheduler.nice & 0xFFFF_FFFF, 4),
        (scheduler.priority, 4),
        (scheduler.runtime, 8),
        (scheduler.deadline, 8),
        (scheduler.period, 8),
    )
    attributes = plan.data(b"".join([number.to_bytes(size, "little") for number, size in numbers]))
    words = f"set the scheduling policy {scheduler.policy}"
    sentences = {
        EPERM: f"cannot {words} (process.scheduler): Operation not permitted; it needs CAP_SYS_NICE on the host, with "
        "control groups v1 linux.resources.cpu.realtimeRuntime for real time, and every CPU for SCHED_DEADLINE",
        EBUSY: f"cannot {words} (process.scheduler): the CPUs have not so much time left for deadlines",
    }
    if scheduler.policy == "SCHED_ISO":
        sentences[EINVAL] = "process.scheduler.policy: this kernel has no SCHED_ISO"
    elif scheduler.policy == "SCHED_DEADLINE":
        sentences[EINVAL] = (
            f"cannot {words} (process.scheduler): Invalid argument; the period must lie between "
            "/proc/sys/kernel/sched_deadline_period_min_us and sched_deadline_period_max_us"
        )
    plan.add(SYS_SCHED_SETATTR, 0, attributes, 0, words=words, sentences=sentences)


def _set_io_priority(plan: Plan, wanted: IOPriority) -> None:
    value = IO_CLASSES[wanted.io_class] << k.IOPRIO_CLASS_SHIFT | wanted.priority
    words = f"set the I/O priority {wanted.priority} of {wanted.io_class}"
    needs = "it needs CAP_SYS_NICE on the host"
    plan.add(
        SYS_IOPRIO_SET,
        k.IOPRIO_WHO_PROCESS,
        0,
        value,
        words=words,
        sentences={EPERM: f"cannot {words} (process.ioPriority): Operation not permitted; {needs}"},
    )


def _set_memory_policy(plan: Plan, policy: MemoryPolicy) -> None:
    count = memory_policy.NODE_MAX + 1
    nodes = plan.data(policy.nodes.to_bytes(count // 8, "little"))
    of = f" of nodes {number_list.render(policy.nodes)}" if policy.nodes else ""
    words = f"set the memory policy {policy.mode}{of}"
    plan.add(
        SYS_SET_MEMPOLICY,
        memory_policy.MODES[policy.mode] | policy.flags,
        nodes if policy.nodes else 0,
        count + 1 if policy.nodes else 0,  # the kernel takes one off
        words=words,
        sentences={
            EINVAL: f"cannot {words} (linux.memoryPolicy): Invalid argument; the container has none of these nodes "
            "(linux.resources.cpu.mems, /sys/devices/system/node/has_memory), or the kernel not this mode"
        },
    )
