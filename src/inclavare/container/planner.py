"""Plans a container: (spec, facts of the host, what was opened for it) -> Plan. Pure.

`plan_create` reads as the definition of a container, in the order it happens. The first steps run in the executor, up
to the clone; all others in the container's own process. Hot path.
"""

from __future__ import annotations

from errno import EACCES, ENOENT, ENOSYS

from inclavare.container.mount_plan import CgroupMount, Root
from inclavare.container.plan import (
    CALL_END_SYNC,
    CALL_PAL_INIT,
    CALL_PAL_LOAD,
    CALL_PAL_RUN,
    CALL_RUNELET,
    CALL_STORE,
    CALL_SYNC,
    CALL_WAIT_FIFO,
    CONSOLE_BIND,
    PAL_WAIT_STATUS,
    Data,
    Plan,
)
from inclavare.container.process_plan import (
    Filter,
    add_attributes,
    add_death_signal,
    add_exec,
    add_filter,
    add_identity,
    add_last_steps,
    add_look_up,
    add_not_dumpable,
)
from inclavare.container.steps import (
    NAMESPACES,
    SYNC_HOOKS,
    SYNC_MAP,
    SYNC_NET,
    SYNC_READY,
    add_cgroup_join,
    add_clone,
    add_close_on_exec,
    add_console,
    add_labels,
    become_root,
    write_settings,
)
from inclavare.linux import headers as k
from inclavare.linux.calls import (
    SYS_BPF,
    SYS_CHDIR,
    SYS_CLOSE,
    SYS_IOCTL,
    SYS_KEYCTL,
    SYS_OPENAT,
    SYS_PRCTL,
    SYS_SENDMSG,
    SYS_SETDOMAINNAME,
    SYS_SETHOSTNAME,
    SYS_SETNS,
    SYS_SETSID,
    SYS_SOCKET,
    SYS_UNSHARE,
)

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.facts import Facts
    from inclavare.oci.process import Process
    from inclavare.oci.spec import Spec


class Enclave:
    """What the runelet is told. `runelet_fd` and `agent_fd` are inherited fds; paths are the host's."""

    __slots__ = (
        "agent_fd",
        "args",
        "emulator",
        "log_level",
        "pal",
        "preload",
        "runelet_fd",
        "seed",
        "signals",
        "wait_status",
    )

    def __init__(self) -> None:
        self.runelet_fd = -1
        self.agent_fd = -1
        self.pal = ""
        self.args = ""
        self.log_level = ""
        self.preload: list[str] = []
        self.emulator = ""
        self.seed = b""
        self.signals: list[int] = []
        self.wait_status = False


class Request:
    """All that the plan of a container is made from. fds are -1 where there is none."""

    __slots__ = (
        "bundle",
        "cgroup_directory_fd",
        "cgroup_fds",
        "cgroup_mounts",
        "cgroup_v2",
        "console_fd",
        "device_filter",
        "enclave",
        "facts",
        "fifo_fd",
        "filter",
        "id",
        "idmap_fds",
        "net_fd",
        "new_keyring",
        "no_pivot",
        "preserve_fds",
        "rootfs",
        "rootless",
        "spec",
    )

    def __init__(self, spec: Spec, container_id: str, bundle: str, rootfs: str, facts: Facts) -> None:
        self.spec = spec
        self.id = container_id
        self.bundle = bundle
        self.rootfs = rootfs
        self.facts = facts
        self.cgroup_fds: list[tuple[str, int]] = []
        self.cgroup_mounts: list[CgroupMount] = []
        self.cgroup_v2 = False
        self.cgroup_directory_fd = -1
        self.device_filter = b""
        self.console_fd = -1
        self.fifo_fd = -1
        self.filter: Filter | None = None
        self.idmap_fds: dict[int, int] = {}
        self.net_fd = -1
        self.new_keyring = True
        self.no_pivot = False
        self.preserve_fds: list[int] = []
        self.rootless = False
        self.enclave: Enclave | None = None


