"""Runs another process in a container: a plan that joins the container's namespaces and cgroups.

In an enclave container the process is a proxy that runs its command in the enclave through the agent. Hot path.
"""

from __future__ import annotations

import _socket
import os
from errno import ENOSYS

from inclavare.container import facts, lifecycle, store
from inclavare.container.executor import Run
from inclavare.container.filter_cache import read_filter
from inclavare.container.plan import CALL_AGENT_EXEC, CALL_SYNC, Plan
from inclavare.container.process_plan import (
    Filter,
    add_attributes,
    add_death_signal,
    add_exec,
    add_identity,
    add_last_steps,
    add_look_up,
    add_not_dumpable,
)
from inclavare.container.steps import (
    NAMESPACES,
    SYNC_LISTENER,
    SYNC_READY,
    add_cgroup_join,
    add_clone,
    add_close_on_exec,
    add_console,
    add_labels,
    become_root,
    write_settings,
)
from inclavare.errors import HostError, StateError
from inclavare.linux import cgroups, process
from inclavare.linux import headers as k
from inclavare.linux.calls import SYS_KEYCTL, SYS_PRCTL, SYS_SETNS, SYS_SETSID
from inclavare.linux.files import write_pid_file
from inclavare.oci import jsontext, spec
from inclavare.oci.process import last_of_each

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.console import Console
    from inclavare.container.store import Record
    from inclavare.log import Log
    from inclavare.oci.process import Process
    from inclavare.oci.spec import Spec


class Request:
    """What the plan of another process is made from. fds are -1 where there is none."""

    __slots__ = (
        "agent_fd",
        "agent_request",
        "cgroup_fds",
        "console_fd",
        "facts",
        "filter",
        "id",
        "pidfd",
        "preserve_fds",
        "process",
        "rootless",
        "spec",
    )

    def __init__(self, container_id: str, document: Spec, process_: Process, host: facts.Facts) -> None:
        self.id = container_id
        self.spec = document
        self.process = process_
        self.facts = host
        self.pidfd = -1
        self.cgroup_fds: list[tuple[str, int]] = []
        self.console_fd = -1
        self.filter: Filter | None = None
        self.preserve_fds: list[int] = []
        self.rootless = False
        self.agent_fd = -1
        self.agent_request = b""


def plan_exec(request: Request) -> Plan:
    """Plan the process up to its program (or to the agent that runs it in the enclave)."""
    plan, proc = Plan(), request.process
    flags = 0
    for namespace in request.spec.linux.namespaces:
        flags |= NAMESPACES[namespace.type]
    userns = bool(flags & k.CLONE_NEWUSER)
    add_not_dumpable(plan)
    if userns and request.rootless:  # its owner has the right to join the others, but only inside
        plan.add(SYS_SETNS, request.pidfd, k.CLONE_NEWUSER, words="join the container's user namespace")
        flags &= ~k.CLONE_NEWUSER
    if flags & k.CLONE_NEWPID:
        plan.add(SYS_SETNS, request.pidfd, k.CLONE_NEWPID, words="join the container's pid namespace")
    add_clone(plan, 0)
    add_death_signal(plan)
    plan.add(SYS_SETSID, words="start a session")
    add_close_on_exec(plan, request.preserve_fds)
    affinity = proc.exec_cpu_affinity
    if affinity is not None:
        from inclavare.container.attribute_plan import set_affinity  # noqa: PLC0415  # few processes have one

        if affinity.initial:
            set_affinity(plan, "initial", affinity.initial)
    add_cgroup_join(plan, request.cgroup_fds)
    if affinity is not None and affinity.final:
        set_affinity(plan, "final", affinity.final)
    add_labels(plan, proc)
    write_settings(plan, {}, proc)
    rest = flags & ~k.CLONE_NEWPID
    if rest:
        plan.add(SYS_SETNS, request.pidfd, rest, words="join the container's other namespaces")
    if userns:
        become_root(plan)
    plan.add(
        SYS_KEYCTL,
        k.KEYCTL_JOIN_SESSION_KEYRING,
        plan.string(f"_ses.{request.id}"),
        words="join the container's session keyring",
        tolerate=(ENOSYS,),
    )
    if request.console_fd >= 0:
        add_console(plan, request.console_fd, proc, 0)
    add_attributes(plan, proc, request.spec.linux)
    if request.agent_fd >= 0:
        _add_agent(plan, request, userns=userns)
        return plan
    add_identity(plan, proc, request.facts, request.filter, userns=userns)
    program = add_look_up(plan, proc, plan.strings(proc.env, spare=1))
    plan.add(CALL_SYNC, SYNC_READY, words="report that all is set up")
    add_last_steps(plan, proc, request.filter)
    add_exec(plan, program)
    return plan


