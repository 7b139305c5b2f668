"""Makes containers: reads the bundle, reserves the id, makes cgroups, plans, and follows the plan to its end.

`prepare` reads and decides and changes nothing; `build` acts. What `build` has done is undone when a later step fails.
Hot path.
"""

from __future__ import annotations

import _socket
import errno
import os
import time

from inclavare.container import facts, lifecycle, store
from inclavare.container.executor import Run, sealed_program
from inclavare.container.filter_cache import compile_profile, load_filter
from inclavare.container.mount_plan import CgroupMount
from inclavare.container.planner import Request, plan_create
from inclavare.container.steps import SYNC_FILLED, SYNC_HOOKS, SYNC_LISTENER, SYNC_MAP, SYNC_NET, SYNC_READY
from inclavare.errors import HostError, InclavareError, SpecError, StateError
from inclavare.linux import cgroup_limits, cgroups, process
from inclavare.linux.files import write_pid_file
from inclavare.oci import jsontext, spec
from inclavare.oci.ids import validate_id
from inclavare.oci.process import last_of_each
from inclavare.oci.state import SPEC_VERSION
from inclavare.oci.validate import validate

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.console import Console
    from inclavare.container.enclave_plan import Prepared as PreparedEnclave
    from inclavare.container.notify import Notifier
    from inclavare.container.plan import Plan
    from inclavare.container.scope import Scope
    from inclavare.container.store import Record
    from inclavare.linux.systemd_cgroup import Unit
    from inclavare.log import Log
    from inclavare.oci.spec import Spec

CONFIG_MAX = 16 << 20


class Options:
    """What the command line adds to the bundle. `console_socket`, `pid_file` and `pidfd_socket` are paths or empty.

    `wait` makes a container that waits for `start`. `terminal` says that a foreground command takes the terminal, to
    copy it to its own, or with `terminal_as_is` for whom else.
    """

    __slots__ = (
        "cgroup_manager",
        "config",
        "console_socket",
        "listen_fds",
        "new_keyring",
        "no_pivot",
        "notifier",
        "pid_file",
        "pidfd_socket",
        "preserve_fds",
        "root",
        "rootless",
        "sgx_platform",
        "terminal",
        "terminal_as_is",
        "wait",
    )

    def __init__(self, root: str) -> None:
        self.root = root
        self.cgroup_manager = "cgroupfs"  # or systemd, disabled
        self.rootless = False
        self.config = ""  # read in place of the bundle's config.json
        self.console_socket = self.pid_file = self.pidfd_socket = ""
        self.preserve_fds: list[int] = []  # of these the first are
        self.listen_fds = 0  # sockets that the container is told of (sd_listen_fds(3))
        self.new_keyring = True
        self.no_pivot = False
        self.notifier: Notifier | None = None
        self.sgx_platform = ""
        self.wait = False
        self.terminal = self.terminal_as_is = False