def plan_create(request: Request) -> Plan:
    """Plan a container up to its program. With a fifo the program waits for `rune start`."""
    plan, spec, process = Plan(), request.spec, request.spec.process
    flags, joined = _namespaces(spec)
    userns = bool(flags & k.CLONE_NEWUSER) or "user" in joined
    root = Root(
        plan,
        spec,
        request.facts,
        request.bundle,
        request.rootfs,
        request.cgroup_mounts,
        userns=userns,
        cgroupns=bool(flags & k.CLONE_NEWCGROUP),
        cgroup_v2=request.cgroup_v2,
        no_pivot=request.no_pivot,
        idmaps=request.idmap_fds,
    )
    if not request.rootless:  # else rune could not write the mappings: it becomes so behind them
        add_not_dumpable(plan)
    if userns:
        root.open_with_rights()
    if request.device_filter:
        attach_device_filter(plan, request)
    _join(plan, joined)
    if spec.linux.time_offsets:
        from inclavare.container import attribute_plan  # noqa: PLC0415  # few containers have them

        attribute_plan.set_clocks(plan, spec.linux.time_offsets)
        flags &= ~k.CLONE_NEWTIME
    add_clone(plan, flags & ~k.CLONE_NEWCGROUP)
    add_death_signal(plan)
    if flags & k.CLONE_NEWUSER:
        plan.add(CALL_SYNC, SYNC_MAP, words="wait for the user mappings")
    if userns:
        become_root(plan)
    plan.add(SYS_SETSID, words="start a session")
    envp = plan.strings(process.env, spare=1)
    pal = _enter_runelet(plan, request.enclave, envp) if request.enclave else Data(0)
    add_close_on_exec(plan, request.preserve_fds)
    add_cgroup_join(plan, request.cgroup_fds)
    if flags & k.CLONE_NEWCGROUP:
        plan.add(SYS_UNSHARE, k.CLONE_NEWCGROUP, words="make a cgroup namespace")
    add_labels(plan, process)
    if request.new_keyring:
        plan.add(
            SYS_KEYCTL,
            k.KEYCTL_JOIN_SESSION_KEYRING,
            plan.string(f"_ses.{request.id}"),
            words="join a session keyring of its own",
            tolerate=(ENOSYS,),
        )
    _set_names(plan, spec)
    if flags & k.CLONE_NEWNET:
        raise_loopback(plan)
    if request.net_fd >= 0:
        _send_netlink(plan, request.net_fd)
    write_settings(plan, spec.linux.sysctl, process)
    if request.enclave:
        plan.add(SYS_CHDIR, plan.string(request.rootfs), words=f"enter {request.rootfs}")
        plan.add(CALL_PAL_LOAD, pal, words=f"load the enclave runtime {request.enclave.pal}")
    root.open_sources()
    if spec.hooks.prestart or spec.hooks.create_runtime:
        plan.add(CALL_SYNC, SYNC_HOOKS, words="wait for the hooks prestart and createRuntime")
    if spec.hooks.create_container:
        from inclavare.container import inside_hooks  # noqa: PLC0415  # most containers have none

        inside_hooks.fill_first(plan, root, request.rootfs)
    else:
        root.enter()
        root.leave()
        root.fill()
    if request.console_fd >= 0:
        add_console(plan, request.console_fd, process, CONSOLE_BIND)
    if spec.linux.mount_label:
        from inclavare.container import label_plan  # noqa: PLC0415  # few containers have labels

        label_plan.label_queues(plan, spec.mounts, spec.linux.mount_label)
    root.finish()
    add_attributes(plan, process, spec.linux)
    add_identity(plan, process, request.facts, request.filter, userns=userns)
    if request.enclave:
        _run_enclave(plan, request, process, pal, envp)
    else:
        _run_program(plan, request, process, envp)
    return plan


def attach_device_filter(plan: Plan, request: Request) -> None:
    """Plan the device filter: in cgroup v2 a BPF program. The executor loads it, the planner has no system calls."""
    from inclavare.linux import device_filter  # noqa: PLC0415  # only cgroup v2 needs it

    count = len(request.device_filter) // 8
    code, licence = plan.data(request.device_filter), plan.string("Apache-2.0")
    load = plan.words64(device_filter.load_attributes(code, count, licence))
    program = plan.take(
        SYS_BPF, device_filter.BPF_PROG_LOAD, load, 48, words=f"load the device filter ({count} instructions)"
    )
    attach = plan.words64(device_filter.attach_attributes(request.cgroup_directory_fd))
    plan.add(CALL_STORE, Data(attach + 4), program, words="name it for the cgroup")
    plan.add(SYS_BPF, device_filter.BPF_PROG_ATTACH, attach, 16, words="attach it to the cgroup")
    plan.add(SYS_CLOSE, program, words="close it")


def _namespaces(spec: Spec) -> tuple[int, dict[str, str]]:
    """Give the CLONE_NEW* flags of new namespaces, and the paths of those to join."""
    flags, joined = 0, {}
    for namespace in spec.linux.namespaces:
        if namespace.path:
            joined[namespace.type] = namespace.path
        else:
            flags |= NAMESPACES[namespace.type]
    return flags, joined


def _join(plan: Plan, joined: dict[str, str]) -> None:
    # The user namespace first: it gives the right to enter those it owns.
    for kind in sorted(joined, key=lambda kind: kind != "user"):
        path = joined[kind]
        fd = plan.take(
            SYS_OPENAT,
            k.AT_FDCWD,
            plan.string(path),
            k.O_RDONLY | k.O_CLOEXEC,
            0,
            words=f"open the {kind} namespace {path}",
        )
        plan.add(SYS_SETNS, fd, NAMESPACES[kind], words=f"join the {kind} namespace {path}")
        plan.add(SYS_CLOSE, fd, words="close it")


