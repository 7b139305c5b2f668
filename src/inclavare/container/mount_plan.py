"""The steps that make a container's root: mounts, devices, masks.

What comes from the host is opened as a detached mount first, while the host is visible; then the root is pivoted and
the old one let go; everything after that happens by plain absolute path inside the container. So every symlink of an
image resolves inside the container by construction (CVE-2021-30465 and its like), without a walk on the host.

Pure. Hot path.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, EPERM, EXDEV
from posixpath import normpath

from inclavare.container.device_plan import attach, make_devices
from inclavare.container.facts import has_own_dev, is_bind, source_path
from inclavare.container.mount_rules import IN_PROC, LOCKED, MAGIC, OF_NAMESPACE
from inclavare.container.plan import (
    CALL_CHECK_FS,
    CALL_MASK,
    CALL_MKDIRS,
    CALL_MKFILE,
    CALL_READ_ONLY,
    CALL_TMPFS,
    OUTSIDE_PROC,
    TMPFS_COPY,
    TMPFS_MODE,
    Plan,
    Slot,
)
from inclavare.errors import SpecError
from inclavare.linux import headers as k
from inclavare.linux import mountflags
from inclavare.linux.calls import (
    SYS_CHDIR,
    SYS_CLOSE,
    SYS_FSCONFIG,
    SYS_FSMOUNT,
    SYS_FSOPEN,
    SYS_MOUNT,
    SYS_MOUNT_SETATTR,
    SYS_OPEN_TREE,
    SYS_PIVOT_ROOT,
    SYS_SYMLINKAT,
    SYS_UMASK,
    SYS_UMOUNT2,
)

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.facts import Facts
    from inclavare.linux.mountflags import MountFlags
    from inclavare.oci.linux import Device
    from inclavare.oci.spec import Mount, Spec


class CgroupMount:
    """One directory to show below a mount of type cgroup: the container's own, as the host has it."""

    __slots__ = ("name", "source")

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.source = source


