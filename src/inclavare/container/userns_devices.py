"""The steps for devices in a user namespace, where mknod(2) makes none.

The executor, still in the host's user namespace, makes the nodes on a tmpfs that is mounted nowhere. The container's
process mounts it in its own mount namespace, takes each node as a mount of its own, and lets go of the rest: nothing
of it is ever on the host. Pure.
"""

from __future__ import annotations

from inclavare.container.device_plan import DEFAULT_DEVICES, DEVICE_TYPES, device_number
from inclavare.errors import SpecError
from inclavare.linux import headers as k
from inclavare.linux.calls import (
    SYS_CLOSE,
    SYS_FCHOWNAT,
    SYS_FSCONFIG,
    SYS_FSMOUNT,
    SYS_FSOPEN,
    SYS_MKNODAT,
    SYS_MOUNT_SETATTR,
    SYS_MOVE_MOUNT,
    SYS_OPEN_TREE,
    SYS_UMASK,
    SYS_UMOUNT2,
)

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.plan import Plan, Slot
    from inclavare.oci.linux import Device, IDMapping, Linux


def make_nodes(plan: Plan, linux: Linux) -> tuple[Slot, list[str]]:
    """Plan a detached tmpfs with nodes named 0, 1, ...; give it, and the nodes' paths in the container."""
    context = plan.take(SYS_FSOPEN, plan.string("tmpfs"), k.FSOPEN_CLOEXEC, words="open a tmpfs for devices")
    plan.add(SYS_FSCONFIG, context, k.FSCONFIG_CMD_CREATE, 0, 0, 0, words="make the tmpfs for devices")
    attributes = k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC
    tree = plan.take(SYS_FSMOUNT, context, k.FSMOUNT_CLOEXEC, attributes, words="make a mount of it")
    plan.add(SYS_CLOSE, context, words="close it")
    plan.add(SYS_UMASK, 0, words="make devices with the modes given")
    paths: list[str] = []

    def make(path: str, mode: int, number: int, uid: int, gid: int) -> None:
        name = plan.string(str(len(paths)))
        paths.append(path)
        plan.add(SYS_MKNODAT, tree, name, mode, number, words=f"make the device {path}")
        if uid or gid:
            plan.add(SYS_FCHOWNAT, tree, name, uid, gid, 0, words=f"give the device {path} to {uid}:{gid} of the host")

    root_uid, root_gid = (_on_host(maps, 0) or 0 for maps in (linux.uid_mappings, linux.gid_mappings))
    listed = {device.path for device in linux.devices}
    for path, major, minor in DEFAULT_DEVICES:
        if path not in listed:
            make(path, DEVICE_TYPES["c"] | 0o666, device_number(major, minor), root_uid, root_gid)
    for index, device in enumerate(linux.devices):
        if device.type == "p":
            continue  # made inside
        where = f"linux.devices[{index}]"
        uid = _need_on_host(linux.uid_mappings, device.uid or 0, f"{where}.uid")
        gid = _need_on_host(linux.gid_mappings, device.gid or 0, f"{where}.gid")
        mode = DEVICE_TYPES[device.type] | (0o666 if device.file_mode is None else device.file_mode)
        make(device.path, mode, device_number(device.major, device.minor), uid, gid)
    return tree, paths


def open_nodes(plan: Plan, devices: list[Device], nodes: tuple[Slot, list[str]] | None) -> dict[str, Slot]:
    """Plan, in the container's mount namespace, a detached mount of each device: of `nodes`, or else of the host's."""
    if nodes is not None:
        return _take_nodes(plan, *nodes)
    paths = [path for path, _, _ in DEFAULT_DEVICES]
    paths += [device.path for device in devices if device.type != "p" and device.path not in paths]
    attributes = (k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NOEXEC).to_bytes(32, "little")
    attr, empty, trees = plan.data(attributes), plan.string(""), {}
    flags = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC
    for path in paths:
        trees[path] = plan.take(SYS_OPEN_TREE, k.AT_FDCWD, plan.string(path), flags, words=f"open {path}")
        words = f"let no program run from {path}"
        plan.add(SYS_MOUNT_SETATTR, trees[path], empty, k.AT_EMPTY_PATH, attr, 32, words=words)
    return trees


def _take_nodes(plan: Plan, tree: Slot, paths: list[str]) -> dict[str, Slot]:
    # The host's /dev is hidden meanwhile, for this process only.
    empty, dev = plan.string(""), plan.string("/dev")
    flags = k.MOVE_MOUNT_F_EMPTY_PATH
    plan.add(SYS_MOVE_MOUNT, tree, empty, k.AT_FDCWD, dev, flags, words="mount the devices for a moment")
    flags = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC
    nodes = {
        path: plan.take(SYS_OPEN_TREE, tree, plan.string(str(index)), flags, words=f"take the device {path}")
        for index, path in enumerate(paths)
    }
    plan.add(SYS_UMOUNT2, dev, k.MNT_DETACH, words="let go of the devices' tmpfs")
    plan.add(SYS_CLOSE, tree, words="close it")
    return nodes


def _on_host(mappings: list[IDMapping], inside: int) -> int | None:
    for mapping in mappings:
        if mapping.container_id <= inside < mapping.container_id + mapping.size:
            return mapping.host_id + inside - mapping.container_id
    return None


def _need_on_host(mappings: list[IDMapping], inside: int, path: str) -> int:
    found = _on_host(mappings, inside)
    if found is None:
        raise SpecError(path, f"{inside} is not mapped in the user namespace", "map it, or name an owner that is")
    return found
