"""The `linux.seccomp` object of a runtime-spec configuration, as it stands: nothing is compiled here.

runtime-spec: config-linux.md "Seccomp". Whether a system call of that name exists is the compiler's question. Hot path.
"""

from __future__ import annotations

from inclavare.oci.reader import UINT16_MAX, UINT64_MAX, Members

ACTIONS = (
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
)
OPERATORS = (
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)
ARCHITECTURES = (
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
)
FLAGS = (
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
)


class SeccompArg:
    """A condition on one argument of a system call; `value_two` is the value compared with under SCMP_CMP_MASKED_EQ."""

    __slots__ = ("index", "op", "value", "value_two")

    def __init__(self, members: Members) -> None:
        self.index: int = members.need_number("index", 0, 5)
        self.value: int = members.need_number("value", 0, UINT64_MAX)
        self.value_two: int = members.number("valueTwo", 0, UINT64_MAX) or 0
        self.op: str = members.need_choice("op", OPERATORS)
        members.end()


class SeccompSyscall:
    """A rule: the action for system calls of these names when all conditions of `args` hold."""

    __slots__ = ("action", "args", "errno_ret", "names")

    def __init__(self, members: Members) -> None:
        self.names: list[str] = members.texts("names")
        if not self.names:
            raise members.error("names", "is required and must not be empty")
        if "" in self.names:
            raise members.error("names", "must not be empty", self.names.index(""))
        self.action: str = members.need_choice("action", ACTIONS)
        self.errno_ret: int | None = members.number("errnoRet", 0, UINT16_MAX)
        self.args: list[SeccompArg] = [SeccompArg(child) for child in members.children("args")]
        members.end()


class Seccomp:
    """The filter: rules, and the action for everything else."""

    __slots__ = (
        "architectures",
        "default_action",
        "default_errno_ret",
        "flags",
        "listener_metadata",
        "listener_path",
        "syscalls",
    )

    def __init__(self, members: Members) -> None:
        self.default_action: str = members.need_choice("defaultAction", ACTIONS)
        self.default_errno_ret: int | None = members.number("defaultErrnoRet", 0, UINT16_MAX)
        self.architectures: list[str] = members.choices("architectures", ARCHITECTURES)
        self.flags: list[str] = members.choices("flags", FLAGS)
        self.listener_path: str | None = members.text("listenerPath")
        self.listener_metadata: str | None = members.text("listenerMetadata")
        self.syscalls: list[SeccompSyscall] = [SeccompSyscall(child) for child in members.children("syscalls")]
        members.end()