class Root:
    """The plan of a root filesystem, in the order of its calls: `open_sources`, `enter`, `leave`, `fill`, `finish`."""

    __slots__ = (
        "_bundle",
        "_cgroup_v2",
        "_cgroupns",
        "_cgroups",
        "_facts",
        "_flags",
        "_idmaps",
        "_label",
        "_masks",
        "_no_pivot",
        "_nodes",
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
        no_pivot: bool = False,
        idmaps: dict[int, int] | None = None,
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
        self._no_pivot = no_pivot
        self._idmaps = idmaps or {}
        self._flags = [
            mountflags.parse(mount.options, bind=is_bind(mount.type, mount.options), path=f"mounts[{index}].options")
            for index, mount in enumerate(spec.mounts)
        ]
        self._label = ""  # what the tmpfs that we make ourselves have beside their options
        if spec.linux.mount_label:
            from inclavare.container import label_plan  # noqa: PLC0415  # few containers have labels

            self._label = label_plan.label_mounts(spec.mounts, self._flags, spec.linux.mount_label)
        self._trees: dict[str, Slot] = {}
        self._masks: list[Slot] = []
        self._nodes: tuple[Slot, list[str]] | None = None

    def open_sources(self) -> None:
        """Open what comes from the host as detached mounts."""
        plan, spec = self._plan, self._spec
        propagation = spec.linux.rootfs_propagation or "rslave"
        if propagation == "rslave":
            words = "keep our mounts from reaching the host"
            plan.add(SYS_MOUNT, 0, plan.string("/"), 0, k.MS_SLAVE | k.MS_REC, 0, words=words)
        else:
            from inclavare.container import rootfs_plan  # noqa: PLC0415  # rarely asked for

            rootfs_plan.share(plan, propagation)
        for index, (mount, flags) in enumerate(zip(spec.mounts, self._flags, strict=True)):
            self._open_source(index, mount, flags)
        self._masks = [self._clone("/dev/null", recursive=False, what=f" for {path}") for path in self._masked()]
        if self._userns and has_own_dev(self._spec):
            from inclavare.container import userns_devices  # noqa: PLC0415  # only with a user namespace

            self._trees |= userns_devices.open_nodes(plan, self._devices(), self._nodes)

    def enter(self) -> None:
        """Make the rootfs a mount and the working directory."""
        plan = self._plan
        rootfs = plan.string(self._rootfs)
        if self._shares():
            from inclavare.container import rootfs_plan  # noqa: PLC0415  # rarely asked for

            rootfs_plan.separate(plan, self._facts.mounts, self._rootfs)
        plan.add(SYS_MOUNT, rootfs, rootfs, 0, k.MS_BIND | k.MS_REC, 0, words=f"bind the rootfs {self._rootfs}")
        plan.add(SYS_CHDIR, rootfs, words=f"enter {self._rootfs}")

    def leave(self) -> None:
        """Make the working directory, which is the rootfs, the root."""
        plan = self._plan
        if self._no_pivot:
            from inclavare.container import rootfs_plan  # noqa: PLC0415  # rarely asked for

            rootfs_plan.move(plan, self._facts.mounts, self._rootfs, userns=self._userns)
            return
        here = plan.string(".")
        plan.add(SYS_PIVOT_ROOT, here, here, words="make it the root")
        if self._shares():
            words = "keep that from reaching the host"
            plan.add(SYS_MOUNT, 0, here, 0, k.MS_SLAVE | k.MS_REC, 0, words=words)
        plan.add(SYS_UMOUNT2, here, k.MNT_DETACH, words="let go of the host's root")
        plan.add(SYS_CHDIR, plan.string("/"), words="enter the root")

    def _shares(self) -> bool:
        return self._spec.linux.rootfs_propagation not in (None, "rslave", "rprivate", "runbindable")

    def fill(self) -> None:
        """Mount everything, make devices and links."""
        plan, spec = self._plan, self._spec
        plan.add(SYS_UMASK, 0, words="make files with the modes given")
        for index, (mount, flags) in enumerate(zip(spec.mounts, self._flags, strict=True)):
            self._mount(index, mount, flags)
        if has_own_dev(self._spec):
            if not any(normpath(mount.destination) == "/dev" for mount in spec.mounts):
                plan.add(CALL_MKDIRS, plan.string("/dev"), 0o755 | OUTSIDE_PROC, words="make /dev")
            make_devices(plan, self._devices(), self._trees)
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
            plan.add(CALL_MASK, plan.string(path), slot, plan.string("size=0k" + self._label), words=f"hide {path}")
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
            if key not in self._trees:
                self._open_bind(index, mount, flags)
        elif mount.type in OF_NAMESPACE and self._userns:
            kind, host = OF_NAMESPACE[mount.type]
            if self._spec.linux.namespace(kind) is None:  # the host's namespace: a new mount would take more rights
                self._trees[key] = self._clone(host, recursive=True)
                self._set_tree_attributes(self._trees[key], flags, host)
            elif mount.type in MAGIC:
                self._trees[key] = self._make_filesystem(mount.type, flags)
        elif mount.type == "cgroup" and not self._cgroupns:
            for cgroup in self._cgroups:
                self._trees[f"{key}/{cgroup.name}"] = tree = self._clone(cgroup.source, recursive=False)
                self._set_tree_attributes(tree, flags, cgroup.source)

    def open_with_rights(self) -> None:
        """Open mounts with mapped ids and devices: that takes rights of the host, which a user namespace has not."""
        if self._facts.makes_devices and has_own_dev(self._spec):
            from inclavare.container import userns_devices  # noqa: PLC0415  # only with a user namespace

            self._nodes = userns_devices.make_nodes(self._plan, self._spec.linux)
        for index in self._idmaps:
            self._open_bind(index, self._spec.mounts[index], self._flags[index])

    def _open_bind(self, index: int, mount: Mount, flags: MountFlags) -> None:
        source = source_path(mount.source, self._bundle)
        tree = self._trees[f"mounts[{index}]"] = self._clone(source, recursive="rbind" in mount.options)
        if index in self._idmaps:
            plan = self._plan
            attr = plan.data(_mount_attr(k.MOUNT_ATTR_IDMAP, 0, 0, self._idmaps[index]))
            where = k.AT_EMPTY_PATH | (k.AT_RECURSIVE if "ridmap" in mount.options else 0)
            refused = f"mounts[{index}]: cannot map the ids of {source}: its filesystem has no idmapped mounts"
            plan.add(
                SYS_MOUNT_SETATTR,
                tree,
                plan.string(""),
                where,
                attr,
                32,
                words=f"map the ids of {source}",
                sentences={EINVAL: refused},
            )
        self._set_tree_attributes(tree, flags, source)

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
            words = f"set the options of {what}"
            locked = {EPERM: f"cannot {words}: {LOCKED}"} if self._userns else None
            empty = plan.string("")
            plan.add(SYS_MOUNT_SETATTR, tree, empty, k.AT_EMPTY_PATH, attr, 32, words=words, sentences=locked)
        all_below = k.MOUNT_ATTR_RDONLY if self._userns and what == "/sys" else 0  # cgroups are (CVE-2023-25809)
        recursive_set = flags.recursive_set | (set_ & all_below)
        if recursive_set or flags.recursive_clear:
            attr = plan.data(_mount_attr(recursive_set, flags.recursive_clear, 0))
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
        clean = normpath(destination)
        how = _tmpfs_how(mount, flags)
        if tree is not None or not how:
            bind = is_bind(mount.type, mount.options)
            is_file = bind and not self._facts.sources[source_path(mount.source, self._bundle)]
            plan.add(
                CALL_MKFILE if is_file else CALL_MKDIRS,
                plan.string(destination),
                0o755 | (0 if clean in IN_PROC else OUTSIDE_PROC),
                words=f"make the mount point {destination}",
                sentences=_in_proc(destination),
            )
        if tree is not None:
            attach(plan, tree, destination, f"mount {mount.source or mount.type} on {destination}")
        elif mount.type == "cgroup":
            self._mount_cgroup(index, mount, flags)
        else:
            self._mount_new(index, mount, flags)
        kind = "proc" if clean in ("/proc", "//proc") else mount.type
        if kind in MAGIC:
            self._check_filesystem(destination, kind)
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
        if flags.copy_up and mount.type != "tmpfs":
            raise SpecError(f"mounts[{index}].options", "tmpcopyup needs a tmpfs")
        value = flags.set & ~k.MS_RDONLY if _late_read_only(mount, flags) else flags.set
        source, destination = plan.string(mount.source or mount.type), plan.string(mount.destination)
        data = plan.string(flags.data) if flags.data else 0
        words = f"mount {mount.type} on {mount.destination}"
        how = _tmpfs_how(mount, flags)
        if how:
            refused = _in_proc(mount.destination)
            plan.add(CALL_TMPFS, source, destination, value, data, how, words=words, sentences=refused)
        else:
            plan.add(SYS_MOUNT, source, destination, plan.string(mount.type), value, data, words=words)

    def _mount_cgroup(self, index: int, mount: Mount, flags: MountFlags) -> None:
        """The unified hierarchy, or a tmpfs with one directory per hierarchy, as the host has them."""
        plan, destination = self._plan, mount.destination
        if self._cgroup_v2:
            for cgroup in self._cgroups:
                tree = self._trees.get(f"mounts[{index}]/{cgroup.name}")
                if tree is not None:
                    attach(plan, tree, destination, f"mount {cgroup.source} on {destination}")
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
            plan.string("mode=755" + self._label),
            words=f"mount tmpfs on {destination}",
        )
        for cgroup in self._cgroups:
            path = f"{destination}/{cgroup.name}"
            plan.add(CALL_MKDIRS, plan.string(path), 0o755, words=f"make the mount point {path}")
            tree = self._trees.get(f"mounts[{index}]/{cgroup.name}")
            if tree is not None:
                attach(plan, tree, path, f"mount {cgroup.source} on {path}")
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

    def _set_attributes(self, path: str, attributes: int, words: str) -> None:
        plan = self._plan
        attr = plan.data(_mount_attr(attributes, 0, 0))
        plan.add(SYS_MOUNT_SETATTR, k.AT_FDCWD, plan.string(path), 0, attr, 32, words=words)

    def _check_filesystem(self, path: str, kind: str) -> None:
        """A proc elsewhere would let writes meant for /proc go to a file of the image (CVE-2019-16884, 2023-28642).

        After the mount: whoever shares the root filesystem may have changed it until then (CVE-2021-30465).
        """
        plan = self._plan
        words = f"check that {path} is a directory for {kind}, not a link"
        refused = f"{path} cannot be mounted: what is there then is not {kind}"
        plan.add(CALL_CHECK_FS, plan.string(path), MAGIC[kind], words=words, sentences={EXDEV: refused})

    # -- devices ------------------------------------------------------------------------------------------------

    def _devices(self) -> list[Device]:
        return self._spec.linux.devices

    def _masked(self) -> list[str]:
        return self._spec.linux.masked_paths

    def _read_only(self) -> list[str]:
        return self._spec.linux.readonly_paths


def _late_read_only(mount: Mount, flags: MountFlags) -> bool:
    """Tell whether a mount becomes read-only only after we filled it."""
    return (
        normpath(mount.destination) == "/dev"
        and not is_bind(mount.type, mount.options)
        and bool(flags.set & k.MS_RDONLY)
    )


def _tmpfs_how(mount: Mount, flags: MountFlags) -> int:
    """Tell what a tmpfs takes from the directory below, if it is not mounted again."""
    if mount.type != "tmpfs" or flags.set & k.MS_REMOUNT:
        return 0
    return (0 if "mode=" in flags.data else TMPFS_MODE) | (TMPFS_COPY if flags.copy_up else 0)


def _in_proc(destination: str) -> dict[int, str]:
    return {EXDEV: f"{destination} cannot be mounted because it is inside /proc"}


def _mount_attr(set_: int, clear: int, propagation: int, userns_fd: int = 0) -> bytes:
    """Lay out struct mount_attr."""
    return b"".join([value.to_bytes(8, "little") for value in (set_, clear, propagation, userns_fd)])
