"""The steps that turn a half-made process into the spec's program: limits, user, capabilities, seccomp, exec.

Shared by the plans of create, run and exec. Order matters, and each place where it does says why. Pure. Hot path.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOENT, EPERM, EROFS

from inclavare.container.plan import (
    CALL_BOUNDING_SET,
    CALL_CHECK_CWD,
    CALL_END_SYNC,
    CALL_EXEC,
    CALL_HOME,
    CALL_LOOK_UP,
    CALL_WAIT_FIFO,
    Data,
    Plan,
)
from inclavare.linux import headers as k
from inclavare.linux.calls import (
    SYS_CAPSET,
    SYS_CHDIR,
    SYS_FCHOWN,
    SYS_PRCTL,
    SYS_PRLIMIT64,
    SYS_SECCOMP,
    SYS_SETGROUPS,
    SYS_SETRESGID,
    SYS_SETRESUID,
    SYS_UMASK,
)
from inclavare.linux.capabilities import mask
from inclavare.linux.rlimits import RLIMITS

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.facts import Facts
    from inclavare.oci.linux import Linux
    from inclavare.oci.process import Process

PATH_MAX = 4096
UMASK = 0o022


class Program:
    """Where the plan keeps what execve needs."""

    __slots__ = ("argv", "envp", "path", "words")

    def __init__(self, path: Data, argv: Data, envp: Data, words: str) -> None:
        self.path = path
        self.argv = argv
        self.envp = envp
        self.words = words


class Filter:
    """A compiled seccomp filter: `code` is an array of struct sock_filter, `flags` are SECCOMP_FILTER_FLAG_*.

    `young` names flags and actions that the kernel is to be asked for first; `listens` tells that an agent answers.
    """

    __slots__ = ("code", "flags", "listens", "young")

    def __init__(self, code: bytes, flags: int, young: list[str]) -> None:
        self.code = code
        self.flags = flags
        self.listens = bool(flags & k.SECCOMP_FILTER_FLAG_NEW_LISTENER)
        self.young = young


def add_death_signal(plan: Plan) -> None:
    """Die with rune while it builds us. To be repeated after a change of credentials, which clears it."""
    plan.add(SYS_PRCTL, k.PR_SET_PDEATHSIG, k.SIGKILL, words="die when rune dies")


def add_not_dumpable(plan: Plan) -> None:
    """Keep the container's processes away from our memory and fds (CVE-2016-9962)."""
    plan.add(SYS_PRCTL, k.PR_SET_DUMPABLE, 0, words="hide this process from the container's")


def add_attributes(plan: Plan, process: Process, linux: Linux) -> None:
    """Plan what few processes ask for. After the process joined its cgroups, before it loses capabilities."""
    if process.scheduler or process.io_priority or linux.memory_policy or linux.personality:
        from inclavare.container import attribute_plan  # noqa: PLC0415  # few processes have them

        attribute_plan.set_attributes(plan, process, linux)


def add_identity(plan: Plan, process: Process, facts: Facts, filter_: Filter | None, *, userns: bool) -> None:
    """Plan everything from rlimits to capabilities, and enter the working directory."""
    for limit in process.rlimits:
        value = plan.data(limit.soft.to_bytes(8, "little") + limit.hard.to_bytes(8, "little"))
        plan.add(
            SYS_PRLIMIT64, 0, RLIMITS[limit.type], value, 0, words=f"set {limit.type} to {limit.soft}:{limit.hard}"
        )
    mode = process.user.umask if process.user.umask is not None else UMASK
    plan.add(SYS_UMASK, mode, words=f"set the umask to {mode:04o}")
    plan.add(SYS_CHDIR, plan.string(process.cwd), words=f"enter the working directory {process.cwd}")
    plan.add(
        CALL_CHECK_CWD,
        words="check that the working directory is inside the root",
        sentences={ENOENT: f"the working directory {process.cwd} is outside of the container's root"},
    )
    if process.no_new_privileges:
        plan.add(SYS_PRCTL, k.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, words="forbid new privileges")
    else:
        add_filter(plan, filter_)  # without no_new_privs only CAP_SYS_ADMIN may: before it is dropped
    capabilities = process.capabilities
    bounding = mask(capabilities.bounding) if capabilities else 0
    plan.add(CALL_BOUNDING_SET, bounding, facts.last_cap, words="drop capabilities from the bounding set")
    _add_user(plan, process, facts, userns=userns)
    _add_capabilities(plan, process)
    add_death_signal(plan)


def add_filter(plan: Plan, filter_: Filter | None) -> None:
    """Plan loading the seccomp filter."""
    if filter_ is not None:
        if filter_.young:
            from inclavare.container import seccomp_plan  # noqa: PLC0415  # few profiles name such

            seccomp_plan.ask_kernel(plan, filter_.young)
        code = plan.data(filter_.code)
        count = len(filter_.code) // 8
        program = plan.words64([count, code])
        listener = plan.take(
            SYS_SECCOMP,
            k.SECCOMP_SET_MODE_FILTER,
            filter_.flags,
            program,
            words=f"load the seccomp filter ({count} instructions)",
        )
        if filter_.listens:
            from inclavare.container import seccomp_plan  # noqa: PLC0415  # few profiles have an agent

            seccomp_plan.give_listener(plan, listener)


