"""process.scheduler, ioPriority and execCPUAffinity: a process's turn at CPUs and disks (config.md "Linux Process").

The rules are those of sched_setattr(2) and ioprio_set(2). Parts of the sentences about SCHED_DEADLINE are what scripts
look for.
"""

from __future__ import annotations

from inclavare.oci import number_list
from inclavare.oci.reader import INT32_MAX, INT64_MAX, UINT64_MAX, Members

# linux/sched.h; ISO was never in a kernel of kernel.org, others have it.
POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}  # linux/ioprio.h
CPU_MAX = (1 << 13) - 1  # the kernel's largest NR_CPUS
_CLAMPS = ("SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX")
_REAL_TIME = ("SCHED_FIFO", "SCHED_RR")
_DEADLINE = "SCHED_DEADLINE"
_PRIORITY_MAX = 99
_RUNTIME_MIN = 1024  # ns: the kernel counts bandwidth in units of 2**10


class Scheduler:
    """A policy out of POLICIES, and what it goes by; `flags` are SCHED_FLAG_*, times are nanoseconds."""

    __slots__ = ("deadline", "flags", "nice", "period", "policy", "priority", "runtime")

    def __init__(self, members: Members) -> None:
        self.policy: str = members.need_choice("policy", tuple(POLICIES))
        self.nice: int = members.number("nice", -20, 19) or 0
        self.priority: int = members.number("priority", -INT32_MAX - 1, INT32_MAX) or 0
        self.flags: int = 0
        for index, flag in enumerate(members.choices("flags", tuple(FLAGS))):
            if flag in _CLAMPS:
                raise members.error("flags", f"{flag} needs a value, for which the runtime-spec has no member", index)
            self.flags |= FLAGS[flag]
        runtime = members.number("runtime", 0, UINT64_MAX)
        deadline = members.number("deadline", 0, UINT64_MAX)
        self.runtime: int = runtime or 0
        self.deadline: int = deadline or 0
        self.period: int = members.number("period", 0, UINT64_MAX) or 0
        if self.policy in _REAL_TIME:
            if not 1 <= self.priority <= _PRIORITY_MAX:
                raise members.error("priority", f"{self.priority} is not between 1 and 99, as {self.policy} needs it")
        elif self.priority:
            raise members.error("priority", f"{self.policy} has no priority, only {' and '.join(_REAL_TIME)} have")
        if self.policy == _DEADLINE:
            for name, value in (("runtime", runtime), ("deadline", deadline)):
                if value is None:
                    raise members.error(name, f"sched_setattr: `{_DEADLINE}` requires `{name}`")
            self._check_times(members)
        else:
            for name, time in (("runtime", runtime), ("deadline", deadline), ("period", self.period)):
                if time:
                    raise members.error(name, f"{self.policy} has none, only {_DEADLINE} has")
        members.end()

    def _check_times(self, members: Members) -> None:
        """Check that runtime <= deadline <= period; a period that is not given is the deadline."""
        what = f"sched_setattr: `{_DEADLINE}`"
        if not self.runtime:
            raise members.error("runtime", f"{what} runtime must be greater than 0")
        times = [("runtime", self.runtime, _RUNTIME_MIN), ("deadline", self.deadline, 0), ("period", self.period, 0)]
        for name, time, low in times:
            if not low <= time <= INT64_MAX:
                raise members.error(name, f"{what} {name} ({time}) must be between {low} and {INT64_MAX} ns")
        if self.runtime > self.deadline:
            raise members.error("runtime", f"{what} runtime ({self.runtime}) must be <= deadline ({self.deadline})")
        if self.period and self.deadline > self.period:
            raise members.error("deadline", f"{what} deadline ({self.deadline}) must be <= period ({self.period})")


class IOPriority:
    """A class out of IO_CLASSES and the priority in it, 0 is served first; for idle processes it means nothing."""

    __slots__ = ("io_class", "priority")

    def __init__(self, members: Members) -> None:
        self.io_class: str = members.need_choice("class", tuple(IO_CLASSES))
        self.priority: int = members.number("priority", 0, 7) or 0
        members.end()


class ExecCPUAffinity:
    """CPUs of a process of `exec`, a bit for each: before it joins the container's cgroup and after. 0: not given."""

    __slots__ = ("final", "initial")

    def __init__(self, members: Members) -> None:
        self.initial: int = number_list.parse(members, "initial", CPU_MAX)
        self.final: int = number_list.parse(members, "final", CPU_MAX)
        members.end()
