"""Writes a running container to a directory, with CRIU: `checkpoint`; and what checkpoint and restore share.

What the container has from the host is external to CRIU, which then leaves it alone: bind mounts, hidden files, devices
of a user namespace, namespaces joined by path, the control groups' directories. Names of externals and the file
descriptors.json are runc's, so that images can go from one to the other.
"""

from __future__ import annotations

import os
import stat

from inclavare.container import host_devices, lifecycle
from inclavare.container.device_plan import DEFAULT_DEVICES
from inclavare.container.facts import is_bind, source_path
from inclavare.errors import HostError, SpecError, StateError, UsageError
from inclavare.linux import cgroups, criu
from inclavare.linux import criu_messages as m
from inclavare.linux.files import read_file
from inclavare.linux.headers import CLONE_NEWNET
from inclavare.oci import jsontext, spec

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.store import Record
    from inclavare.log import Log
    from inclavare.oci.spec import Spec

DESCRIPTORS = "descriptors.json"
EXTERNAL_NAMESPACES = {"network": ("net", "extRootNetNS"), "pid": ("pid", "extRootPidNS")}
CONFIG_ANNOTATION = "org.criu.config"
CONFIG_FILE = "/etc/criu/runc.conf"


class Choices:
    """What the command line says of an image. `flags` are CRIU's options by their names in its protocol."""

    __slots__ = (
        "flags",
        "image_path",
        "lsm_mount_context",
        "lsm_profile",
        "manage_cgroups_mode",
        "page_server",
        "parent_path",
        "pre_dump",
        "status_fd",
        "work_path",
    )

    def __init__(self, image_path: str, flags: dict[str, object]) -> None:
        self.image_path = os.path.abspath(image_path or "checkpoint")
        self.flags = flags
        self.work_path = ""
        self.parent_path = ""
        self.pre_dump = False
        self.page_server: tuple[str, int] | None = None
        self.status_fd = -1
        self.manage_cgroups_mode = ""
        self.lsm_profile = ""
        self.lsm_mount_context = ""


