"""The state directory: what rune remembers of containers between two commands.

ROOT/ID/state.json is the record, written whole and renamed into place. ROOT/ID/config.json is the bundle's
configuration as it was at create (exec needs it later, when the bundle may have changed). exec.fifo is there between
create and start; agent.sock belongs to enclave containers.

The directory is made first, with a record that says "creating" and names the process that does it: when that process
is found dead, the next command that meets the record knows what to clean up. Hot path.
"""

from __future__ import annotations

import os
import stat

from inclavare.errors import HostError, SpecError, StateError
from inclavare.linux.files import read_file
from inclavare.linux.process import start_time
from inclavare.oci import jsontext
from inclavare.oci.ids import validate_id

STATE = "state.json"
CONFIG = "config.json"
FIFO = "exec.fifo"
AGENT = "agent.sock"
_DAMAGED = "`rune delete --force` removes what can be found of the container."


class DamagedError(HostError):
    """A container's record cannot be understood."""


class Record:
    """What is known of one container.

    `pid` is 0 until its process exists; `start_time` (clock ticks since boot) tells it from a later process with the
    same pid. `creator` and `creator_start_time` name the rune process at work while `pid` is 0. `cgroups` maps
    controller to directory; `systemd_unit` names their unit, if systemd made them. `filter` is what
    filter_cache calls the seccomp filter. `enclave` is the `enclave_config` of state.json, or None.
    """

    __slots__ = (
        "annotations",
        "bundle",
        "cgroups",
        "created",
        "creator",
        "creator_start_time",
        "directory",
        "enclave",
        "filter",
        "id",
        "oci_version",
        "owner",
        "pid",
        "platform",
        "rootfs",
        "start_time",
        "systemd_unit",
    )

    def __init__(self, directory: str, container_id: str) -> None:
        self.directory = directory
        self.id = container_id
        self.oci_version = ""
        self.bundle = ""
        self.rootfs = ""
        self.created = ""
        self.owner = ""
        self.annotations: dict[str, str] = {}
        self.cgroups: dict[str, str] = {}
        self.systemd_unit = ""
        self.filter = ""
        self.enclave: dict[str, object] | None = None
        self.platform = ""
        self.pid = 0
        self.start_time = 0
        self.creator = 0
        self.creator_start_time = 0

    def path(self, name: str) -> str:
        """Path of a file in the container's state directory."""
        return f"{self.directory}/{name}"

    def save(self) -> None:
        """Write the record so that a reader sees the old or the new one, never a part."""
        document: dict[str, object] = {
            "ociVersion": self.oci_version,
            "id": self.id,
            "init_process_pid": self.pid,
            "init_process_start": self.start_time,
            "creator_pid": self.creator,
            "creator_start": self.creator_start_time,
            "created": self.created,
            "owner": self.owner,
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "annotations": self.annotations,
            "cgroup_paths": self.cgroups,
            "systemd_unit": self.systemd_unit,
            "seccomp_filter": self.filter,
            "enclave_config": self.enclave,
            "sgx_platform": self.platform,
        }
        self.write(".state.json", jsontext.dumps(document).encode())
        os.rename(self.path(".state.json"), self.path(STATE))

    def read_again(self) -> None:
        """Take what the record says now; what is gone stays as it was."""
        try:
            document = jsontext.loads(self.read(STATE), STATE)
        except FileNotFoundError:
            return
        if isinstance(document, dict):
            _fill(self, document)

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the state directory, for root only."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path(name), flags, 0o600)
        try:
            if os.write(fd, content) != len(content):
                raise HostError(f"cannot write {self.path(name)}: no space left on device")
        finally:
            os.close(fd)

    def make_fifo(self) -> int:
        """Make what the container waits at for `start`, and open it. The caller owns the fd (CLOEXEC)."""
        path = self.path(FIFO)
        try:
            os.mkfifo(path, 0o600)
        except OSError as error:
            raise HostError(f"cannot make {path}: {error.strerror}") from error
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def read(self, name: str) -> bytes:
        """Content of a file in the state directory."""
        return read_file(self.path(name))

    def remove(self) -> None:
        """Forget the container. Its files go first, so that a half-done removal can be repeated."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return
        for name in names:
            try:
                os.unlink(self.path(name))
            except FileNotFoundError:
                continue
            except IsADirectoryError:  # of notify: it has one file at most
                for inner in os.listdir(self.path(name)):
                    os.unlink(f"{self.path(name)}/{inner}")
                os.rmdir(self.path(name))
        try:
            os.rmdir(self.directory)
        except FileNotFoundError:
            return


def create(root: str, container_id: str) -> Record:
    """Reserve an id. Raises StateError when a container has it already."""
    validate_id(container_id)
    directory = f"{root}/{container_id}"
    try:
        try:
            status = os.stat(root)
        except FileNotFoundError:
            os.makedirs(root, 0o711, exist_ok=True)
            status = os.stat(root)
        if status.st_uid not in (0, os.geteuid()) or (status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX):
            raise HostError(
                f"cannot keep state in {root}: users other than you can change what is in it",
                "Choose another --root, or take away their right to write.",
            )
        os.mkdir(directory, 0o700)
    except FileExistsError:
        raise StateError(
            f"container with given ID already exists: {container_id}",
            f"Remove it with `rune delete {container_id}`, or choose another id.",
        ) from None
    except OSError as error:
        raise HostError(
            f"cannot make the state directory {directory}: {error.strerror}", "Choose another --root."
        ) from error
    record = Record(directory, container_id)
    record.creator = os.getpid()
    record.creator_start_time = start_time(record.creator) or 0
    return record


def load(root: str, container_id: str) -> Record:
    """Read a container's record. Raises StateError when there is none."""
    validate_id(container_id)
    record = Record(f"{root}/{container_id}", container_id)
    try:
        _check_own(record.directory)
        raw = record.read(STATE)
    except (FileNotFoundError, NotADirectoryError) as error:
        if error.filename != record.directory:
            return record  # its creator was killed before it could write the record
        raise StateError(
            f"container does not exist: {container_id}", f"`rune --root {root} list` names those that do."
        ) from None
    except OSError as error:
        raise HostError(f"cannot read {record.path(STATE)}: {error.strerror}") from error
    try:
        document = jsontext.loads(raw, record.path(STATE))
    except SpecError as error:
        raise DamagedError(error.message, _DAMAGED) from error
    if not isinstance(document, dict) or document.get("id") != container_id:
        raise DamagedError(f"{record.path(STATE)} is damaged: it is no record of {container_id}", _DAMAGED)
    _fill(record, document)
    return record