class Prepared:
    """A container that could be made: nothing has been changed yet."""

    __slots__ = (
        "bundle",
        "enclave",
        "facts",
        "id",
        "idmapped",
        "layout",
        "net_devices",
        "options",
        "paths",
        "raw",
        "rootfs",
        "spec",
        "unit",
    )

    def __init__(self, container_id: str, bundle: str, options: Options, log: Log) -> None:
        validate_id(container_id)
        self.id = container_id
        self.options = options
        self.bundle = os.path.realpath(bundle)
        self.raw = _read_config(self.bundle, options.config)
        self.spec: Spec = spec.parse(jsontext.loads(self.raw))
        validate(self.spec, host_network=_joins_own_network(self.spec))
        for warning in self.spec.warnings:
            log.warning(warning)
        if self.spec.unknown:
            log.warning(f"config.json: no runtime-spec knows {', '.join(self.spec.unknown)}; ignored")
        if os.geteuid():
            from inclavare.container import rootless  # noqa: PLC0415  # not for root

            rootless.check(self.spec)
        self.rootfs = os.path.realpath(os.path.join(self.bundle, self.spec.root.path))
        if not os.path.isdir(self.rootfs):
            raise SpecError("root.path", f"the rootfs {self.rootfs} is not a directory")
        _check_terminal(self.spec, options)
        self.enclave = _prepare_enclave(self.spec, self.bundle, options, log)
        env = self.spec.process.env
        if options.listen_fds:
            env += [f"LISTEN_FDS={options.listen_fds}", "LISTEN_PID=1"]
        self.spec.process.env = last_of_each(env)
        facts.check_labels(self.spec.process, "process.", enclave=self.enclave is not None)
        self.facts = facts.probe(self.spec, self.bundle, enclave=self.enclave is not None)
        if options.notifier is not None:
            options.notifier.show(self)
        if options.no_pivot or self.spec.linux.rootfs_propagation not in (None, "rslave"):
            from inclavare.container import rootfs_plan  # noqa: PLC0415  # rarely asked for

            self.facts.mounts = rootfs_plan.read_mounts()
        self.idmapped = _check_idmapped(self)
        self.net_devices: list[tuple[str, str]] = []
        if self.spec.linux.net_devices:
            from inclavare.oci import netdevices  # noqa: PLC0415  # few containers have one

            self.net_devices = netdevices.parse(self.spec, host_network=_joins_own_network(self.spec))
        self.layout = cgroups.read_layout()
        self.unit, self.paths = _place(self)

    def request(self) -> Request:
        """Give what the planner needs, without what must be opened for it."""
        request = Request(self.spec, self.id, self.bundle, self.rootfs, self.facts)
        request.cgroup_mounts = [CgroupMount(name, path) for name, path in cgroups.hierarchies(self.layout, self.paths)]
        request.cgroup_v2 = self.layout.is_v2
        if self.layout.is_v2 and self.paths:
            from inclavare.linux import device_filter  # noqa: PLC0415  # only cgroup v2 needs it

            rules = cgroup_limits.device_rules(self.spec.linux.resources)
            request.device_filter = device_filter.compile_rules(rules)
        request.rootless = os.geteuid() != 0
        request.new_keyring = self.options.new_keyring
        request.no_pivot = self.options.no_pivot
        request.preserve_fds = self.options.preserve_fds
        if self.enclave is not None:
            request.enclave = self.enclave.request()
        return request


def dry_run(prepared: Prepared) -> Plan:
    """Plan without opening or changing anything: fds are not real."""
    request = prepared.request()
    request.filter = compile_profile(prepared.spec)
    request.cgroup_fds = [(controller, 0) for controller in prepared.paths]
    request.cgroup_directory_fd = 0
    request.idmap_fds = dict.fromkeys(prepared.idmapped, 0)
    request.net_fd = 0 if prepared.net_devices else -1
    request.fifo_fd = 0 if prepared.options.wait else -1
    request.console_fd = 0 if prepared.spec.process.terminal else -1
    return plan_create(request)


class Built:
    """A container whose process exists. `master` is its terminal for the foreground, or -1; the caller owns it."""

    __slots__ = ("master", "pid", "record")

    def __init__(self, record: Record, pid: int, master: int) -> None:
        self.record = record
        self.pid = pid
        self.master = master


