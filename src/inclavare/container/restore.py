"""Makes a container of an image: `restore` is `create.build` with CRIU in the place of the planner's steps.

The container's process becomes a child of rune, as after a create, and from then on nothing tells the two apart. What
was done is undone when a later step fails. CRIU runs in a mount namespace of its own, so that nothing that it needs is
left mounted even if rune is killed.
"""

from __future__ import annotations

import _socket
import os

from inclavare.container import checkpoint, create, hooks
from inclavare.container.checkpoint import DESCRIPTORS, EXTERNAL_NAMESPACES, Choices, Directories
from inclavare.container.console import Console
from inclavare.container.executor import Run
from inclavare.container.filter_cache import load_filter
from inclavare.container.restore_plan import plan_criu, plan_loopback, plan_mount_points
from inclavare.container.steps import SYNC_READY
from inclavare.errors import HostError
from inclavare.linux import cgroup_limits, cgroups, criu, process
from inclavare.linux import criu_messages as m
from inclavare.linux.files import read_file, write_pid_file
from inclavare.oci import jsontext

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.create import Built, Prepared
    from inclavare.container.plan import Plan
    from inclavare.container.planner import Request
    from inclavare.container.scope import Scope
    from inclavare.container.store import Record
    from inclavare.log import Log

STDIO = 3
JOINED = {"ipc": "ipc", "uts": "uts", "user": "user", "mount": "mnt"}  # the spec's names and CRIU's


def restore(prepared: Prepared, choices: Choices, log: Log) -> Built:
    """Make the container from its image. On failure nothing of it is left."""
    if prepared.enclave is not None:
        raise checkpoint.enclave_refusal(f"restore container {prepared.id}")
    checkpoint.refuse_unrestorable(prepared.spec)
    if not os.path.isdir(choices.image_path):
        raise HostError(f"there is no image {choices.image_path}", "Name it with --image-path.")
    program = criu.find()
    found = criu.version(program)
    record = create.reserve(prepared)
    scope: Scope | None = None
    restoring: _Restoring | None = None
    try:
        cgroups.check_unused(prepared.paths)
        create.note(record, prepared)
        settings = cgroup_limits.v2_settings if prepared.layout.is_v2 else cgroup_limits.v1_settings
        limits = settings(prepared.spec.linux.resources) if prepared.paths else []
        if prepared.unit is not None:
            from inclavare.container.scope import Scope  # noqa: PLC0415  # only for systemd's driver

            scope = Scope(prepared.unit, record, limits)
        cgroups.create(prepared.layout, prepared.paths)
        cgroups.apply(prepared.paths, limits)
        load_filter(record, prepared.spec)  # CRIU restores its own copy; exec wants this one
        restoring = _Restoring(prepared, record, choices, log)
        restoring.carry_out(program, found, scope)
    except BaseException:
        if scope is not None:
            scope.end()
        if restoring is not None and restoring.master >= 0:
            os.close(restoring.master)
        create.undo(record, prepared.options, log)
        raise
    return create.Built(record, record.pid, restoring.master)


