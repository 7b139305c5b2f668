"""What mount_plan knows of filesystems and places: tables. Hot path."""

from __future__ import annotations

# Filesystems of a namespace: which, and where the host has its own. In a user namespace the kernel wants to see the
# host's when proc and sysfs are mounted, so they are made before the pivot.
OF_NAMESPACE = {"proc": ("pid", "/proc"), "sysfs": ("network", "/sys"), "mqueue": ("ipc", "/dev/mqueue")}
MAGIC = {"proc": 0x9FA0, "sysfs": 0x6265_6572}  # linux/magic.h
# What may be mounted in proc: files that tell of the machine, which nobody trusts (lxcfs).
IN_PROC = (
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
)
LOCKED = "the host's mount has an option that a user namespace cannot take away (ro, nosuid, nodev, noexec or atime)"
