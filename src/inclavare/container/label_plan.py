"""Plans labels of Linux security modules: AppArmor profiles, SELinux contexts. Pure; imported where some are given.

Labels are for the next execve, so hooks and the steps of the plan are not held back by them, and they are written
through the host's /proc: an image could redirect the writes (CVE-2019-16884, CVE-2025-52881).

apparmor(7), selinux(8); runtime-spec: config.md "Linux Process", config-linux.md "Mount Label".
"""

from __future__ import annotations

from errno import EINVAL, ENOENT

from inclavare.container.facts import is_bind
from inclavare.container.plan import CALL_WRITE_FILE
from inclavare.linux import headers as k
from inclavare.linux.calls import SYS_LSETXATTR

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.plan import Plan
    from inclavare.linux.mountflags import MountFlags
    from inclavare.oci.process import Process
    from inclavare.oci.spec import Mount

UNLABELLED = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")  # have labels of their own, or none


def label_process(plan: Plan, process: Process) -> None:
    """Plan the labels that the process has from its program on, and those of the keys that it makes."""
    profile, label = process.apparmor_profile, process.selinux_label
    if profile:
        words = f"take the AppArmor profile {profile}"
        absent = {ENOENT: f"cannot {words} (process.apparmorProfile): no such profile is loaded"}
        _write(plan, "apparmor/exec", f"exec {profile}", words, absent)
    if label:
        for name, words in (
            ("keycreate", f"make keys with the SELinux label {label}"),
            ("exec", f"take the SELinux label {label}"),
        ):
            unknown = {EINVAL: f"cannot {words} (process.selinuxLabel): the policy knows no such label"}
            _write(plan, name, label, words, unknown)


def label_mounts(mounts: list[Mount], flags: list[MountFlags], label: str) -> str:
    """Add the label to the options of new filesystems; give what another tmpfs needs behind its options."""
    option = f'context="{label}"'  # quoted: a label may have commas
    for mount, of_mount in zip(mounts, flags, strict=True):
        new = not is_bind(mount.type, mount.options) and not of_mount.set & k.MS_REMOUNT
        if new and mount.type not in UNLABELLED:
            of_mount.data += f",{option}" if of_mount.data else option
    return f",{option}"


def label_queues(plan: Plan, mounts: list[Mount], label: str) -> None:
    """Plan the label of message queues, whose filesystem has no option for it."""
    for mount in mounts:
        if mount.type == "mqueue":
            plan.add(
                SYS_LSETXATTR,
                plan.string(mount.destination),
                plan.string("security.selinux"),
                plan.string(label),
                len(label.encode()),
                0,
                words=f"give {mount.destination} the SELinux label {label} (linux.mountLabel)",
            )


def _write(plan: Plan, name: str, value: str, words: str, sentences: dict[int, str]) -> None:
    path, content = plan.string(f"/proc/self/attr/{name}"), plan.string(value)
    plan.add(CALL_WRITE_FILE, path, content, len(value.encode()), words=words, sentences=sentences)
