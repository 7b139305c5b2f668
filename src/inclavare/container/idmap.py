"""User namespaces for idmapped mounts (mount_setattr(2) "ID-mapped mounts").

A mount takes its mapping from a user namespace. One is made by a process that does nothing else: a plan of a few steps
that waits while rune writes its mappings and opens it. Only bundles that ask for it come here.
"""

from __future__ import annotations

import os

from inclavare.container.executor import Run
from inclavare.container.facts import is_bind
from inclavare.container.mappings import write_mappings
from inclavare.container.plan import CALL_CLONE, CALL_EXIT, CALL_SEND_PID, CALL_SYNC, Plan
from inclavare.errors import HostError, SpecError
from inclavare.linux import headers as k

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.log import Log
    from inclavare.oci.linux import IDMapping
    from inclavare.oci.spec import Spec

SYNC = 1


def check(spec: Spec, *, enclave: bool) -> list[int]:
    """Give the indices of the mounts with mapped ids. Raises SpecError for one that cannot have them."""
    found = []
    user = spec.linux.namespace("user")
    for index, mount in enumerate(spec.mounts):
        if not (mount.uid_mappings or mount.gid_mappings or "idmap" in mount.options or "ridmap" in mount.options):
            continue
        path = f"mounts[{index}]"
        if not is_bind(mount.type, mount.options):
            raise SpecError(f"{path}.options", "id-mapped mounts are only supported for bind mounts")
        if bool(mount.uid_mappings) != bool(mount.gid_mappings):
            name = "gidMappings" if mount.uid_mappings else "uidMappings"
            raise SpecError(f"{path}.{name}", "a mount with mapped ids needs uidMappings and gidMappings")
        if not mount.uid_mappings and user is None:
            raise SpecError(f"{path}.options", f"{mount.destination} has no mappings, and there is no user namespace")
        if enclave and user is not None:
            raise SpecError(path, "mapped ids in an enclave container with a user namespace are not supported")
        found.append(index)
    return found


def open_namespaces(spec: Spec, indices: list[int], log: Log) -> dict[int, int]:
    """Give, for each mount's index, the fd of a user namespace with its mapping. The caller owns the fds."""
    opened: dict[int, int] = {}
    try:
        for index in indices:
            mount = spec.mounts[index]
            user = spec.linux.namespace("user")
            if not mount.uid_mappings and user is not None and user.path:
                opened[index] = os.open(user.path, os.O_RDONLY | os.O_CLOEXEC)
            else:
                uids = mount.uid_mappings or spec.linux.uid_mappings
                opened[index] = _make(uids, mount.gid_mappings or spec.linux.gid_mappings, log)
    except BaseException as error:
        for fd in opened.values():
            os.close(fd)
        if isinstance(error, OSError):
            raise HostError(f"cannot open a user namespace for a mount: {error.strerror}") from error
        raise
    return opened


def _make(uids: list[IDMapping], gids: list[IDMapping], log: Log) -> int:
    plan = Plan()
    clone = plan.take(CALL_CLONE, words="clone a process for a mount's user namespace")
    plan.add(CALL_SEND_PID, clone, words="tell its pid")
    plan.add(CALL_EXIT, 0, words="end the executor")
    plan.ops[0].args = (k.CLONE_NEWUSER | k.CLONE_PARENT, len(plan.ops))
    plan.add(CALL_SYNC, SYNC, words="wait for the mappings")
    plan.add(CALL_EXIT, 0, words="end")
    opened = -1
    run = Run(plan, [], log)

    def answer(_sync: int) -> None:
        nonlocal opened
        write_mappings(run.pid, uids, gids)
        opened = os.open(f"/proc/{run.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    try:
        run.follow(answer, SYNC)
    except BaseException:
        if opened >= 0:
            os.close(opened)
        raise
    run.kill()
    return opened