class Executed:
    """A process that runs in the container; it is our child. `master` is its terminal, or -1."""

    __slots__ = ("master", "pid")

    def __init__(self, pid: int, master: int) -> None:
        self.pid = pid
        self.master = master


class Options:
    """Of the command line. `terminal`: a foreground command takes the process's terminal itself, maybe as it is."""

    __slots__ = ("cgroup", "console_socket", "pid_file", "pidfd_socket", "preserve_fds", "terminal", "terminal_as_is")

    def __init__(self) -> None:
        self.cgroup = ""  # below the container's own
        self.console_socket = ""
        self.pid_file = ""
        self.pidfd_socket = ""
        self.preserve_fds: list[int] = []
        self.terminal = self.terminal_as_is = False


def container_spec(record: Record, *, ignore_paused: bool = False) -> Spec:
    """Give the configuration that the container was made with. Raises StateError when it does not run."""
    require_running(record, ignore_paused=ignore_paused)
    return spec.parse(jsontext.loads(record.read(store.CONFIG)))


def require_running(record: Record, *, ignore_paused: bool = False) -> None:
    """Raise StateError when nothing can be executed in the container.

    A process in a paused container waits with the others until it goes on: only with `ignore_paused`.
    """
    now = lifecycle.settled_status(record)
    if now in ("stopped", "creating"):
        raise StateError(f"cannot exec in a {now} container", "`rune state` tells what it does.")
    if now == "paused" and not ignore_paused:
        raise StateError("cannot exec in a paused container", "Resume it first, or wait for that: --ignore-paused.")


def make_request(
    record: Record, document: Spec, process_: Process, stdio: tuple[int, ...] = (0, 1, 2), filter_: Filter | None = None
) -> Request:
    """Give what the planner needs, without what must be opened for it. `filter_`: where `document` has no profile.

    Labels, capabilities and the oomScoreAdj that the process does not name are the container's, as with runc.
    """
    process_.env = last_of_each(process_.env)
    container = document.process
    if process_.capabilities is None:
        process_.capabilities = container.capabilities
    if process_.oom_score_adj is None:
        process_.oom_score_adj = container.oom_score_adj
    process_.apparmor_profile = process_.apparmor_profile or container.apparmor_profile
    process_.selinux_label = process_.selinux_label or container.selinux_label
    facts.check_labels(process_, "process.", enclave=record.enclave is not None)
    process_.user.keeps_groups = container.user.keeps_groups
    files = [facts.read_stdio(fd) for fd in stdio]
    request = Request(record.id, document, process_, facts.Facts({}, facts.read_last_cap(), files))
    request.filter = filter_
    request.rootless = os.geteuid() != 0
    profile = document.linux.seccomp
    if profile is not None:
        request.filter = read_filter(record, profile)
    return request


