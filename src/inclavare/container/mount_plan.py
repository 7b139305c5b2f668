"""The steps that make a container's root: mounts, devices, masks.

What comes from the host is opened as a detached mount first, while the host is visible; then the root is pivoted and
the old one let go; everything after that happens by plain absolute path inside the container. So every symlink of an
image resolves inside the container by construction (CVE-2021-30465 and its like), without a walk on the host.

Pure. Hot path.
"""

from __future__ import annotations

from errno import EEXIST, ENOENT

from inclavare.container.facts import is_bind, source_path
from inclavare.container.plan import CALL_MASK, CALL_MKDIRS, CALL_MKFILE, CALL_READ_ONLY, Plan, Slot
from inclavare.errors import SpecError
from inclavare.linux import headers as k
from inclavare.linux import mountflags
from inclavare.linux.calls import (
    SYS_CHDIR,
    SYS_CLOSE,
    SYS_FCHOWNAT,
    SYS_FSCONFIG,
    SYS_FSMOUNT,
    SYS_FSOPEN,
    SYS_MKNODAT,
    SYS_MOUNT,
    SYS_MOUNT_SETATTR,
    SYS_MOVE_MOUNT,
    SYS_OPEN_TREE,
    SYS_OPENAT2,
    SYS_PIVOT_ROOT,
    SYS_SYMLINKAT,
    SYS_UMASK,
    SYS_UMOUNT2,
    SYS_UNLINKAT,
)

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.facts import Facts
    from inclavare.linux.mountflags import MountFlags
    from inclavare.oci.linux import Device
    from inclavare.oci.spec import Mount, Spec

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
# Filesystems of a new namespace. In a user namespace the kernel wants to see the host's own when they are mounted, so
# they are made before the pivot.
DETACHED_IN_USERNS = ("proc", "sysfs")


class CgroupMount:
    """One directory to show below a mount of type cgroup: the container's own, as the host has it."""

    __slots__ = ("name", "source")

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source


