"""Control groups, v1 (also hybrid) and v2, driven through their filesystem.

The container's groups are a table controller -> directory; v2 has one entry, `unified`. What is written comes from
`limits` in cgroup_limits. Deliberately not here: systemd's driver.

cgroups(7); Documentation/admin-guide/cgroup-v1, cgroup-v2.rst. Hot path.
"""

from __future__ import annotations

import errno
import os
import time

from inclavare.errors import HostError
from inclavare.linux.files import read_file

UNIFIED = "unified"
REMOVE_TIMEOUT_S = 10.0


class Hierarchy:
    """One mounted hierarchy. `own` is our own directory in it, as far as the mount shows it."""

    __slots__ = ("mount_point", "name", "own")

    def __init__(self, name: str, mount_point: str, own: str) -> None:
        self.name = name
        self.mount_point = mount_point
        self.own = own


class Layout:
    """The host's hierarchies by name: v1 controllers mounted together (`cpu,cpuacct`, `name=systemd`), or `unified`."""

    __slots__ = ("hierarchies",)

    def __init__(self, hierarchies: dict[str, Hierarchy]) -> None:
        self.hierarchies = hierarchies

    @property
    def is_v2(self) -> bool:
        """Tell whether the host has the unified hierarchy only."""
        return UNIFIED in self.hierarchies


def read_layout() -> Layout:
    """Read the host's layout."""
    mounts, own = read_file("/proc/self/mountinfo"), read_file("/proc/self/cgroup")
    return parse_layout(mounts.decode("utf-8", "surrogateescape"), own.decode("utf-8", "surrogateescape"))


def parse_layout(mountinfo: str, own: str) -> Layout:
    """Make the layout of /proc/self/mountinfo and /proc/self/cgroup. Raises HostError when no hierarchy is mounted."""
    ours = {}
    for line in own.splitlines():
        _, _, rest = line.partition(":")
        listed, _, path = rest.partition(":")
        ours[listed or UNIFIED] = path
    v1: dict[str, Hierarchy] = {}
    v2: dict[str, Hierarchy] = {}
    for line in mountinfo.splitlines():
        name: str | None
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2) if right.count(" ") >= 2 else ("", "", "")
        if kind not in ("cgroup", "cgroup2") or left.count(" ") < 5:
            continue
        _, _, _, root, mount_point, *_ = left.split(" ")
        found = v2 if kind == "cgroup2" else v1
        name = UNIFIED if kind == "cgroup2" else _name_of(options, ours)
        if name is not None and name not in found:
            found[name] = Hierarchy(name, _unescape(mount_point), _inside(_unescape(root), ours.get(name, "/")))
    if not any("name=" not in name for name in v1) and v2:
        return Layout(v2)
    if not v1:
        raise HostError("no cgroup hierarchy is mounted", "Mount one: mount -t cgroup2 none /sys/fs/cgroup")
    return Layout(v1)


def paths_for(layout: Layout, cgroups_path: str | None, container_id: str) -> dict[str, str]:
    """Give the directory of a container in each hierarchy: absolute paths from its mount, others from our own group."""
    paths = {}
    for hierarchy in layout.hierarchies.values():
        if cgroups_path and cgroups_path.startswith("/"):
            inside = cgroups_path
        else:
            inside = f"{hierarchy.own}/{cgroups_path or container_id}"
        # Made absolute before it is joined, so that `..` leads to the mount's root at most.
        paths[hierarchy.name] = f"{hierarchy.mount_point}{os.path.normpath(f'/./{inside}')}".rstrip("/")
    return paths


def hierarchies(layout: Layout, paths: dict[str, str]) -> list[tuple[str, str]]:
    """Give (name below /sys/fs/cgroup, the container's directory) of each hierarchy."""
    return [(os.path.basename(layout.hierarchies[name].mount_point), path) for name, path in paths.items()]


def check_unused(paths: dict[str, str]) -> None:
    """Raise HostError when processes that are not the container's are in its groups: they would be killed with it."""
    pids = processes(paths)
    if pids:
        raise HostError(
            f"the container's cgroup is not empty: {len(pids)} process(es) found in {next(iter(paths.values()))}",
            "Choose another linux.cgroupsPath.",
        )