def build(prepared: Prepared, log: Log) -> Built:
    """Make the container. On failure nothing of it is left."""
    options = prepared.options
    record = reserve(prepared)
    opened: list[int] = []
    master = -1
    scope: Scope | None = None
    try:
        cgroups.check_unused(prepared.paths)
        note(record, prepared)
        if options.notifier is not None:
            options.notifier.make(record, listen=not options.wait)
        settings = _limits(prepared) if prepared.paths else []
        if prepared.unit is not None:
            from inclavare.container.scope import Scope  # noqa: PLC0415  # only for systemd's driver

            scope = Scope(prepared.unit, record, settings)
        cgroups.create(prepared.layout, prepared.paths)
        cgroups.apply(prepared.paths, settings)
        request = prepared.request()
        request.filter = load_filter(record, prepared.spec)
        request.cgroup_fds = cgroups.open_join_fds(prepared.paths)
        opened += [fd for _, fd in request.cgroup_fds]
        if request.device_filter:
            directory = prepared.paths[cgroups.UNIFIED]
            request.cgroup_directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.append(request.cgroup_directory_fd)
        if prepared.idmapped:
            from inclavare.container import idmap  # noqa: PLC0415  # few mounts are

            request.idmap_fds = idmap.open_namespaces(prepared.spec, prepared.idmapped, log)
            opened += request.idmap_fds.values()
        if prepared.net_devices:
            way, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
            request.net_fd = theirs.detach()
            opened.append(request.net_fd)
        if options.wait:
            request.fifo_fd = record.make_fifo()
            opened.append(request.fifo_fd)
        console = _open_console(prepared)
        if console is not None:
            request.console_fd = console.theirs
            opened.append(console.theirs)
        if request.enclave is not None:
            request.enclave.runelet_fd = sealed_program("runelet")
            opened.append(request.enclave.runelet_fd)
            request.enclave.agent_fd = _listen(record)
            opened.append(request.enclave.agent_fd)
        run = Run(plan_create(request), [*opened, *request.preserve_fds], log)
        for fd in opened:
            os.close(fd)
        opened = []

        def answer(sync: int) -> None:
            nonlocal master
            if scope is not None:
                scope.take(run.pid)
            if sync == SYNC_READY and console is not None and options.terminal:
                master = console.receive(as_is=options.terminal_as_is)
            if sync == SYNC_NET:
                from inclavare.linux import netdevices  # noqa: PLC0415  # few containers have one

                netdevices.move(prepared.net_devices, run.pid, way)
            _answer(sync, run, prepared, record, log)

        run.follow(answer, SYNC_READY, prepared.enclave.init_timeout_s if prepared.enclave is not None else None)
    except BaseException:
        if scope is not None:
            scope.end()
        for fd in (*opened, master):
            if fd >= 0:
                os.close(fd)
        undo(record, options, log)
        raise
    return Built(record, run.pid, master)


def _read_config(bundle: str, config: str) -> bytes:
    path = os.path.join(bundle, config or "config.json")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(
            f"cannot read {path}: {error.strerror}", "Name the bundle with --bundle; `rune spec` writes a config.json."
        ) from error
    try:
        size = os.fstat(fd).st_size
        if size > CONFIG_MAX:
            raise SpecError("", f"config.json is larger than {CONFIG_MAX >> 20} MiB")
        return os.read(fd, CONFIG_MAX)
    finally:
        os.close(fd)


def _joins_own_network(document: Spec) -> bool:
    """Tell whether the network namespace that the container is to join is the one we are in."""
    namespace = document.linux.namespace("network")
    if namespace is None or namespace.path is None:
        return False
    try:
        theirs, ours = os.stat(namespace.path), os.stat("/proc/self/ns/net")
    except OSError:
        return False  # the plan will say what is wrong with the path
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def _check_terminal(document: Spec, options: Options) -> None:
    if document.process.terminal:
        if not options.terminal and not options.console_socket:
            raise SpecError(
                "process.terminal", "cannot allocate tty if rune will detach without setting console socket"
            )
        if options.terminal and options.console_socket:
            raise SpecError("process.terminal", "cannot use console socket if rune will not detach")
    elif options.console_socket:
        raise SpecError("process.terminal", "cannot use console socket if no tty is allocated")


def _prepare_enclave(document: Spec, bundle: str, options: Options, log: Log) -> PreparedEnclave | None:
    if not any(entry.startswith("ENCLAVE_") for entry in document.process.env) and not any(
        name.startswith("enclave.") for name in document.annotations
    ):
        return None
    from inclavare.container import enclave_plan  # noqa: PLC0415  # plain containers do not need it

    return enclave_plan.prepare(document, bundle, options.sgx_platform, log)


def _check_idmapped(prepared: Prepared) -> list[int]:
    for mount in prepared.spec.mounts:
        if mount.uid_mappings or mount.gid_mappings or "idmap" in mount.options or "ridmap" in mount.options:
            from inclavare.container import idmap  # noqa: PLC0415  # few mounts are

            return idmap.check(prepared.spec, enclave=prepared.enclave is not None)
    return []


def reserve(prepared: Prepared) -> Record:
    """Reserve the id, after clearing away what a killed rune left under it."""
    try:
        return store.create(prepared.options.root, prepared.id)
    except StateError:
        old = store.load(prepared.options.root, prepared.id)
        if not old.creator or old.pid or process.is_same(old.creator, old.creator_start_time):
            raise
        lifecycle.clean_up(old)
        old.remove()
        return store.create(prepared.options.root, prepared.id)