def add_last_steps(plan: Plan, process: Process, filter_: Filter | None, fifo: int = -1) -> None:
    """Plan what is between SYNC_READY and the program; `fifo` is where `start` is waited for.

    A filter that needs no privilege comes as late as can be: the fewest of our calls need to be allowed by it. One with
    a listener comes before rune is let go, which hands the listener over and without which nothing must go on.
    """
    late = filter_ if process.no_new_privileges else None
    if late is not None and late.listens:
        add_filter(plan, late)
        late = None
    plan.add(SYS_PRCTL, k.PR_SET_PDEATHSIG, 0, words="live on without rune")
    if fifo >= 0:
        plan.add(CALL_END_SYNC, words="take leave of rune")
        plan.add(CALL_WAIT_FIFO, fifo, words="wait for start")
    add_filter(plan, late)


def add_look_up(plan: Plan, process: Process, envp: Data) -> Program:
    """Plan HOME and the search for the executable, so that `create` can say that it is missing.

    `envp` holds process.env and has room for one more entry.
    """
    env = process.env
    if not any(entry.startswith("HOME=") for entry in env):
        buffer = plan.data(bytes(PATH_MAX))
        word = Data(envp + 8 * len(env))
        plan.add(CALL_HOME, process.user.uid, word, buffer, PATH_MAX, words=f"set HOME for user {process.user.uid}")
    name = process.args[0]
    paths = [entry[5:] for entry in env if entry.startswith("PATH=")]
    path = plan.data(bytes(PATH_MAX))
    missing = f"stat {name}: no such file or directory" if "/" in name else "executable file not found in $PATH"
    start = "unable to start container process: exec:"
    plan.add(
        CALL_LOOK_UP,
        plan.string(name),
        plan.string(paths[-1] if paths else ""),
        path,
        PATH_MAX,
        words=f"find the executable {name}",
        sentences={
            ENOENT: f'{start} "{name}": {missing}',
            EACCES: f'{start} "{name}": permission denied',
        },
    )
    return Program(path, plan.strings(process.args), envp, f'execute "{name}"')


def add_exec(plan: Plan, program: Program) -> None:
    """Plan the end: become the program."""
    plan.add(CALL_EXEC, program.path, program.argv, program.envp, words=program.words)


def _add_user(plan: Plan, process: Process, facts: Facts, *, userns: bool) -> None:
    user = process.user
    if user.uid:
        # A program that is not root may want to open /dev/stdout again; where that cannot be, it goes on without.
        # A terminal stays its group's, which is no group of the container but tty.
        for fd, status in enumerate(facts.stdio):
            if status is not None and not status[0] and status[1] != user.uid:
                plan.add(
                    SYS_FCHOWN,
                    fd,
                    user.uid,
                    -1 if status[2] else user.gid,
                    words=f"give fd {fd} to user {user.uid}",
                    tolerate=(EPERM, EROFS) if userns else (EINVAL, EROFS),
                )
    plan.add(SYS_PRCTL, k.PR_SET_KEEPCAPS, 1, 0, 0, 0, words="keep capabilities over the change of user")
    groups = user.additional_gids
    if not user.keeps_groups:
        listed = plan.data(b"".join([gid.to_bytes(4, "little") for gid in groups]) or bytes(4))
        # A user namespace may forbid setgroups; without groups to set there is nothing lost.
        forbidden = (EPERM,) if userns and not groups else ()
        plan.add(SYS_SETGROUPS, len(groups), listed, words=f"set additional groups {groups}", tolerate=forbidden)
    plan.add(SYS_SETRESGID, user.gid, user.gid, user.gid, words=f"become group {user.gid}")
    plan.add(SYS_SETRESUID, user.uid, user.uid, user.uid, words=f"become user {user.uid}")
    plan.add(SYS_PRCTL, k.PR_SET_KEEPCAPS, 0, 0, 0, 0, words="keep no capabilities any more")


def _add_capabilities(plan: Plan, process: Process) -> None:
    capabilities = process.capabilities
    sets = (
        [mask(capabilities.effective), mask(capabilities.permitted), mask(capabilities.inheritable)]
        if capabilities
        else [0, 0, 0]
    )
    header = plan.data(k.LINUX_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4))
    low = b"".join([(bits & 0xFFFF_FFFF).to_bytes(4, "little") for bits in sets])
    high = b"".join([(bits >> 32).to_bytes(4, "little") for bits in sets])
    plan.add(SYS_CAPSET, header, plan.data(low + high), words="set capabilities")
    plan.add(SYS_PRCTL, k.PR_CAP_AMBIENT, k.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, words="clear ambient capabilities")
    ambient = mask(capabilities.ambient) & sets[1] & sets[2] if capabilities else 0  # the kernel gives no others
    for number in range(64):
        if ambient >> number & 1:
            plan.add(
                SYS_PRCTL,
                k.PR_CAP_AMBIENT,
                k.PR_CAP_AMBIENT_RAISE,
                number,
                0,
                0,
                words=f"raise ambient capability {number}",
            )