def create(layout: Layout, paths: dict[str, str]) -> None:
    """Make the directories. A group that exists already is used as it is."""
    for name, path in paths.items():
        mount_point = layout.hierarchies[name].mount_point
        missing = []
        at = path
        while at != mount_point and not os.path.isdir(at):
            missing.append(at)
            at = os.path.dirname(at)
        if missing and name == UNIFIED:
            _pass_controllers_on(mount_point, at)
        for directory in reversed(missing):
            try:
                os.mkdir(directory, 0o755)
            except FileExistsError:
                continue
            except OSError as error:
                raise HostError(f"cannot make the cgroup {directory}: {error.strerror}", _hint(error)) from error
            if name == UNIFIED and directory != path:
                _enable_controllers(directory)
        if "cpuset" in name.split(","):
            for file in ("cpuset.cpus", "cpuset.mems"):
                _inherit_cpuset(mount_point, path, file)


def apply(paths: dict[str, str], settings: list[tuple[str, str, str]]) -> None:
    """Write (controller, file, value) settings. Raises HostError, naming the file, for what cannot be set."""
    writes: list[tuple[str, list[str]]] = []  # in order; what follows itself, as device rules do, is opened once
    for controller, file, value in settings:
        path = path_of(paths, controller)
        if path is None:
            raise HostError(f"cannot set {file}: the host has no {controller} cgroup controller")
        if "|" in file:
            file, value = choose_file(path, file, value)  # noqa: PLW2901  # the same setting
        if not writes or writes[-1][0] != f"{path}/{file}":
            writes.append((f"{path}/{file}", []))
        writes[-1][1].append(value)
    for name, values in writes:
        write(name, *values)


def choose_file(path: str, files: str, values: str) -> tuple[str, str]:
    """Give the first of the files (joined by "|") that is there, or the last, and the value for it."""
    pairs = list(zip(files.split("|"), values.split("|"), strict=True))
    return next((pair for pair in pairs if os.path.exists(f"{path}/{pair[0]}")), pairs[-1])


def write(path: str, *values: str) -> None:
    """Write one cgroup file, value by value."""
    value = values[0]
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for value in values:
                os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise HostError(f"cannot write {value!r} to {path}: {error.strerror}", _hint(error)) from error


def open_join_fds(paths: dict[str, str]) -> list[tuple[str, int]]:
    """Open what a process writes "0" to in order to join: (name, fd). The caller owns the fds (CLOEXEC)."""
    fds: list[tuple[str, int]] = []
    try:
        for name, path in paths.items():
            file = "cgroup.procs" if name == UNIFIED else "tasks"
            fds.append((name, os.open(f"{path}/{file}", os.O_WRONLY | os.O_CLOEXEC)))
    except OSError as error:
        for _, fd in fds:
            os.close(fd)
        raise HostError(f"cannot join the cgroup {path}: {error.strerror}") from error
    return fds


def below(paths: dict[str, str], name: str) -> dict[str, str]:
    """Give the groups `name` below these, and these where there are none of that name. Raises HostError if nowhere."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise HostError(f"cannot join the cgroup {name}: `..` components are not allowed")
    inner = {controller: "/".join([path, *parts]) for controller, path in paths.items()}
    found = {controller: path for controller, path in inner.items() if os.path.isdir(path)}
    if paths and not found:
        raise HostError(f"cannot join the cgroup {name}: there is no {next(iter(inner.values()))}")
    return {**paths, **found}


def processes(paths: dict[str, str]) -> list[int]:
    """Give the pids in a container's groups and below them, sorted."""
    path = path_of(paths, "devices") or next(iter(paths.values()), None)
    if path is None:
        return []
    pids: set[int] = set()
    for directory in _tree(path):
        try:
            pids.update([int(line) for line in read_file(f"{directory}/cgroup.procs").split()])
        except OSError:  # it went away while we looked
            continue
    return sorted(pids)


def remove(paths: dict[str, str]) -> None:
    """Remove the groups and all below them; waits for dying processes. What is gone already is fine."""
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    for path in paths.values():
        try:
            os.rmdir(path)  # no other group below, no process left: nearly always
        except FileNotFoundError:
            continue
        except OSError:
            for directory in reversed(_tree(path)):
                _remove_one(directory, deadline)


def is_frozen(paths: dict[str, str]) -> bool:
    """Tell whether the container is paused."""
    if UNIFIED in paths:
        return _read(f"{paths[UNIFIED]}/cgroup.freeze") == "1"
    path = path_of(paths, "freezer")
    return path is not None and _read(f"{path}/freezer.state") in ("FROZEN", "FREEZING")