class _Restoring:
    """One restore under way. `master` is the terminal for the foreground, or -1."""

    __slots__ = ("_choices", "_console", "_log", "_namespaces", "_null", "_prepared", "_record", "master")

    def __init__(self, prepared: Prepared, record: Record, choices: Choices, log: Log) -> None:
        self._prepared = prepared
        self._record = record
        self._choices = choices
        self._log = log
        self._console: Console | None = None
        self._namespaces: dict[str, int] = {}  # CRIU's key of a namespace to inherit -> fd
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self.master = -1

    def carry_out(self, program: str, found: tuple[int, int, int], scope: Scope | None) -> None:
        """Restore the processes. CRIU's log tells why it cannot."""
        prepared, record, choices = self._prepared, self._record, self._choices
        request = prepared.request()
        self._run(plan_mount_points(request), []).end()
        log = f"{choices.work_path or choices.image_path}/restore.log"
        try:
            self._open_namespaces()
            if prepared.spec.process.terminal:
                self._console = Console(prepared.options.console_socket)
            root = os.path.realpath(record.directory)
            ours, pid = self._start(request, root, program, scope)
            try:
                # CRIU mounts in its directories, so our fds of them must be of its mount namespace.
                directories = Directories(choices, f"/proc/{pid}/root")
                try:
                    options = {**self._options(directories), "root": root}
                    if prepared.paths:
                        options["cg_root"] = _cgroup_roots(pid)
                    criu.converse(ours, pid, {"type": m.RESTORE, "opts": options}, self._notified)
                finally:
                    directories.close()
            except criu.RefusedError as error:
                what = f"restore container {record.id} from {choices.image_path}"
                raise criu.failure(what, error, log, found) from error
            finally:
                ours.close()
        finally:
            for fd in (self._null, *self._namespaces.values(), *([self._console.theirs] if self._console else [])):
                os.close(fd)
        if not record.pid:
            raise HostError(f"CRIU restored no process of {record.id}", f"Its log is {log}.")

    def _options(self, directories: Directories) -> dict[str, object]:
        """Give what CRIU is asked, but for what is known only once it has started."""
        prepared, choices = self._prepared, self._choices
        spec = prepared.spec
        options = checkpoint.common_options(spec, choices, directories, spec.annotations)
        options |= {"log_file": "restore.log", "rst_sibling": True, "evasive_devices": True}
        shown = cgroups.hierarchies(prepared.layout, prepared.paths)
        mounts = checkpoint.external_mounts(spec, prepared.bundle, prepared.rootfs, shown)
        external = [f"mnt[{path}]:{source}" for path, source in mounts.items()]
        options["external"] = [*external, "mnt[/dev/null]:/dev/null"]  # what hides files
        inherit = [{"key": key, "fd": fd} for key, fd in self._namespaces.items()]
        options["inherit_fd"] = inherit + _stdio(choices, self._null)
        options["join_ns"] = [
            {"ns": JOINED[namespace.type], "ns_file": namespace.path}
            for namespace in spec.linux.namespaces
            if namespace.path and namespace.type in JOINED
        ]
        for name in ("lsm_profile", "lsm_mount_context"):
            if getattr(choices, name):
                options[name] = getattr(choices, name)
        return options

    def _open_namespaces(self) -> None:
        for kind, (_, key) in EXTERNAL_NAMESPACES.items():
            namespace = self._prepared.spec.linux.namespace(kind)
            if namespace is not None and namespace.path:
                try:
                    self._namespaces[key] = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
                except OSError as error:
                    raise HostError(f"cannot open the {kind} namespace {namespace.path}: {error.strerror}") from error

    def _start(self, request: Request, root: str, program: str, scope: Scope | None) -> tuple[_socket.socket, int]:
        """Start CRIU where it is to work; the caller owns our end of the conversation, and the process."""
        ours, theirs = criu.pair()
        opened: list[int] = []
        try:
            request.cgroup_fds = cgroups.open_join_fds(self._prepared.paths)
            opened += [fd for _, fd in request.cgroup_fds]
            if request.device_filter:
                directory = self._prepared.paths[cgroups.UNIFIED]
                request.cgroup_directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.append(request.cgroup_directory_fd)
            environment = [f"PATH={os.getenv('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"]
            plan = plan_criu(request, root, program, theirs.fileno(), environment)
            inherit = [theirs.fileno(), self._null, *opened, *self._namespaces.values()]
            run = self._run(plan, inherit, scope)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for fd in opened:
                os.close(fd)
        return ours, run.pid

    def _run(self, plan: Plan, inherit: list[int], scope: Scope | None = None) -> _Run:
        run = _Run(plan, inherit, self._log)

        def answer(_sync: int) -> None:
            if scope is not None:
                scope.take(run.pid)

        run.follow(answer, SYNC_READY)
        return run

    def _notified(self, name: str, pid: int, fd: int) -> None:
        prepared, record = self._prepared, self._record
        if name == "setup-namespaces":
            self._set_up(pid)
        elif name == "orphan-pts-master" and self._console is not None:
            _send(self._console.theirs, fd)
            if prepared.options.terminal:
                self.master = self._console.receive(as_is=prepared.options.terminal_as_is)
        elif name == "post-restore":
            record.pid = pid
            record.start_time = process.start_time(pid) or 0
            record.save()
            if prepared.options.pid_file:
                write_pid_file(prepared.options.pid_file, pid)

    def _set_up(self, pid: int) -> None:
        """The namespaces exist and are empty: as at create, the loopback goes up, and then hooks may fill them."""
        spec, record = self._prepared.spec, self._record
        network = spec.linux.namespace("network")
        if network is not None and not network.path:
            namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._run(plan_loopback(namespace), [namespace]).end()
            finally:
                os.close(namespace)
        if spec.hooks.prestart or spec.hooks.create_runtime:
            hooks.run_create_hooks(record, spec, pid)


class _Run(Run):
    """A plan whose process is not the container's."""

    def end(self) -> None:
        """Wait for the process, which has done its work."""
        os.waitpid(self.pid, 0)


def _stdio(choices: Choices, null: int) -> list[dict[str, object]]:
    """Give our stdio for the pipes and files of the host that the container had there, and `null` for its /dev/null."""
    path = f"{choices.image_path}/{DESCRIPTORS}"
    try:
        targets = jsontext.loads(read_file(path))
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}", "Is --image-path an image of a checkpoint?") from error
    names = [str(target) for target in targets] if isinstance(targets, list) else []
    fds = [(name, fd if fd < STDIO else null) for fd, name in enumerate(names)]
    return [{"key": name, "fd": fd} for name, fd in fds if name.startswith(("pipe:", "file["))]


def _cgroup_roots(pid: int) -> list[dict[str, object]]:
    """Tell CRIU where the container's groups are now: where it is itself (/proc/PID/cgroup)."""
    roots: list[dict[str, object]] = []
    for line in read_file(f"/proc/{pid}/cgroup").decode("utf-8", "surrogateescape").splitlines():
        _, controllers, path = line.split(":", 2)
        roots += [{"ctrl": controller, "path": path} for controller in controllers.split(",")]
    return roots


def _send(socket: int, fd: int) -> None:
    end = _socket.socket(fileno=os.dup(socket))
    try:
        end.sendmsg([b"/dev/ptmx"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, "little"))])
    finally:
        end.close()
