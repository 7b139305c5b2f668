"""How the root is entered where it is not the usual way: rootfsPropagation other than rslave, and `--no-pivot`.

runtime-spec: config-linux.md "Rootfs Mount Propagation". Pure, but for `read_mounts`.
"""

from __future__ import annotations

from errno import EINVAL, EPERM

from inclavare.linux import headers as k
from inclavare.linux import mountflags
from inclavare.linux.calls import SYS_CHDIR, SYS_CHROOT, SYS_MOUNT, SYS_UMOUNT2
from inclavare.linux.files import read_file

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.plan import Plan

KERNEL = ("proc", "sysfs")


def read_mounts() -> list[tuple[str, str]]:
    """Give (mount point, type) of every mount we see, in the order they were made (proc_pid_mountinfo(5))."""
    mounts = []
    for line in read_file("/proc/self/mountinfo").decode("utf-8", "surrogateescape").splitlines():
        words = line.split(" ")
        mounts.append((_unescape(words[4]), words[words.index("-") + 1]))
    return mounts


def share(plan: Plan, propagation: str) -> None:
    """Plan what our mounts share with the host's while their sources are opened.

    Bind mounts take part in what their sources share, so those stay as asked for. Nothing can be bound of an unbindable
    mount; until the root is entered it is private.
    """
    while_opening = {"unbindable": "private", "runbindable": "rprivate"}.get(propagation, propagation)
    value = mountflags.PROPAGATION[while_opening]
    plan.add(SYS_MOUNT, 0, plan.string("/"), 0, value, 0, words=f"make our mounts {while_opening}")


def separate(plan: Plan, mounts: list[tuple[str, str]], rootfs: str) -> None:
    """Plan to share nothing between the root filesystem and the mount it is in: pivot_root(2) refuses that."""
    for point in {"/": 0, _mount_point_of(rootfs, mounts): 0}:
        words = f"make the mount {point} private"
        plan.add(SYS_MOUNT, 0, plan.string(point), 0, k.MS_PRIVATE, 0, words=words)


def move(plan: Plan, mounts: list[tuple[str, str]], rootfs: str, *, userns: bool) -> None:
    """Plan to enter the root without pivot_root(2), which an initramfs does not have.

    The working directory is the root filesystem. The host's mounts stay below it, out of sight; its proc and sysfs are
    let go (in a user namespace, which cannot, hidden): of a fully visible one the container could make another.
    """
    plan.add(SYS_MOUNT, 0, plan.string("/"), 0, k.MS_SLAVE | k.MS_REC, 0, words="keep that from reaching the host")
    for point, kind in reversed(mounts):
        if kind not in KERNEL or point == rootfs or point.startswith(rootfs + "/"):
            continue
        path = plan.string(point)
        if userns:
            tmpfs = plan.string("tmpfs")
            plan.add(SYS_MOUNT, tmpfs, path, tmpfs, k.MS_RDONLY, 0, words=f"hide the host's {point}")
        else:
            words = f"let go of the host's {point}"
            plan.add(SYS_UMOUNT2, path, k.MNT_DETACH, words=words, tolerate=(EINVAL, EPERM))
    here, top = plan.string("."), plan.string("/")
    plan.add(SYS_MOUNT, here, top, 0, k.MS_MOVE, 0, words="move the rootfs over the root")
    plan.add(SYS_CHROOT, here, words="make it the root")
    plan.add(SYS_CHDIR, top, words="enter the root")


def _mount_point_of(path: str, mounts: list[tuple[str, str]]) -> str:
    found = "/"
    for point, _ in mounts:
        if len(point) > len(found) and (path == point or path.startswith(point + "/")):
            found = point
    return found


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
