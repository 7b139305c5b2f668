"""The steps that fill /dev: devices and links (config-linux.md "Devices", "Default Devices", "Dev symbolic links").

Pure. Hot path.
"""

from __future__ import annotations

from errno import EEXIST, ENOENT

from inclavare.container.plan import CALL_DEVICE, CALL_MKDIRS, CALL_MKFILE, Plan, Slot
from inclavare.linux import headers as k
from inclavare.linux.calls import SYS_CLOSE, SYS_MOVE_MOUNT, SYS_SYMLINKAT, SYS_UNLINKAT

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.linux import Device

DEFAULT_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
DEFAULT_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
)
DEVICE_TYPES = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}


def attach(plan: Plan, tree: Slot, destination: str, words: str) -> None:
    """Plan to put the detached mount `tree` at its place in the container."""
    flags = k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_SYMLINKS
    plan.add(SYS_MOVE_MOUNT, tree, plan.string(""), k.AT_FDCWD, plan.string(destination), flags, words=words)
    plan.add(SYS_CLOSE, tree, words="close it")


def make_devices(plan: Plan, devices: list[Device], trees: dict[str, Slot]) -> None:
    """Plan the devices that every container has, those of `devices`, and the links of /dev.

    `trees` maps a path to a mount to be put there: in a user namespace devices are mounts.
    """
    listed = {device.path for device in devices}
    for path, major, minor in DEFAULT_DEVICES:
        if path not in listed:
            _make_device(plan, trees, path, DEVICE_TYPES["c"], 0o666, major, minor, 0, 0)
    for device in devices:
        mode = 0o666 if device.file_mode is None else device.file_mode & 0o7777
        _make_device(
            plan,
            trees,
            device.path,
            DEVICE_TYPES[device.type],
            mode,
            device.major,
            device.minor,
            device.uid or 0,
            device.gid or 0,
        )
    for path, target in DEFAULT_LINKS:
        plan.add(
            SYS_SYMLINKAT,
            plan.string(target),
            k.AT_FDCWD,
            plan.string(path),
            words=f"link {path} to {target}",
            tolerate=(EEXIST,),
        )
    plan.add(
        SYS_UNLINKAT,
        k.AT_FDCWD,
        plan.string("/dev/ptmx"),
        0,
        words="remove the image's /dev/ptmx",
        tolerate=(ENOENT,),
    )
    plan.add(
        SYS_SYMLINKAT,
        plan.string("pts/ptmx"),
        k.AT_FDCWD,
        plan.string("/dev/ptmx"),
        words="link /dev/ptmx to pts/ptmx",
    )


def _make_device(
    plan: Plan, trees: dict[str, Slot], path: str, kind: int, mode: int, major: int, minor: int, uid: int, gid: int
) -> None:
    tree = trees.get(path)
    if tree is not None:
        plan.add(CALL_MKFILE, plan.string(path), 0o644, words=f"make the mount point {path}")
        attach(plan, tree, path, f"bind the host's {path}")
        return
    path = path.rstrip("/")
    parent = path.rpartition("/")[0]
    if parent not in ("/dev", ""):
        plan.add(CALL_MKDIRS, plan.string(parent), 0o755, words=f"make {parent}")
    there = f"cannot make the device {path}: the image has something else there"
    words = f"make the device {path}"
    plan.add(
        CALL_DEVICE,
        plan.string(path),
        kind | mode,
        device_number(major, minor),
        uid,
        gid,
        words=words,
        sentences={EEXIST: there},
    )


def device_number(major: int, minor: int) -> int:
    """Give the number of a device as mknod(2) takes it: 12 bits of major, 20 of minor."""
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