def _check_own(directory: str) -> None:
    """What is in it decides what is signalled, removed and executed: it must be a directory that only we could make."""
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise HostError(
            f"{directory} is not used: it is no directory that only user {os.geteuid()} could have made",
            "Find out who made it, and remove it.",
        )


def ids(root: str) -> list[str]:
    """Ids of all containers under `root`, sorted."""
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if not name.startswith(".") and os.path.isdir(f"{root}/{name}"))


def _fill(record: Record, document: dict[str, object]) -> None:
    def text(key: str) -> str:
        value = document.get(key)
        return value if isinstance(value, str) else ""

    def number(key: str) -> int:
        value = document.get(key)
        return value if isinstance(value, int) else 0

    def table(key: str) -> dict[str, str]:
        value = document.get(key)
        return {str(name): str(entry) for name, entry in value.items()} if isinstance(value, dict) else {}

    record.oci_version = text("ociVersion")
    record.pid = number("init_process_pid")
    record.start_time = number("init_process_start")
    record.creator = number("creator_pid")
    record.creator_start_time = number("creator_start")
    record.created = text("created")
    record.owner = text("owner")
    record.bundle = text("bundle")
    record.rootfs = text("rootfs")
    record.annotations = table("annotations")
    record.cgroups = table("cgroup_paths")
    record.systemd_unit = text("systemd_unit")
    record.platform = text("sgx_platform")
    record.filter = text("seccomp_filter")
    enclave = document.get("enclave_config")
    record.enclave = enclave if isinstance(enclave, dict) else None
