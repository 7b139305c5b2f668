"""What rune, and the software platform, need of the kernel."""

from __future__ import annotations

import re

from inclavare.doctor.cpu import has_fsgsbase
from inclavare.doctor.findings import Finding
from inclavare.doctor.host import Host

KERNEL = (5, 12)  # mount_setattr, of idmapped mounts
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
FILESYSTEMS = ("mqueue", "proc", "sysfs", "tmpfs")

_AREA = "kernel"


def examine_kernel(host: Host, *, emulation: bool) -> list[Finding]:
    """Say what the kernel has; `emulation`: enclaves shall run on the software platform."""
    findings = [_version(host), _names(host), _filesystems(host), _cgroups(host), _seccomp(host), *_memfd(host)]
    findings += _users(host)
    if emulation:
        findings.append(_fsgsbase(host))
    return findings


def _version(host: Host) -> Finding:
    release = host.text("/proc/sys/kernel/osrelease") or ""
    found = re.match(r"(\d+)\.(\d+)", release)
    wanted = ".".join(map(str, KERNEL))
    if found is None:
        return Finding(_AREA, "version", "warning", "not known: /proc cannot be read", "Mount proc on /proc.")
    if (int(found[1]), int(found[2])) < KERNEL:
        return Finding(
            _AREA, "version", "lack", release, f"rune needs Linux {wanted} or later.", ("containers", "enclaves")
        )
    return Finding(_AREA, "version", "ok", f"{release} ({wanted} or later)")


def _names(host: Host) -> Finding:
    missing = sorted(set(NAMESPACES) - set(host.names("/proc/self/ns")))
    if missing:
        return _both(
            "namespaces", "missing: " + ", ".join(missing), "Use a kernel with CONFIG_NAMESPACES and all kinds."
        )
    return Finding(_AREA, "namespaces", "ok", "all")


def _filesystems(host: Host) -> Finding:
    known = {line.split()[-1] for line in (host.text("/proc/filesystems") or "").splitlines() if line}
    missing = sorted(set(FILESYSTEMS) - known)
    if missing:
        return _both("filesystems", "missing: " + ", ".join(missing), f"modprobe {missing[0]}, or another kernel")
    if "overlay" not in known:
        return Finding(
            _AREA, "filesystems", "warning", "overlay is not loaded", "Engines stack images with it: modprobe overlay"
        )
    return Finding(_AREA, "filesystems", "ok", "all, and overlay")


def _cgroups(host: Host) -> Finding:
    mounts = [line.split() for line in (host.text("/proc/mounts") or "").splitlines()]
    kinds = {fields[2] for fields in mounts if len(fields) > 3 and fields[1].startswith("/sys/fs/cgroup")}
    layout = {("cgroup",): "v1", ("cgroup2",): "v2", ("cgroup", "cgroup2"): "hybrid"}.get(
        tuple(sorted(kinds & {"cgroup", "cgroup2"}))
    )
    if layout is None:
        return _both("control groups", "not mounted on /sys/fs/cgroup", "mount -t cgroup2 none /sys/fs/cgroup")
    return Finding(_AREA, "control groups", "ok", layout)


def _seccomp(host: Host) -> Finding:
    actions = (host.text("/proc/sys/kernel/seccomp/actions_avail") or "").split()
    if not actions:
        return _both("seccomp", "not there", "Use a kernel with CONFIG_SECCOMP_FILTER.")
    if "user_notif" not in actions:
        return Finding(
            _AREA, "seccomp", "warning", "no user notification", "Only profiles with SCMP_ACT_NOTIFY need it."
        )
    return Finding(_AREA, "seccomp", "ok", "filters, and user notification")


def _memfd(host: Host) -> list[Finding]:
    if host.text("/proc/sys/vm/memfd_noexec") != "2":
        return []
    return [
        _both(
            "vm.memfd_noexec",
            "2: no program may run from sealed memory",
            "sysctl vm.memfd_noexec=1 (rune says so each time)",
        )
    ]


def _users(host: Host) -> list[Finding]:
    limit = host.text("/proc/sys/user/max_user_namespaces")
    if limit == "0" or host.text("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return [
            Finding(
                _AREA,
                "user namespaces",
                "warning",
                "not for users" if limit != "0" else "switched off",
                "Containers of users who are not root need them: sysctl user.max_user_namespaces=10000,"
                " kernel.unprivileged_userns_clone=1",
            )
        ]
    return []


def _fsgsbase(host: Host) -> Finding:
    if not has_fsgsbase(host):
        return Finding(
            _AREA,
            "FSGSBASE",
            "lack",
            "not there",
            "The software platform needs a processor of 2012 or later, and Linux 5.9 without the option nofsgsbase.",
            ("enclaves",),
        )
    return Finding(_AREA, "FSGSBASE", "ok", "there, for the software platform")


def _both(subject: str, found: str, advice: str) -> Finding:
    return Finding(_AREA, subject, "lack", found, advice, ("containers", "enclaves"))
