"""Steps that create and exec share, and the points where a plan waits for rune. Pure. Hot path."""

from __future__ import annotations

from errno import EPERM

from inclavare.container.plan import CALL_CLONE, CALL_CONSOLE, CALL_EXIT, CALL_SEND_PID, CALL_WRITE_FILE, Plan
from inclavare.container.process_plan import add_death_signal, add_not_dumpable
from inclavare.linux import headers as k
from inclavare.linux.calls import SYS_CLOSE, SYS_CLOSE_RANGE, SYS_SETGROUPS, SYS_SETRESGID, SYS_SETRESUID, SYS_WRITE
from inclavare.oci.sysctl import sysctl_file

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.process import Process

SYNC_MAP = 1  # the user namespace wants its mappings
SYNC_HOOKS = 2  # the namespaces exist: prestart and createRuntime hooks
SYNC_READY = 3  # all is set up
SYNC_NET = 4  # the network namespace wants its devices
SYNC_FILLED = 5  # the root is filled, not yet pivoted: createContainer hooks
SYNC_LISTENER = 6  # the filter is in force, the agent wants its listener

NAMESPACES = {
    "user": k.CLONE_NEWUSER,
    "mount": k.CLONE_NEWNS,
    "uts": k.CLONE_NEWUTS,
    "ipc": k.CLONE_NEWIPC,
    "network": k.CLONE_NEWNET,
    "pid": k.CLONE_NEWPID,
    "cgroup": k.CLONE_NEWCGROUP,
    "time": k.CLONE_NEWTIME,
}


def add_clone(plan: Plan, flags: int) -> None:
    """Plan the container's process. The executor names its pid and ends; all later steps are the child's."""
    clone = plan.take(CALL_CLONE, words="clone the container's process" + _flag_words(flags))
    plan.add(CALL_SEND_PID, clone, words="tell its pid")
    plan.add(CALL_EXIT, 0, words="end the executor")
    plan.ops[-3].args = (flags | k.CLONE_PARENT, len(plan.ops))


def add_close_on_exec(plan: Plan, preserved: list[int]) -> None:
    """Plan that the program gets these fds beside its stdio, and no other."""
    first, last = 3, 0xFFFF_FFFF
    for fd in (*preserved, last + 1):
        if first < fd:
            plan.add(SYS_CLOSE_RANGE, first, fd - 1, k.CLOSE_RANGE_CLOEXEC, words="let no fd through to the program")
        first = fd + 1


def add_cgroup_join(plan: Plan, fds: list[tuple[str, int]]) -> None:
    """Plan joining cgroups: a process with one thread that moves itself waits for nobody (performance.md)."""
    for controller, fd in fds:
        plan.add(SYS_WRITE, fd, plan.string("0"), 1, words=f"join the {controller} cgroup")
        plan.add(SYS_CLOSE, fd, words="close it")


def add_console(plan: Plan, socket: int, process: Process, flags: int) -> None:
    """Plan a terminal of the container's own devpts, whose master goes to `socket`."""
    size = process.console_size
    window = (size.height | size.width << 16) if size else 0
    plan.add(CALL_CONSOLE, socket, window, process.user.uid, flags, words="open the terminal")


def become_root(plan: Plan) -> None:
    """Plan to be root in the user namespace that was entered."""
    plan.add(SYS_SETGROUPS, 0, 0, words="drop additional groups", tolerate=(EPERM,))
    plan.add(SYS_SETRESGID, 0, 0, 0, words="become group 0 of the user namespace")
    plan.add(SYS_SETRESUID, 0, 0, 0, words="become user 0 of the user namespace")
    add_not_dumpable(plan)
    add_death_signal(plan)


def add_labels(plan: Plan, process: Process) -> None:
    """Plan labels for the execve at the end: before keys are made, by the host's /proc (CVE-2019-16884)."""
    if process.apparmor_profile or process.selinux_label:
        from inclavare.container import label_plan  # noqa: PLC0415  # only on hosts with such a module

        label_plan.label_process(plan, process)


def write_settings(plan: Plan, sysctl: dict[str, str], process: Process) -> None:
    """Through the host's /proc, which shows the namespaces of who looks: the image cannot redirect these writes."""
    for name, value in sysctl.items():
        path = f"/proc/sys/{sysctl_file(name)}"
        _write(plan, path, value, f"set sysctl {name} to {value!r}")
    if process.oom_score_adj is not None:
        _write(
            plan,
            "/proc/self/oom_score_adj",
            str(process.oom_score_adj),
            f"set oom_score_adj to {process.oom_score_adj}",
        )


def _write(plan: Plan, path: str, value: str, words: str) -> None:
    plan.add(CALL_WRITE_FILE, plan.string(path), plan.string(value), len(value.encode()), words=words)


def _flag_words(flags: int) -> str:
    names = [name for name, flag in NAMESPACES.items() if flags & flag]
    return f" with new namespaces: {' '.join(names)}" if names else ""
