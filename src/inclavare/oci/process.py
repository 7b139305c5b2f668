"""The `process` of a runtime-spec configuration, and of `exec --process FILE`.

runtime-spec: config.md "Process", "POSIX process", "Linux Process", "User". Values are made from their JSON members and
named as the specification names them, in snake case. Hot path.
"""

from __future__ import annotations

from inclavare.oci.reader import UINT16_MAX, UINT32_MAX, UINT64_MAX, Members, show

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.scheduling import ExecCPUAffinity, IOPriority, Scheduler

# An id of all ones means "leave as it is" to the kernel: setuid(-1) would keep root.
ID_MAX = UINT32_MAX - 1

# capabilities(7); the index is the capability's number.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)

# getrlimit(2); the index is the resource's number on x86-64.
RLIMITS = (
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
)


class User:
    """Ids of the process, as the container's user namespace counts them.

    `keeps_groups`: the additional groups are the caller's (crun's annotation run.oci.keep_original_groups).
    """

    __slots__ = ("additional_gids", "gid", "keeps_groups", "uid", "umask")

    def __init__(self, members: Members) -> None:
        self.uid: int = members.need_number("uid", 0, ID_MAX)
        self.gid: int = members.need_number("gid", 0, ID_MAX)
        self.umask: int | None = members.number("umask", 0, 0o777)
        self.additional_gids: list[int] = members.numbers("additionalGids", 0, ID_MAX)
        self.keeps_groups = False
        members.end()


class ConsoleSize:
    """Size of the terminal in characters."""

    __slots__ = ("height", "width")

    def __init__(self, members: Members) -> None:
        self.height: int = members.need_number("height", 0, UINT16_MAX)
        self.width: int = members.need_number("width", 0, UINT16_MAX)
        members.end()


class Capabilities:
    """The five capability sets, each a list of names out of CAPABILITIES.

    Unknown names are left out with a warning: the runtime-spec wants a warning and no failure.
    """

    __slots__ = ("ambient", "bounding", "effective", "inheritable", "permitted")

    def __init__(self, members: Members) -> None:
        self.bounding: list[str] = _capability_names(members, "bounding")
        self.effective: list[str] = _capability_names(members, "effective")
        self.inheritable: list[str] = _capability_names(members, "inheritable")
        self.permitted: list[str] = _capability_names(members, "permitted")
        self.ambient: list[str] = _capability_names(members, "ambient")
        members.end()


class Rlimit:
    """One resource limit; `type` is a name out of RLIMITS, UINT64_MAX means unlimited."""

    __slots__ = ("hard", "soft", "type")

    def __init__(self, members: Members) -> None:
        self.type: str = members.need_choice("type", RLIMITS)
        self.soft: int = members.need_number("soft", 0, UINT64_MAX)
        self.hard: int = members.need_number("hard", 0, UINT64_MAX)
        if self.soft > self.hard:
            raise members.error("soft", f"{self.soft} is above the hard limit of {self.hard}")
        members.end()


class Process:
    """The program to run and what it may do.

    `console_size` is only there with `terminal`. `capabilities` is None when not given. `unknown` and
    `warnings` are those of the whole document (see Members).
    """

    __slots__ = (
        "apparmor_profile",
        "args",
        "capabilities",
        "console_size",
        "cwd",
        "env",
        "exec_cpu_affinity",
        "io_priority",
        "no_new_privileges",
        "oom_score_adj",
        "rlimits",
        "scheduler",
        "selinux_label",
        "terminal",
        "unknown",
        "user",
        "warnings",
    )

    def __init__(self, members: Members) -> None:
        self.terminal: bool = members.flag("terminal")
        console_size = members.optional_child("consoleSize")
        self.console_size: ConsoleSize | None = None if console_size is None else ConsoleSize(console_size)
        if not self.terminal:
            self.console_size = None
        # runc and crun run as root when `user` is not there at all.
        self.user: User = User(members.optional_child("user") or Members({"uid": 0, "gid": 0}, members, "user"))
        self.args: list[str] = members.texts("args")
        if not self.args:
            raise members.error("args", "args must not be empty", hint="name the program to run as the first item")
        self.env: list[str] = _environment(members)
        self.cwd: str = members.need_absolute_path("cwd")
        capabilities = members.optional_child("capabilities")
        self.capabilities: Capabilities | None = None if capabilities is None else Capabilities(capabilities)
        self.rlimits: list[Rlimit] = _rlimits(members)
        self.no_new_privileges: bool = members.flag("noNewPrivileges")
        self.oom_score_adj: int | None = members.number("oomScoreAdj", -1000, 1000)
        self.apparmor_profile: str | None = members.text("apparmorProfile")
        self.selinux_label: str | None = members.text("selinuxLabel")
        self.scheduler: Scheduler | None = _scheduler(members)
        self.io_priority: IOPriority | None = _io_priority(members)
        self.exec_cpu_affinity: ExecCPUAffinity | None = _exec_cpu_affinity(members)
        self.unknown: list[str] = members.unknown
        self.warnings: list[str] = members.warnings
        members.end()


def _scheduler(members: Members) -> Scheduler | None:
    child = members.optional_child("scheduler")
    if child is None:
        return None
    from inclavare.oci.scheduling import Scheduler  # noqa: PLC0415  # few processes have one

    return Scheduler(child)


def _io_priority(members: Members) -> IOPriority | None:
    child = members.optional_child("ioPriority")
    if child is None:
        return None
    from inclavare.oci.scheduling import IOPriority  # noqa: PLC0415  # few processes have one

    return IOPriority(child)


def _exec_cpu_affinity(members: Members) -> ExecCPUAffinity | None:
    child = members.optional_child("execCPUAffinity")
    if child is None:
        return None
    from inclavare.oci.scheduling import ExecCPUAffinity  # noqa: PLC0415  # few processes have one

    return ExecCPUAffinity(child)


def _capability_names(members: Members, name: str) -> list[str]:
    names = members.texts(name)
    for index, capability in enumerate(names):
        if capability not in CAPABILITIES:
            members.warn(name, f"unknown capability {show(capability)} is left out", index)
    return [capability for capability in names if capability in CAPABILITIES]


def _environment(members: Members) -> list[str]:
    env = members.texts("env")
    for index, entry in enumerate(env):
        if entry.find("=") < 1:
            raise members.error("env", f"invalid environment variable {show(entry)}, must be NAME=VALUE", index)
    return env


def _rlimits(members: Members) -> list[Rlimit]:
    limits: list[Rlimit] = []
    seen: list[str] = []
    for index, child in enumerate(members.children("rlimits")):
        limit = Rlimit(child)
        if limit.type in seen:
            raise members.error("rlimits", f"{limit.type} is limited twice", index)
        seen.append(limit.type)
        limits.append(limit)
    return limits


def last_of_each(env: list[str]) -> list[str]:
    """Give an environment without what a later entry of the same name replaces: getenv(3) would find the first."""
    entries = {entry.partition("=")[0]: entry for entry in env}
    return list(entries.values()) if len(entries) < len(env) else env