def freeze(paths: dict[str, str]) -> None:
    """Ask the kernel to stop all processes in the groups. Raises HostError where it cannot."""
    if UNIFIED in paths:
        write(f"{paths[UNIFIED]}/cgroup.freeze", "1")
        return
    path = path_of(paths, "freezer")
    if path is None:
        raise HostError("cannot pause: the host has no freezer cgroup controller")
    write(f"{path}/freezer.state", "FROZEN")


def thaw(paths: dict[str, str]) -> None:
    """Let a paused container go on: a frozen process does not die."""
    if is_frozen(paths):
        if UNIFIED in paths:
            write(f"{paths[UNIFIED]}/cgroup.freeze", "0")
        else:
            write(f"{path_of(paths, 'freezer')}/freezer.state", "THAWED")


def thaw_process(pid: int) -> None:
    """Thaw the v1 groups that a process is frozen in, wherever somebody has moved it."""
    freezer = next((one for name, one in read_layout().hierarchies.items() if "freezer" in name.split(",")), None)
    if freezer is None:
        return
    for line in _read(f"/proc/{pid}/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        while "freezer" in names.split(",") and path not in ("/", ""):
            directory = f"{freezer.mount_point}{path}"
            if _read(f"{directory}/freezer.self_freezing") == "1":
                write(f"{directory}/freezer.state", "THAWED")
            path = os.path.dirname(path)


def _inside(root: str, own: str) -> str:
    """Give our own group's place below a mount that shows `root`; the mount's root when it does not show it."""
    if ".." in own.split("/"):  # outside of our cgroup namespace
        return "/"
    if root == "/":
        return own or "/"
    return own[len(root) :] or "/" if own == root or own.startswith(f"{root}/") else "/"


def _name_of(options: str, ours: dict[str, str]) -> str | None:
    """Give the name of a v1 mount in /proc/self/cgroup: its super options hold the same words."""
    words = set(options.split(","))
    for name in ours:
        if name != UNIFIED and set(name.split(",")) <= words:
            return name
    return None


def _unescape(path: str) -> str:
    for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, sign)
    return path


def path_of(paths: dict[str, str], controller: str) -> str | None:
    """Give the directory where a controller's files are; None where the host has no such controller."""
    if UNIFIED in paths:
        return paths[UNIFIED]
    for name, path in paths.items():
        if controller in name.split(","):
            return path
    return None


def _tree(path: str) -> list[str]:
    """Give a directory and all below it, parents first; empty when it does not exist."""
    found = [path]
    for directory in found:
        try:
            children = os.stat(directory).st_nlink > 2  # cgroupfs counts directories as a Unix filesystem does
            if children:
                with os.scandir(directory) as entries:
                    found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            if directory == path:
                return []
    return found


def _remove_one(directory: str, deadline: float) -> None:
    delay = 0.001
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise HostError(
                    f"cannot remove the cgroup {directory}: {error.strerror}", "It still has processes."
                ) from error
            time.sleep(delay)
            delay = min(delay * 2, 0.1)
        else:
            return


def _inherit_cpuset(mount_point: str, directory: str, file: str) -> str:
    """Give a cpuset's list. A new v1 one has none, and takes no process until it has: it gets its parent's."""
    value = _read(f"{directory}/{file}")
    if not value and directory != mount_point:
        value = _inherit_cpuset(mount_point, os.path.dirname(directory), file)
        if value:
            write(f"{directory}/{file}", value)
    return value


def _pass_controllers_on(mount_point: str, directory: str) -> None:
    """Enable controllers in a v2 group and all above it, from the top: none has what its parent does not pass on."""
    if directory != mount_point:
        _pass_controllers_on(mount_point, os.path.dirname(directory))
    _enable_controllers(directory)


def _enable_controllers(directory: str) -> None:
    """Let the children of a v2 group have what it has itself; limits will tell of what a group refuses.

    A group with processes is left alone: it would take controllers of threads and become one whose children take none.
    """
    if os.path.exists(f"{directory}/cgroup.type") and _read(f"{directory}/cgroup.procs"):
        return
    wanted = set(_read(f"{directory}/cgroup.controllers").split())
    for controller in sorted(wanted - set(_read(f"{directory}/cgroup.subtree_control").split())):
        try:
            write(f"{directory}/cgroup.subtree_control", f"+{controller}")
        except HostError:
            continue


def _read(path: str) -> str:
    try:
        return read_file(path).decode().strip()
    except OSError:
        return ""


def _hint(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Setting limits needs root and a writable cgroup filesystem."
    if error.errno == errno.ENOENT:
        return "The controller is not enabled for this group."
    return ""