def _set_names(plan: Plan, spec: Spec) -> None:
    if spec.hostname:
        plan.add(
            SYS_SETHOSTNAME,
            plan.string(spec.hostname),
            len(spec.hostname.encode()),
            words=f"set the hostname {spec.hostname}",
        )
    if spec.domainname:
        plan.add(
            SYS_SETDOMAINNAME,
            plan.string(spec.domainname),
            len(spec.domainname.encode()),
            words=f"set the domain name {spec.domainname}",
        )


def raise_loopback(plan: Plan) -> None:
    """Plan what a new network namespace needs: it has a loopback device that is down."""
    request = plan.data(b"lo".ljust(16, b"\0") + (k.IFF_UP | k.IFF_RUNNING).to_bytes(2, "little") + bytes(22))
    fd = plan.take(SYS_SOCKET, k.AF_INET, k.SOCK_DGRAM | k.SOCK_CLOEXEC, 0, words="open a socket")
    plan.add(SYS_IOCTL, fd, k.SIOCSIFFLAGS, request, words="raise the loopback device")
    plan.add(SYS_CLOSE, fd, words="close it")


def _send_netlink(plan: Plan, socket: int) -> None:
    """Who planned us moves devices to our network namespace, and needs a netlink socket that is in it."""
    netlink = plan.take(SYS_SOCKET, k.AF_NETLINK, k.SOCK_RAW | k.SOCK_CLOEXEC, 0, words="open a netlink socket")
    rights = plan.words64([20, k.SOL_SOCKET | k.SCM_RIGHTS << 32, 0])  # struct cmsghdr, the fd behind it
    plan.add(CALL_STORE, Data(rights + 16), netlink, words="name it in the message")
    part = plan.words64([plan.string("n"), 1])  # struct iovec
    message = plan.words64([0, 0, part, 1, rights, 24, 0])  # struct msghdr
    plan.add(SYS_SENDMSG, socket, message, 0, words="send it to rune")
    plan.add(SYS_CLOSE, netlink, words="close it")
    plan.add(SYS_CLOSE, socket, words="close the way to rune")
    plan.add(CALL_SYNC, SYNC_NET, words="wait for the network devices")


def _run_program(plan: Plan, request: Request, process: Process, envp: Data) -> None:
    program = add_look_up(plan, process, envp)
    plan.add(CALL_SYNC, SYNC_READY, words="report that all is set up")
    add_last_steps(plan, process, request.filter, request.fifo_fd)
    add_exec(plan, program)


def _enter_runelet(plan: Plan, enclave: Enclave, envp: Data) -> Data:
    plan.add(CALL_RUNELET, enclave.runelet_fd, words="become the runelet")
    add_not_dumpable(plan)
    add_death_signal(plan)
    texts = [plan.string(enclave.pal), plan.string(enclave.args), plan.string(enclave.log_level)]
    preload = plan.strings(enclave.preload)
    emulator = plan.string(enclave.emulator) if enclave.emulator else 0
    seed = plan.data(enclave.seed) if enclave.seed else 0
    signals = plan.data(b"".join([number.to_bytes(4, "little") for number in [*enclave.signals, 0]]))
    fds = enclave.agent_fd | (PAL_WAIT_STATUS if enclave.wait_status else 0) << 32
    return plan.words64([*texts, preload, emulator, seed, envp, signals, fds])


def _run_enclave(plan: Plan, request: Request, process: Process, pal: Data, envp: Data) -> None:
    if process.no_new_privileges:
        add_filter(plan, request.filter)  # the runtime is already the container's: it runs under its filter
    program = add_look_up(plan, process, envp)
    # The program may exist only inside the enclave: then its name goes there as it is.
    plan.ops[-1].tolerate = (ENOENT, EACCES)
    plan.add(CALL_PAL_INIT, pal, words="initialise the enclave runtime" + _emulated(request.enclave))
    plan.add(CALL_SYNC, SYNC_READY, words="report that all is set up")
    plan.add(SYS_PRCTL, k.PR_SET_PDEATHSIG, 0, words="live on without rune")
    plan.add(CALL_END_SYNC, words="take leave of rune")
    if request.fifo_fd >= 0:
        plan.add(CALL_WAIT_FIFO, request.fifo_fd, words="wait for start")
    plan.add(CALL_PAL_RUN, program.path, program.argv, program.envp, words=f'run "{process.args[0]}" in the enclave')


def _emulated(enclave: Enclave | None) -> str:
    """Whoever reads of a failure shall know where it happened."""
    return " on the software SGX platform" if enclave is not None and enclave.emulator else ""