class Root:
    """The plan of a root filesystem, in the order of its calls: `open_sources`, `pivot`, `fill`, `finish`."""

    __slots__ = (
        "_bundle",
        "_cgroup_v2",
        "_cgroupns",
        "_cgroups",
        "_facts",
        "_flags",
        "_masks",
        "_plan",
        "_rootfs",
        "_spec",
        "_trees",
        "_userns",
    )

    def __init__(
        self,
        plan: Plan,
        spec: Spec,
        facts: Facts,
        bundle: str,
        rootfs: str,
        cgroups: list[CgroupMount],
        *,
        userns: bool,
        cgroupns: bool,
        cgroup_v2: bool,
    ) -> None:
        self._plan = plan
        self._spec = spec
        self._facts = facts
        self._bundle = bundle
        self._rootfs = rootfs
        self._cgroups = cgroups
        self._userns = userns
        self._cgroupns = cgroupns
        self._cgroup_v2 = cgroup_v2
        self._flags = [
            mountflags.parse(mount.options, bind=is_bind(mount.type, mount.options), path=f"mounts[{index}].options")
            for index, mount in enumerate(spec.mounts)
        ]
        self._trees: dict[str, Slot] = {}
        self._masks: list[Slot] = []

    def open_sources(self) -> None:
        """Open what comes from the host as detached mounts."""
        plan, spec = self._plan, self._spec
        propagation = mountflags.PROPAGATION[spec.linux.rootfs_propagation or "rslave"]
        plan.add(
            SYS_MOUNT, 0, plan.string("/"), 0, propagation | k.MS_REC, 0, words="keep our mounts from reaching the host"
        )
        for index, (mount, flags) in enumerate(zip(spec.mounts, self._flags, strict=True)):
            self._open_source(index, mount, flags)
        if self._userns and self._own_dev():
            for path, _, _ in DEFAULT_DEVICES:
                self._trees[path] = self._clone(path, recursive=False)
            for device in self._devices():
                self._trees[device.path] = self._clone(device.path, recursive=False)
        self._masks = [self._clone("/dev/null", recursive=False, what=f" for {path}") for path in self._masked()]

    def pivot(self) -> None:
        """Make the rootfs the root and let the host's go."""
        plan = self._plan
        rootfs = plan.string(self._rootfs)
        plan.add(SYS_MOUNT, rootfs, rootfs, 0, k.MS_BIND | k.MS_REC, 0, words=f"bind the rootfs {self._rootfs}")
        plan.add(SYS_CHDIR, rootfs, words=f"enter {self._rootfs}")
        here = plan.string(".")
        plan.add(SYS_PIVOT_ROOT, here, here, words="make it the root")
        plan.add(SYS_UMOUNT2, here, k.MNT_DETACH, words="let go of the host's root")
        plan.add(SYS_CHDIR, plan.string("/"), words="enter the root")

    def fill(self) -> None:
        """Mount everything, make devices and links."""
        plan, spec = self._plan, self._spec
        plan.add(SYS_UMASK, 0, words="make files with the modes given")
        for index, (mount, flags) in enumerate(zip(spec.mounts, self._flags, strict=True)):
            self._mount(index, mount, flags)
        if self._own_dev():
            self._make_devices()
        plan.add(
            CALL_MKDIRS, plan.string(spec.process.cwd), 0o755, words=f"make the working directory {spec.process.cwd}"
        )

    def finish(self) -> None:
        """Make read-only what is to be, and hide what is to be hidden."""
        plan, spec = self._plan, self._spec
        for mount, flags in zip(spec.mounts, self._flags, strict=True):
            if _late_read_only(mount, flags):
                self._set_attributes(mount.destination, k.MOUNT_ATTR_RDONLY, f"make {mount.destination} read-only")
        if spec.root.readonly:
            self._set_attributes("/", k.MOUNT_ATTR_RDONLY, "make the root read-only")
        for path in self._read_only():
            plan.add(CALL_READ_ONLY, plan.string(path), words=f"make {path} read-only")
        for path, slot in zip(self._masked(), self._masks, strict=True):
            plan.add(CALL_MASK, plan.string(path), slot, words=f"hide {path}")
        if spec.linux.rootfs_propagation:
            value = mountflags.PROPAGATION[spec.linux.rootfs_propagation]
            plan.add(
                SYS_MOUNT,
                0,
                plan.string("/"),
                0,
                value,
                0,
                words=f"make the root's propagation {spec.linux.rootfs_propagation}",
            )

    # -- sources ------------------------------------------------------------------------------------------------

    def _open_source(self, index: int, mount: Mount, flags: MountFlags) -> None:
        key = f"mounts[{index}]"
        if is_bind(mount.type, mount.options):
            source = source_path(mount.source, self._bundle)
            self._trees[key] = self._clone(source, recursive="rbind" in mount.options)
            self._set_tree_attributes(self._trees[key], flags, source)
        elif mount.type in DETACHED_IN_USERNS and self._userns:
            self._trees[key] = self._make_filesystem(mount.type, flags)
        elif mount.type == "cgroup" and not self._cgroupns:
            for cgroup in self._cgroups:
                self._trees[f"{key}/{cgroup.name}"] = tree = self._clone(cgroup.source, recursive=False)
                self._set_tree_attributes(tree, flags, cgroup.source)

    def _clone(self, source: str, *, recursive: bool, what: str = "") -> Slot:
        plan = self._plan
        flags = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | (k.AT_RECURSIVE if recursive else 0)
        return plan.take(SYS_OPEN_TREE, k.AT_FDCWD, plan.string(source), flags, words=f"open {source}{what}")

    def _make_filesystem(self, kind: str, flags: MountFlags) -> Slot:
        plan = self._plan
        context = plan.take(SYS_FSOPEN, plan.string(kind), k.FSOPEN_CLOEXEC, words=f"open a {kind} filesystem")
        plan.add(SYS_FSCONFIG, context, k.FSCONFIG_CMD_CREATE, 0, 0, 0, words=f"make the {kind} filesystem")
        attributes = mountflags.attributes(flags.set)
        tree = plan.take(SYS_FSMOUNT, context, k.FSMOUNT_CLOEXEC, attributes, words=f"make a mount of {kind}")
        plan.add(SYS_CLOSE, context, words="close it")
        return tree

    def _set_tree_attributes(self, tree: Slot, flags: MountFlags, what: str) -> None:
        """A bind mount keeps its source's attributes but for those that the options name."""
        plan = self._plan
        set_, clear = mountflags.attributes(flags.set), mountflags.attributes(flags.clear) & ~k.MOUNT_ATTR__ATIME
        unset = flags.clear & (k.MS_NOATIME | k.MS_STRICTATIME)
        if set_ & k.MOUNT_ATTR__ATIME or flags.set & k.MS_RELATIME or unset:
            clear |= k.MOUNT_ATTR__ATIME  # one field, set as a whole; 0 is relatime
        if set_ or clear:
            attr = plan.data(_mount_attr(set_, clear, 0))
            plan.add(
                SYS_MOUNT_SETATTR, tree, plan.string(""), k.AT_EMPTY_PATH, attr, 32, words=f"set the options of {what}"
            )
        if flags.recursive_set or flags.recursive_clear:
            attr = plan.data(_mount_attr(flags.recursive_set, flags.recursive_clear, 0))
            plan.add(
                SYS_MOUNT_SETATTR,
                tree,
                plan.string(""),
                k.AT_EMPTY_PATH | k.AT_RECURSIVE,
                attr,
                32,
                words=f"set the options of all below {what}",
            )

    # -- mounts -------------------------------------------------------------------------------------------------

    def _mount(self, index: int, mount: Mount, flags: MountFlags) -> None:
        plan = self._plan
        destination = mount.destination
        tree = self._trees.get(f"mounts[{index}]")
        if is_bind(mount.type, mount.options):
            if self._facts.sources[source_path(mount.source, self._bundle)]:
                plan.add(CALL_MKDIRS, plan.string(destination), 0o755, words=f"make the mount point {destination}")
            else:
                plan.add(CALL_MKFILE, plan.string(destination), 0o755, words=f"make the mount point {destination}")
        else:
            plan.add(CALL_MKDIRS, plan.string(destination), 0o755, words=f"make the mount point {destination}")
        if mount.type in DETACHED_IN_USERNS:
            self._check_no_symlink(destination, mount.type)
        if tree is not None:
            self._attach(tree, destination, f"mount {mount.source or mount.type} on {destination}")
        elif mount.type == "cgroup":
            self._mount_cgroup(index, mount, flags)
        else:
            self._mount_new(index, mount, flags)
        for propagation in flags.propagation:
            plan.add(
                SYS_MOUNT, 0, plan.string(destination), 0, propagation, 0, words=f"set the propagation of {destination}"
            )

    def _mount_new(self, index: int, mount: Mount, flags: MountFlags) -> None:
        plan = self._plan
        if not mount.type:
            raise SpecError(f"mounts[{index}].type", f"{mount.destination} has neither a type nor the option bind")
        if flags.recursive_set or flags.recursive_clear:
            raise SpecError(f"mounts[{index}].options", "recursive options need a bind mount")
        value = flags.set & ~k.MS_RDONLY if _late_read_only(mount, flags) else flags.set
        plan.add(
            SYS_MOUNT,
            plan.string(mount.source or mount.type),
            plan.string(mount.destination),
            plan.string(mount.type),
            value,
            plan.string(flags.data) if flags.data else 0,
            words=f"mount {mount.type} on {mount.destination}",
        )

    def _mount_cgroup(self, index: int, mount: Mount, flags: MountFlags) -> None:
        """The unified hierarchy, or a tmpfs with one directory per hierarchy, as the host has them."""
        plan, destination = self._plan, mount.destination
        if self._cgroup_v2:
            for cgroup in self._cgroups:
                tree = self._trees.get(f"mounts[{index}]/{cgroup.name}")
                if tree is not None:
                    self._attach(tree, destination, f"mount {cgroup.source} on {destination}")
                else:
                    kind = plan.string("cgroup2")
                    words = f"mount cgroup2 on {destination}"
                    plan.add(
                        SYS_MOUNT, plan.string("cgroup"), plan.string(destination), kind, flags.set, 0, words=words
                    )
            return
        inner = flags.set & ~k.MS_RDONLY
        plan.add(
            SYS_MOUNT,
            plan.string("tmpfs"),
            plan.string(destination),
            plan.string("tmpfs"),
            inner,
            plan.string("mode=755"),
            words=f"mount tmpfs on {destination}",
        )
        for cgroup in self._cgroups:
            path = f"{destination}/{cgroup.name}"
            plan.add(CALL_MKDIRS, plan.string(path), 0o755, words=f"make the mount point {path}")
            tree = self._trees.get(f"mounts[{index}]/{cgroup.name}")
            if tree is not None:
                self._attach(tree, path, f"mount {cgroup.source} on {path}")
            else:
                options = "none,name=systemd" if cgroup.name == "systemd" else cgroup.name
                plan.add(
                    SYS_MOUNT,
                    plan.string("cgroup"),
                    plan.string(path),
                    plan.string("cgroup"),
                    flags.set,
                    plan.string(options),
                    words=f"mount the {cgroup.name} cgroups on {path}",
                )
            for part in cgroup.name.split(",") if "," in cgroup.name else ():
                plan.add(
                    SYS_SYMLINKAT,
                    plan.string(cgroup.name),
                    k.AT_FDCWD,
                    plan.string(f"{destination}/{part}"),
                    words=f"link {part}",
                    tolerate=(EEXIST,),
                )
        if flags.set & k.MS_RDONLY:
            self._set_attributes(destination, k.MOUNT_ATTR_RDONLY, f"make {destination} read-only")

    def _attach(self, tree: Slot, destination: str, words: str) -> None:
        plan = self._plan
        flags = k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_SYMLINKS
        plan.add(SYS_MOVE_MOUNT, tree, plan.string(""), k.AT_FDCWD, plan.string(destination), flags, words=words)
        plan.add(SYS_CLOSE, tree, words="close it")

    def _set_attributes(self, path: str, attributes: int, words: str) -> None:
        plan = self._plan
        attr = plan.data(_mount_attr(attributes, 0, 0))
        plan.add(SYS_MOUNT_SETATTR, k.AT_FDCWD, plan.string(path), 0, attr, 32, words=words)

    def _check_no_symlink(self, path: str, kind: str) -> None:
        """A proc elsewhere would let writes meant for /proc go to a file of the image (CVE-2019-16884, 2023-28642)."""
        plan = self._plan
        how = plan.words64([k.O_PATH | k.O_DIRECTORY | k.O_CLOEXEC, 0, k.RESOLVE_NO_SYMLINKS])
        fd = plan.take(
            SYS_OPENAT2,
            k.AT_FDCWD,
            plan.string(path),
            how,
            24,
            words=f"check that {path} is a directory for {kind}, not a link",
        )
        plan.add(SYS_CLOSE, fd, words="close it")

    # -- devices ------------------------------------------------------------------------------------------------

    def _own_dev(self) -> bool:
        """Tell whether /dev is ours to fill: not when the host's is bound there."""
        return not any(
            mount.destination == "/dev" and is_bind(mount.type, mount.options) for mount in self._spec.mounts
        )

    def _devices(self) -> list[Device]:
        return self._spec.linux.devices

    def _make_devices(self) -> None:
        plan = self._plan
        listed = {device.path for device in self._devices()}
        for path, major, minor in DEFAULT_DEVICES:
            if path not in listed:
                self._make_device(path, DEVICE_TYPES["c"], 0o666, major, minor, 0, 0)
        for device in self._devices():
            mode = 0o666 if device.file_mode is None else device.file_mode & 0o7777
            self._make_device(
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

    def _make_device(self, path: str, kind: int, mode: int, major: int, minor: int, uid: int, gid: int) -> None:
        plan = self._plan
        tree = self._trees.get(path)
        if tree is not None:
            plan.add(CALL_MKFILE, plan.string(path), 0o644, words=f"make the mount point {path}")
            self._attach(tree, path, f"bind the host's {path}")
            return
        parent = path.rpartition("/")[0]
        if parent != "/dev":
            plan.add(CALL_MKDIRS, plan.string(parent), 0o755, words=f"make {parent}")
        number = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
        plan.add(
            SYS_MKNODAT,
            k.AT_FDCWD,
            plan.string(path),
            kind | mode,
            number,
            words=f"make the device {path}",
            tolerate=(EEXIST,),
        )
        if uid or gid:
            plan.add(
                SYS_FCHOWNAT,
                k.AT_FDCWD,
                plan.string(path),
                uid,
                gid,
                k.AT_SYMLINK_NOFOLLOW,
                words=f"give {path} to {uid}:{gid}",
            )

    def _masked(self) -> list[str]:
        return self._spec.linux.masked_paths

    def _read_only(self) -> list[str]:
        return self._spec.linux.readonly_paths


def _late_read_only(mount: Mount, flags: MountFlags) -> bool:
    """Tell whether a mount becomes read-only only after we filled it."""
    return mount.destination == "/dev" and not is_bind(mount.type, mount.options) and bool(flags.set & k.MS_RDONLY)


def _mount_attr(set_: int, clear: int, propagation: int) -> bytes:
    """Lay out struct mount_attr."""
    return b"".join([value.to_bytes(8, "little") for value in (set_, clear, propagation, 0)])