def note(record: Record, prepared: Prepared) -> None:
    """Fill in and save the record of a container that is being made."""
    record.oci_version = SPEC_VERSION
    record.bundle = prepared.bundle
    record.rootfs = prepared.rootfs
    now = time.time_ns()
    record.created = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now // 10**9))}.{now % 10**9:09}Z"
    record.annotations = prepared.spec.annotations
    if os.geteuid():
        from inclavare.container import rootless  # noqa: PLC0415  # not for root

        record.owner = rootless.user_name()
    record.cgroups = prepared.paths
    record.systemd_unit = prepared.unit.name.unit if prepared.unit is not None else ""
    if prepared.enclave is not None:
        record.enclave = prepared.enclave.state
        record.platform = prepared.enclave.platform
    record.write(store.CONFIG, prepared.raw)
    record.save()


def _place(prepared: Prepared) -> tuple[Unit | None, dict[str, str]]:
    if prepared.options.rootless and prepared.options.cgroup_manager == "cgroupfs":
        from inclavare.container import rootless  # noqa: PLC0415  # not for root

        return None, rootless.place(prepared)
    if prepared.options.cgroup_manager == "cgroupfs":
        return None, cgroups.paths_for(prepared.layout, prepared.spec.linux.cgroups_path, prepared.id)
    from inclavare.container import scope  # noqa: PLC0415  # only for other drivers

    return scope.place(prepared)


def _limits(prepared: Prepared) -> list[cgroup_limits.Setting]:
    settings = cgroup_limits.v2_settings if prepared.layout.is_v2 else cgroup_limits.v1_settings
    return settings(prepared.spec.linux.resources)


def _open_console(prepared: Prepared) -> Console | None:
    if not prepared.spec.process.terminal:
        return None
    from inclavare.container.console import Console  # noqa: PLC0415  # only for terminals

    return Console(prepared.options.console_socket)


def _listen(record: Record) -> int:
    """Make the agent's socket. Bound through the directory's fd: the path may be longer than an address can be."""
    directory = os.open(record.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        server.bind(f"/proc/self/fd/{directory}/{store.AGENT}")
        os.chmod(record.path(store.AGENT), 0o600)
        server.listen(128)
        return server.detach()
    finally:
        os.close(directory)


def _answer(sync: int, run: Run, prepared: Prepared, record: Record, log: Log) -> None:
    if sync == SYNC_MAP:
        from inclavare.container.mappings import write_mappings  # noqa: PLC0415  # only user namespaces have some

        write_mappings(run.pid, prepared.spec.linux.uid_mappings, prepared.spec.linux.gid_mappings)
    elif sync == SYNC_HOOKS:
        from inclavare.container import hooks  # noqa: PLC0415  # most containers have none

        hooks.run_create_hooks(record, prepared.spec, run.pid)
    elif sync == SYNC_FILLED:
        from inclavare.container import inside_hooks  # noqa: PLC0415  # most containers have none

        inside_hooks.create_container(record, prepared.spec, run.pid, log)
    elif sync == SYNC_LISTENER:
        from inclavare.container import listener  # noqa: PLC0415  # few profiles have an agent

        listener.hand_over(run, record, prepared.spec, "creating", log)
    elif sync == SYNC_READY:
        record.pid = run.pid
        record.start_time = process.start_time(run.pid) or 0
        record.save()
        if prepared.options.pidfd_socket:
            from inclavare.container import pidfd  # noqa: PLC0415  # rarely asked for

            pidfd.send(prepared.options.pidfd_socket, run.pid, "standard")
        if prepared.options.pid_file:
            write_pid_file(prepared.options.pid_file, run.pid)
        if prepared.spec.hooks.start_container and not prepared.options.wait:
            from inclavare.container import inside_hooks  # noqa: PLC0415  # most containers have none

            inside_hooks.start_container(record, prepared.spec, log)


def undo(record: Record, options: Options, log: Log) -> None:
    """Remove what was made; what cannot be removed is said, and does not hide the first error."""
    try:
        lifecycle.clean_up(record)
        record.remove()
    except (InclavareError, OSError) as error:
        log.warning(f"cannot clean up after the failure: {error}")
    if options.pid_file:
        try:
            os.unlink(options.pid_file)
        except OSError as error:
            if error.errno != errno.ENOENT:
                log.warning(f"cannot remove {options.pid_file}: {error.strerror}")