class Directories:
    """The directories of images and of CRIU's log, open for CRIU. The caller closes them."""

    __slots__ = ("fds", "log")

    def __init__(self, choices: Choices, root: str = "") -> None:
        self.fds: list[int] = []
        self.log = choices.work_path or choices.image_path
        try:
            for path in (choices.image_path, self.log):
                self.fds.append(_open_directory(root + path))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close both."""
        for fd in self.fds:
            os.close(fd)


def checkpoint(record: Record, choices: Choices, log: Log) -> None:
    """Write the container to its image. It ends and is deleted, unless it is to be left running.

    When that fails the container goes on, or stays paused if it was.
    """
    now = lifecycle.status(record)
    if record.enclave is not None:
        raise enclave_refusal(f"checkpoint container {record.id}")
    if now not in ("running", "paused"):
        raise StateError(f"cannot checkpoint container {record.id} in {now} state", "Only a running one can be.")
    if os.path.isdir(record.path("notify")):
        raise StateError(
            f"cannot checkpoint container {record.id}: it was made with NOTIFY_SOCKET", "Its socket would be missing."
        )
    document = spec.parse(jsontext.loads(record.read("config.json")))
    refuse_unrestorable(document)
    program = criu.find()
    found = criu.version(program)
    _check_features(program, choices)
    os.makedirs(choices.image_path, 0o700, exist_ok=True)
    _check_parent(choices)
    directories = Directories(choices)
    try:
        options = common_options(document, choices, directories, record.annotations)
        options |= _dump_options(document, record, choices)
        request: dict[str, object] = {"type": m.PRE_DUMP if choices.pre_dump else m.DUMP, "opts": options}

        def notified(name: str, _pid: int, _fd: int) -> None:
            if name == "status-ready" and choices.status_fd >= 0:
                os.write(choices.status_fd, b"\0")
                os.close(choices.status_fd)

        try:
            criu.ask(program, request, tuple(directories.fds), notified)
        except BaseException as error:
            if now == "running":
                cgroups.thaw(record.cgroups)
            if isinstance(error, criu.RefusedError):
                what = f"checkpoint container {record.id}"
                raise criu.failure(what, error, f"{directories.log}/dump.log", found) from error
            raise
    finally:
        directories.close()
    if not choices.pre_dump and not choices.flags.get("leave_running"):
        lifecycle.delete(record, log, force=True)


def enclave_refusal(what: str) -> StateError:
    """Say why an enclave container has no image."""
    return StateError(
        f"cannot {what}: it has an enclave, and an enclave's memory cannot leave its CPU package",
        "Let the program in the enclave save what it needs, sealed, and start it anew.",
    )


def refuse_unrestorable(document: Spec) -> None:
    """Raise SpecError for what CRIU would not restore, or not as it was."""
    namespace = document.linux.namespace("cgroup")
    if namespace is not None and namespace.path:
        raise SpecError(
            "linux.namespaces",
            "CRIU cannot restore a container into the cgroup namespace of another",
            'Give it one of its own: {"type": "cgroup"} without a path.',
        )
    if document.linux.net_devices:
        raise SpecError("linux.netDevices", "CRIU does not restore devices of the host")
    for index, mount in enumerate(document.mounts):
        if mount.uid_mappings or mount.gid_mappings or "idmap" in mount.options or "ridmap" in mount.options:
            raise SpecError(f"mounts[{index}]", "CRIU would restore this mount without its id mappings")


def common_options(
    document: Spec, choices: Choices, directories: Directories, annotations: dict[str, str]
) -> dict[str, object]:
    """Give the options of CRIU that checkpoint and restore share."""
    options: dict[str, object] = {
        "images_dir_fd": directories.fds[0],
        "work_dir_fd": directories.fds[1],
        "log_level": 4,
        "notify_scripts": True,
        "orphan_pts_master": True,
        "manage_cgroups": True,
        "manage_cgroups_mode": m.CGROUP_MODES[choices.manage_cgroups_mode],
        **choices.flags,
    }
    network = document.linux.namespace("network")
    if network is not None and not network.path:
        options["empty_ns"] = CLONE_NEWNET  # its devices are an engine's to make, except for the loopback
    if annotations.get(CONFIG_ANNOTATION, CONFIG_FILE):
        options["config_file"] = annotations.get(CONFIG_ANNOTATION, CONFIG_FILE)
    return options


def external_mounts(document: Spec, bundle: str, rootfs: str, cgroup_mounts: list[tuple[str, str]]) -> dict[str, str]:
    """Give what is mounted from the host: mount point in the container -> source."""
    mounts = {}
    own_cgroups = document.linux.namespace("cgroup") is not None
    for mount in document.mounts:
        if is_bind(mount.type, mount.options):
            mounts[_inside(rootfs, mount.destination)] = source_path(mount.source, bundle)
        elif mount.type == "cgroup" and not own_cgroups:
            single = len(cgroup_mounts) == 1 and cgroup_mounts[0][1].startswith(mount.destination)
            for name, source in cgroup_mounts:
                inner = mount.destination if single else f"{mount.destination}/{name}"
                mounts[_inside(rootfs, inner)] = source
    if document.linux.namespace("user") is not None:
        host_devices.check_bound(document)  # CRIU binds them again from the host
        for path in [*(path for path, _, _ in DEFAULT_DEVICES), *(device.path for device in document.linux.devices)]:
            mounts.setdefault(path, path)
    return mounts


def _inside(rootfs: str, path: str) -> str:
    """Give the place in a root that `path` leads to: the kernel tells mount points without symbolic links."""
    at, left, links = "", [part for part in reversed(path.split("/")) if part], 0
    while left:
        part = left.pop()
        if part == "..":
            at = at.rpartition("/")[0]
        elif part != ".":
            try:
                target = os.readlink(f"{rootfs}{at}/{part}")
            except OSError:
                at = f"{at}/{part}"
                continue
            links += 1
            if links > 40:
                raise HostError(f"cannot find {path} in {rootfs}: too many symbolic links")
            if target.startswith("/"):
                at = ""
            left += [word for word in reversed(target.split("/")) if word]
    return at or "/"


def _dump_options(document: Spec, record: Record, choices: Choices) -> dict[str, object]:
    options: dict[str, object] = {"log_file": "dump.log", "root": record.rootfs, "pid": record.pid}
    for name, path in record.cgroups.items():
        if name == cgroups.UNIFIED or "freezer" in name.split(","):
            options["freeze_cgroup"] = path
    if choices.page_server is not None:
        address, port = choices.page_server
        options["ps"] = {"address": address, "port": port}
    if choices.parent_path:
        options |= {"parent_img": choices.parent_path, "track_mem": True}
    if choices.pre_dump:
        return options | {"track_mem": True, "external": _external_namespaces(document)}
    layout = cgroups.read_layout()
    shown = cgroups.hierarchies(layout, record.cgroups)
    external = [f"mnt[{path}]:{path}" for path in external_mounts(document, record.bundle, record.rootfs, shown)]
    for path in document.linux.masked_paths:
        try:
            is_directory = stat.S_ISDIR(os.stat(f"/proc/{record.pid}/root{path}").st_mode)
        except OSError:  # there is nothing to hide
            continue
        if not is_directory:
            external.append(f"mnt[{path}]:/dev/null")
    targets, files = _descriptors(record.pid)
    with open(f"{choices.image_path}/{DESCRIPTORS}", "wb", opener=_for_root_only) as file:
        file.write(jsontext.dumps(targets).encode())
    options["external"] = [*external, *files, *_external_namespaces(document)]
    return options


def _external_namespaces(document: Spec) -> list[str]:
    external = []
    for kind, (name, key) in EXTERNAL_NAMESPACES.items():
        namespace = document.linux.namespace(kind)
        if namespace is not None and namespace.path:
            external.append(f"{name}[{os.stat(namespace.path).st_ino}]:{key}")
    return external


def _descriptors(pid: int) -> tuple[list[str], list[str]]:
    """Tell where stdio leads, for restore, which gives its own in the place of pipes and of files of the host.

    Behind these come the names of those files that are the host's /dev/null. The second list has the names of all.
    """
    own = {line.split(b" ", 1)[0] for line in read_file(f"/proc/{pid}/mountinfo").splitlines()}
    null = os.stat("/dev/null").st_rdev
    targets, files, nulls = [], [], []
    for fd in range(3):
        path = f"/proc/{pid}/fd/{fd}"
        try:
            target, status, info = os.readlink(path), os.stat(path), read_file(f"/proc/{pid}/fdinfo/{fd}")
        except OSError:  # closed
            targets.append("")
            continue
        is_null = stat.S_ISCHR(status.st_mode) and status.st_rdev == null
        mount = info.partition(b"mnt_id:")[2].split()[0]
        if mount not in own and (is_null or stat.S_ISREG(status.st_mode)):
            name = f"file[{int(mount):x}:{status.st_ino:x}]"
            files.append(name)
            if is_null:
                nulls.append(name)
            else:
                target = name
        targets.append(target)
    return [*targets, *sorted(set(nulls))], sorted(set(files))


def _for_root_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _check_features(program: str, choices: Choices) -> None:
    for wanted, feature, option in (
        (choices.pre_dump, "mem_track", "--pre-dump"),
        (choices.flags.get("lazy_pages"), "lazy_pages", "--lazy-pages"),
    ):
        if wanted and not criu.has(program, feature):
            raise HostError(f"{option}: CRIU or the kernel lacks {feature}", f"`criu check --feature {feature}` asks.")
    if choices.status_fd >= 0:
        try:
            os.write(choices.status_fd, b"")
        except OSError as error:
            raise UsageError(f"--status-fd: cannot write to {choices.status_fd}: {error.strerror}") from error


def _check_parent(choices: Choices) -> None:
    if choices.parent_path and not os.path.isdir(f"{choices.image_path}/{choices.parent_path}"):
        raise UsageError(
            f"--parent-path: {choices.image_path}/{choices.parent_path} is not a directory",
            "It is relative to --image-path.",
        )


def _open_directory(path: str) -> int:
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"cannot use the directory {path}: {error.strerror}") from error
    return fd
