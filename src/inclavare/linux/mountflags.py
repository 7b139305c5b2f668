"""Mount options of the runtime-spec to what the kernel takes.

runtime-spec: config.md "Mounts", config-linux.md "Linux mount options". Words that are no option of ours are the
filesystem's own and go into its data. Hot path.
"""

from __future__ import annotations

from inclavare.errors import SpecError
from inclavare.linux import headers as k

_ATIME = k.MS_NOATIME | k.MS_RELATIME | k.MS_STRICTATIME  # one choice; of several the kernel would not take the last

# word: (flags set, flags cleared)
_FLAGS = {
    "async": (0, k.MS_SYNCHRONOUS),
    "atime": (0, k.MS_NOATIME),
    "bind": (0, 0),
    "defaults": (0, 0),
    "dev": (0, k.MS_NODEV),
    "diratime": (0, k.MS_NODIRATIME),
    "dirsync": (k.MS_DIRSYNC, 0),
    "exec": (0, k.MS_NOEXEC),
    "iversion": (k.MS_I_VERSION, 0),
    "lazytime": (k.MS_LAZYTIME, 0),
    "loud": (0, k.MS_SILENT),
    "mand": (k.MS_MANDLOCK, 0),
    "noatime": (k.MS_NOATIME, _ATIME & ~k.MS_NOATIME),
    "nodev": (k.MS_NODEV, 0),
    "nodiratime": (k.MS_NODIRATIME, 0),
    "noexec": (k.MS_NOEXEC, 0),
    "noiversion": (0, k.MS_I_VERSION),
    "nolazytime": (0, k.MS_LAZYTIME),
    "nomand": (0, k.MS_MANDLOCK),
    "norelatime": (0, k.MS_RELATIME),
    "nostrictatime": (0, k.MS_STRICTATIME),
    "nosuid": (k.MS_NOSUID, 0),
    "nosymfollow": (k.MS_NOSYMFOLLOW, 0),
    "rbind": (0, 0),
    "idmap": (0, 0),
    "ridmap": (0, 0),
    "remount": (k.MS_REMOUNT, 0),
    "relatime": (k.MS_RELATIME, _ATIME & ~k.MS_RELATIME),
    "ro": (k.MS_RDONLY, 0),
    "rw": (0, k.MS_RDONLY),
    "silent": (k.MS_SILENT, 0),
    "strictatime": (k.MS_STRICTATIME, _ATIME & ~k.MS_STRICTATIME),
    "suid": (0, k.MS_NOSUID),
    "symfollow": (0, k.MS_NOSYMFOLLOW),
    "sync": (k.MS_SYNCHRONOUS, 0),
}

PROPAGATION = {
    "private": k.MS_PRIVATE,
    "rprivate": k.MS_PRIVATE | k.MS_REC,
    "shared": k.MS_SHARED,
    "rshared": k.MS_SHARED | k.MS_REC,
    "slave": k.MS_SLAVE,
    "rslave": k.MS_SLAVE | k.MS_REC,
    "unbindable": k.MS_UNBINDABLE,
    "runbindable": k.MS_UNBINDABLE | k.MS_REC,
}

# word: (MOUNT_ATTR_* set, cleared) on a mount and all below it; the kernel changes the choice of atime as a whole
_RECURSIVE = {
    "rro": (k.MOUNT_ATTR_RDONLY, 0),
    "rrw": (0, k.MOUNT_ATTR_RDONLY),
    "rnosuid": (k.MOUNT_ATTR_NOSUID, 0),
    "rsuid": (0, k.MOUNT_ATTR_NOSUID),
    "rnodev": (k.MOUNT_ATTR_NODEV, 0),
    "rdev": (0, k.MOUNT_ATTR_NODEV),
    "rnoexec": (k.MOUNT_ATTR_NOEXEC, 0),
    "rexec": (0, k.MOUNT_ATTR_NOEXEC),
    "rnodiratime": (k.MOUNT_ATTR_NODIRATIME, 0),
    "rdiratime": (0, k.MOUNT_ATTR_NODIRATIME),
    "ratime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR__ATIME),
    "rnorelatime": (0, 0),  # the value of MOUNT_ATTR_RELATIME is 0: there is nothing to clear
    "rnostrictatime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR__ATIME),
    "rrelatime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR__ATIME),
    "rnoatime": (k.MOUNT_ATTR_NOATIME, k.MOUNT_ATTR__ATIME),
    "rstrictatime": (k.MOUNT_ATTR_STRICTATIME, k.MOUNT_ATTR__ATIME),
    "rnosymfollow": (k.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "rsymfollow": (0, k.MOUNT_ATTR_NOSYMFOLLOW),
}

_ATTRIBUTES = (
    (k.MS_RDONLY, k.MOUNT_ATTR_RDONLY),
    (k.MS_NOSUID, k.MOUNT_ATTR_NOSUID),
    (k.MS_NODEV, k.MOUNT_ATTR_NODEV),
    (k.MS_NOEXEC, k.MOUNT_ATTR_NOEXEC),
    (k.MS_NODIRATIME, k.MOUNT_ATTR_NODIRATIME),
    (k.MS_NOSYMFOLLOW, k.MOUNT_ATTR_NOSYMFOLLOW),
    (k.MS_NOATIME, k.MOUNT_ATTR_NOATIME),
    (k.MS_STRICTATIME, k.MOUNT_ATTR_STRICTATIME),
)


class MountFlags:
    """Options of one mount.

    `set` and `clear` are MS_* flags, `propagation` MS_* values in the order to be applied, `recursive_set` and
    `recursive_clear` MOUNT_ATTR_* values for the whole tree, `data` the filesystem's own options. With
    `copy_up` a tmpfs begins with what it hides.
    """

    __slots__ = ("clear", "copy_up", "data", "propagation", "recursive_clear", "recursive_set", "set")

    def __init__(self) -> None:
        self.set = 0
        self.copy_up = False
        self.clear = 0
        self.propagation: list[int] = []
        self.recursive_set = 0
        self.recursive_clear = 0
        self.data = ""


def parse(options: list[str], *, bind: bool, path: str) -> MountFlags:
    """Read the options of the mount at JSON `path`. Later options win.

    Raises SpecError for what is not supported, and for a filesystem's options on a bind mount, which has none.
    """
    result = MountFlags()
    data = []
    for index, option in enumerate(options):
        if option in _FLAGS:
            set_, clear = _FLAGS[option]
            result.set = result.set & ~clear | set_
            result.clear = result.clear & ~set_ | clear
        elif option in PROPAGATION:
            result.propagation.append(PROPAGATION[option])
        elif option in _RECURSIVE:
            set_, clear = _RECURSIVE[option]
            result.recursive_set = result.recursive_set & ~clear | set_
            result.recursive_clear = result.recursive_clear & ~set_ | clear
        elif option == "tmpcopyup" and not bind:
            result.copy_up = True
        elif option:
            if bind:
                raise SpecError(f"{path}[{index}]", f"a bind mount has no option {option!r}")
            data.append(option)
    result.data = ",".join(data)
    return result


def known() -> list[str]:
    """Give the options that are not left to the filesystem, sorted."""
    return sorted([*_FLAGS, *PROPAGATION, *_RECURSIVE])


def attributes(flags: int) -> int:
    """Give the MOUNT_ATTR_* values for those MS_* flags that a single mount has (not its filesystem)."""
    result = 0
    for flag, attribute in _ATTRIBUTES:
        if flags & flag:
            result |= attribute
    return result
