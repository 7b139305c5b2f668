"""Containers of users who are not root: what they cannot have is refused by name before anything is made.

Such a user may give a user namespace one id, the own one, or those of /etc/subuid and /etc/subgid with the help of
newuidmap(1) and newgidmap(1). Control groups are used where they may be written to.
"""

from __future__ import annotations

import os

from inclavare.container.executor import SIGNALS
from inclavare.errors import HostError, SpecError
from inclavare.linux import cgroup_limits, cgroups
from inclavare.linux.files import read_file

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.create import Prepared
    from inclavare.oci.linux import IDMapping
    from inclavare.oci.spec import Spec

OUTPUT_MAX = 4096


def check(spec: Spec) -> None:
    """Raise SpecError for what a user who is not root cannot have."""
    linux = spec.linux
    if linux.namespace("user") is None:
        raise SpecError(
            "linux.namespaces",
            "rootless containers need a user namespace of their own",
            "`rune spec --rootless` writes a configuration that has one.",
        )
    uids, gids = linux.uid_mappings, linux.gid_mappings
    if spec.process.user.additional_gids and _is_own(uids, gids):
        raise SpecError(
            "process.user.additionalGids",
            "cannot set additional groups in a rootless container with a single id",
            "Map more ids, with newuidmap(1) and /etc/subuid.",
        )
    for index, mount in enumerate(spec.mounts):
        for option in mount.options:
            name, _, value = option.partition("=")
            mappings = {"uid": uids, "gid": gids}.get(name)
            if mappings is not None and value.isdecimal() and not _is_mapped(int(value), mappings):
                raise SpecError(f"mounts[{index}].options", f"cannot use {option}: the id is not mapped")


def place(prepared: Prepared) -> dict[str, str]:
    """Give the groups of a container, or none where they cannot be made and no limit is asked for."""
    linux = prepared.spec.linux
    paths = cgroups.paths_for(prepared.layout, linux.cgroups_path, prepared.id)
    closed = next((path for path in paths.values() if not _can_make(path)), None)
    if closed is None:
        return paths
    limits = cgroup_limits.v2_settings if prepared.layout.is_v2 else cgroup_limits.v1_limits
    settings = limits(linux.resources)
    if settings or linux.cgroups_path:
        what = f"set {settings[0][1]}" if settings else f"use linux.cgroupsPath {linux.cgroups_path}"
        raise HostError(
            f"cannot {what}: {closed} cannot be made without root",
            "Leave the limits out, or let systemd delegate a cgroup v2 to you (--systemd-cgroup).",
        )
    return {}


def write_mappings(pid: int, uids: list[IDMapping], gids: list[IDMapping]) -> None:
    """Map the ids of a user namespace, with the helpers where there is more than the own id. Raises HostError."""
    if _is_own(uids, gids):
        # Without this the kernel lets nobody but root map groups: setgroups(2) could take rights away (CVE-2014-8989).
        _write(f"/proc/{pid}/setgroups", "deny")
        _write(f"/proc/{pid}/uid_map", _lines(uids))
        _write(f"/proc/{pid}/gid_map", _lines(gids))
        return
    _call("newuidmap", pid, uids)
    _call("newgidmap", pid, gids)


def user_name() -> str:
    """Give the name of who runs rune, or the number of who has none."""
    uid = str(os.geteuid())
    for line in read_file("/etc/passwd").decode("utf-8", "replace").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == uid:
            return fields[0]
    return uid


def _is_own(uids: list[IDMapping], gids: list[IDMapping]) -> bool:
    return [(one.host_id, one.size) for one in uids] == [(os.geteuid(), 1)] and [
        (one.host_id, one.size) for one in gids
    ] == [(os.getegid(), 1)]


def _is_mapped(number: int, mappings: list[IDMapping]) -> bool:
    return any(one.container_id <= number < one.container_id + one.size for one in mappings)


def _can_make(path: str) -> bool:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return os.access(path, os.W_OK | os.X_OK)


def _lines(mappings: list[IDMapping]) -> str:
    return "".join([f"{one.container_id} {one.host_id} {one.size}\n" for one in mappings])


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise HostError(f"cannot write {text.strip()!r} to {path}: {error.strerror}") from error


def _call(name: str, pid: int, mappings: list[IDMapping]) -> None:
    directories = os.getenv("PATH", "").split(":")
    program = next((path for path in (f"{one}/{name}" for one in directories if one) if os.access(path, os.X_OK)), None)
    if program is None:
        raise HostError(f"cannot map more than one id: there is no {name}", "Install it: Debian package uidmap.")
    words = [name, str(pid)]
    for one in mappings:
        words += [str(one.container_id), str(one.host_id), str(one.size)]
    complaint = os.memfd_create(f"rune-{name}", os.MFD_CLOEXEC)
    try:
        helper = os.posix_spawn(
            program,
            words,
            {"PATH": os.getenv("PATH", "")},
            file_actions=[(os.POSIX_SPAWN_DUP2, complaint, 2)],
            setsigmask=(),
            setsigdef=SIGNALS,
        )
        if os.waitpid(helper, 0)[1]:
            said = os.pread(complaint, OUTPUT_MAX, 0).decode("utf-8", "replace").strip()
            raise HostError(f"cannot map ids with `{' '.join(words)}`: {said}", "See /etc/subuid and /etc/subgid.")
    finally:
        os.close(complaint)
