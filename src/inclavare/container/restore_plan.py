"""Plans the three things that a restore needs besides CRIU: mount points, CRIU's own place, the loopback. Pure."""

from __future__ import annotations

from inclavare.container.facts import is_bind, source_path
from inclavare.container.plan import CALL_END_SYNC, CALL_EXEC, CALL_EXIT, CALL_MKDIRS, CALL_MKFILE, CALL_SYNC, Plan
from inclavare.container.planner import attach_device_filter, raise_loopback
from inclavare.container.process_plan import add_death_signal
from inclavare.container.steps import SYNC_READY, add_cgroup_join, add_clone
from inclavare.linux import headers as k
from inclavare.linux.calls import (
    SYS_CHDIR,
    SYS_CLOSE,
    SYS_MOUNT,
    SYS_MOVE_MOUNT,
    SYS_OPEN_TREE,
    SYS_PIVOT_ROOT,
    SYS_SETNS,
    SYS_UMASK,
    SYS_UMOUNT2,
)

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.planner import Request


def plan_mount_points(request: Request) -> Plan:
    """Make the mount points that a container of this spec has, in its rootfs and in what is bound into it.

    What lies on a tmpfs is CRIU's to restore. As at create, the root is pivoted first, so no link leads out of it.
    """
    plan, spec = Plan(), request.spec
    add_clone(plan, k.CLONE_NEWNS)
    add_death_signal(plan)
    _keep_to_ourselves(plan)
    trees = {}
    for index, mount in enumerate(spec.mounts):
        if is_bind(mount.type, mount.options):
            source = source_path(mount.source, request.bundle)
            flags = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_RECURSIVE
            trees[index] = plan.take(SYS_OPEN_TREE, k.AT_FDCWD, plan.string(source), flags, words=f"open {source}")
    rootfs, here = plan.string(request.rootfs), plan.string(".")
    plan.add(SYS_MOUNT, rootfs, rootfs, 0, k.MS_BIND | k.MS_REC, 0, words=f"bind the rootfs {request.rootfs}")
    plan.add(SYS_CHDIR, rootfs, words=f"enter {request.rootfs}")
    plan.add(SYS_PIVOT_ROOT, here, here, words="make it the root")
    plan.add(SYS_UMOUNT2, here, k.MNT_DETACH, words="let go of the host's root")
    plan.add(SYS_CHDIR, plan.string("/"), words="enter the root")
    plan.add(SYS_UMASK, 0, words="make directories with the modes given")
    fresh = [f"{mount.destination}/" for mount in spec.mounts if mount.type in ("tmpfs", "cgroup", "sysfs", "proc")]
    for index, mount in enumerate(spec.mounts):
        path = mount.destination
        if any(path.startswith(prefix) for prefix in fresh):
            continue
        tree = trees.get(index)
        call, mode = CALL_MKDIRS, 0o755
        if tree is not None and not request.facts.sources[source_path(mount.source, request.bundle)]:
            call = CALL_MKFILE
        plan.add(call, plan.string(path), mode, words=f"make the mount point {path}")
        if tree is not None:
            attach = k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_SYMLINKS
            words = f"mount {mount.source} on {path}"
            plan.add(SYS_MOVE_MOUNT, tree, plan.string(""), k.AT_FDCWD, plan.string(path), attach, words=words)
    return _end(plan)


def plan_criu(request: Request, root: str, program: str, socket: int, environment: list[str]) -> Plan:
    """Start CRIU in the container's control groups, with the rootfs mounted on `root` for nobody else to see.

    CRIU wants a mount point as root whose parent is not covered, which the rootfs of an engine need not be.
    """
    plan = Plan()
    if request.device_filter:
        attach_device_filter(plan, request)
    add_clone(plan, k.CLONE_NEWNS)
    add_death_signal(plan)
    add_cgroup_join(plan, request.cgroup_fds)
    _keep_to_ourselves(plan)
    rootfs, flags = plan.string(request.rootfs), k.MS_BIND | k.MS_REC
    plan.add(SYS_MOUNT, rootfs, plan.string(root), 0, flags, 0, words=f"bind the rootfs {request.rootfs}")
    plan.add(CALL_SYNC, SYNC_READY, words="report that CRIU can start")
    plan.add(CALL_END_SYNC, words="take leave of rune")
    argv = plan.strings([program, "swrk", str(socket)])
    plan.add(CALL_EXEC, plan.string(program), argv, plan.strings(environment), words=f"start {program}")
    return plan


def plan_loopback(namespace: int) -> Plan:
    """Raise the loopback device of a network namespace, given by an fd."""
    plan = Plan()
    add_clone(plan, 0)
    plan.add(SYS_SETNS, namespace, k.CLONE_NEWNET, words="enter the container's network namespace")
    plan.add(SYS_CLOSE, namespace, words="close it")
    raise_loopback(plan)
    return _end(plan)


def _keep_to_ourselves(plan: Plan) -> None:
    flags = k.MS_SLAVE | k.MS_REC
    plan.add(SYS_MOUNT, 0, plan.string("/"), 0, flags, 0, words="keep our mounts from reaching the host")


def _end(plan: Plan) -> Plan:
    plan.add(CALL_SYNC, SYNC_READY, words="report that it is done")
    plan.add(CALL_EXIT, 0, words="end")
    return plan
