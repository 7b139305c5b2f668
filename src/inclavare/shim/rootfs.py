"""The root filesystem of a bundle: mounts what containerd's snapshotter names, and takes it away again."""

from __future__ import annotations

import errno
import os

from inclavare.container.rootfs_plan import read_mounts
from inclavare.errors import HostError
from inclavare.linux import headers as k
from inclavare.linux import mountflags, syscall

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from typing import Any

DATA_MAX = 4095  # mount(2) takes a page, with its end


def mount(mounts: list[dict[str, Any]], rootfs: str) -> None:
    """Mount all, in their order, on `rootfs` or below it (`target`). On failure nothing is left. Raises HostError."""
    if not mounts:
        return
    os.makedirs(rootfs, 0o711, exist_ok=True)
    try:
        for index, entry in enumerate(mounts):
            _mount(entry, rootfs, f"rootfs[{index}]")
    except BaseException:
        umount(rootfs)
        raise


def umount(rootfs: str) -> None:
    """Take away whatever is mounted on `rootfs` and below it. Raises HostError."""
    for target in reversed(_mounted_at(rootfs)):
        try:
            syscall.umount(target, k.MNT_DETACH | k.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # it has gone
                raise HostError(f"cannot unmount {target}: {error.strerror}") from error


def _mount(entry: dict[str, Any], rootfs: str, path: str) -> None:
    kind, source, words = entry.get("type", ""), entry.get("source", ""), list(entry.get("options", []))
    target = rootfs
    if entry.get("target"):
        target = f"{rootfs}/{entry['target']}"
        if os.path.realpath(target) != os.path.normpath(target):
            raise HostError(f"cannot mount {path} on {target}: it is not a directory of the root filesystem")
    bind = kind == "bind" or "bind" in words or "rbind" in words
    options = mountflags.parse(words, bind=bind, path=f"{path}.options")
    flags = options.set
    try:
        if bind:
            recursive = k.MS_REC if "rbind" in words else 0
            syscall.mount(source, target, "", k.MS_BIND | recursive, "")
            if flags & ~k.MS_REC:
                syscall.mount("", target, "", k.MS_BIND | k.MS_REMOUNT | flags, "")
        elif len(os.fsencode(options.data)) > DATA_MAX:
            _mount_overlay(source, target, kind, flags, options.data)
        else:
            syscall.mount(source, target, kind, flags, options.data)
        for propagation in options.propagation:
            syscall.mount("", target, "", propagation, "")
    except OSError as error:
        raise HostError(
            f"cannot mount {kind or 'bind'} from {source} on {target}: {error.strerror}",
            "The snapshotter asked for it; the kernel's log may tell more.",
        ) from error


def _mount_overlay(source: str, target: str, kind: str, flags: int, data: str) -> None:
    """Name many layers by what differs in their paths: the working directory is what they have in common."""
    words = data.split(",")
    at = next((at for at, word in enumerate(words) if word.startswith("lowerdir=")), -1)
    layers = words[at].removeprefix("lowerdir=").split(":") if at >= 0 else []
    common = os.path.commonpath(layers) if layers and all(layer.startswith("/") for layer in layers) else ""
    if not common:
        raise HostError(f"cannot mount {kind} on {target}: its options are longer than {DATA_MAX} bytes")
    words[at] = "lowerdir=" + ":".join(os.path.relpath(layer, common) for layer in layers)
    before = os.getcwd()
    os.chdir(common)
    try:
        syscall.mount(source, target, kind, flags, ",".join(words))
    finally:
        os.chdir(before)


def _mounted_at(rootfs: str) -> list[str]:
    real = os.path.realpath(rootfs)
    return [point for point, _ in read_mounts() if point == real or point.startswith(f"{real}/")]