class Execution:
    """A process on its way into a container: to be followed to SYNC_READY with answer()."""

    __slots__ = ("_console", "_log", "_options", "_record", "_spec", "master", "run")

    def __init__(
        self,
        record: Record,
        request: Request,
        options: Options,
        log: Log,
        stdio: tuple[int, int, int] | tuple[()] = (),
    ) -> None:
        """Start it. `stdio`: what it has in place of ours."""
        self._record = record
        self._spec = request.spec
        self._options = options
        self._log = log
        self.master = -1
        self._console: Console | None = None
        started = False
        opened: list[int] = []
        try:
            request.pidfd = os.pidfd_open(record.pid)
            opened.append(request.pidfd)
            if not process.is_same(record.pid, record.start_time):
                raise StateError("cannot exec in a stopped container")
            groups = cgroups.below(record.cgroups, options.cgroup) if options.cgroup else record.cgroups
            request.cgroup_fds = cgroups.open_join_fds(groups)
            opened += [fd for _, fd in request.cgroup_fds]
            self._console = _open_console(request, options)
            if self._console is not None:
                request.console_fd = self._console.theirs
                opened.append(self._console.theirs)
            if record.enclave is not None:
                request.agent_fd = connect_agent(record)
                opened.append(request.agent_fd)
                request.agent_request = _agent_request(request.process)
            request.preserve_fds = options.preserve_fds
            self.run = Run(plan_exec(request), [*opened, *options.preserve_fds], log, stdio)
            started = True
        except ProcessLookupError:
            raise StateError("cannot exec in a stopped container") from None
        finally:
            if self._console is not None and not started:
                self._console.close()
            for fd in opened:
                os.close(fd)

    def answer(self, sync: int) -> None:
        """Do what is to be done at a sync point."""
        record, options, run = self._record, self._options, self.run
        if sync == SYNC_LISTENER:
            from inclavare.container import listener  # noqa: PLC0415  # few profiles have an agent

            listener.hand_over(run, record, self._spec, "running", self._log)
            return
        if self._console is not None and options.terminal:
            self.master = self._console.receive(as_is=options.terminal_as_is)
        if record.systemd_unit and cgroups.UNIFIED not in record.cgroups:
            from inclavare.linux import systemd_cgroup  # noqa: PLC0415  # only for systemd's driver

            systemd_cgroup.attach(record.systemd_unit, run.pid)
        if options.pidfd_socket:
            from inclavare.container import pidfd  # noqa: PLC0415  # rarely asked for

            pidfd.send(options.pidfd_socket, run.pid, "setns")
        if options.pid_file:
            write_pid_file(options.pid_file, run.pid)

    def end(self) -> None:
        """Give a detached process up: end it, and close what its terminal has of ours."""
        self.run.end()
        if self._console is not None:
            self._console.close()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


def execute(record: Record, request: Request, options: Options, log: Log) -> Executed:
    """Start the process. On failure nothing of it is left."""
    execution = Execution(record, request, options, log)
    execution.run.follow(execution.answer, SYNC_READY)
    return Executed(execution.run.pid, execution.master)


def _add_agent(plan: Plan, request: Request, *, userns: bool) -> None:
    """The proxy runs nothing of the image: it needs the user, not the working directory or the filter."""
    add_identity(plan, request.process, request.facts, None, userns=userns)
    plan.add(CALL_SYNC, SYNC_READY, words="report that all is set up")
    plan.add(SYS_PRCTL, k.PR_SET_PDEATHSIG, 0, words="live on without rune")
    message = request.agent_request
    plan.add(
        CALL_AGENT_EXEC,
        request.agent_fd,
        plan.data(message),
        len(message),
        words=f'run "{request.process.args[0]}" in the enclave',
    )


def _open_console(request: Request, options: Options) -> Console | None:
    if not request.process.terminal:
        return None
    from inclavare.container.console import Console  # noqa: PLC0415  # only for terminals

    return Console(options.console_socket)


def connect_agent(record: Record) -> int:
    """Return a socket to the agent of an enclave container. Raises HostError."""
    directory = os.open(record.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        client.connect(f"/proc/self/fd/{directory}/{store.AGENT}")
    except OSError as error:
        client.close()
        raise HostError(f"cannot reach the agent of container {record.id}: {error.strerror}") from error
    finally:
        os.close(directory)
    return client.detach()


def _agent_request(process_: Process) -> bytes:
    from inclavare.enclave import agent, config  # noqa: PLC0415  # plain containers do not need it

    env = [entry for entry in process_.env if entry.partition("=")[0] not in config.VARIABLES]
    return agent.execute_request(process_.args, env)
