"""A bundle like Docker's: the namespaces, mounts, masks, capabilities, limits and seccomp profile of `docker run`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.realpath(__file__ + "/../../src"))

from inclavare.linux.syscalls import TABLE

# What a container that is not trusted may not call; every other name of the table is allowed.
DENIED = frozenset(
    """
    acct add_key adjtimex afs_syscall bdflush bpf break clock_adjtime clock_settime clone clone3 create_module
    delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick ftime get_kernel_syms
    getpmsg gtty init_module ioperm iopl io_uring_enter io_uring_register io_uring_setup kexec_file_load kexec_load
    keyctl lock lookup_dcookie mbind migrate_pages mount mount_setattr move_mount move_pages mpx name_to_handle_at
    nfsservctl open_by_handle_at open_tree perf_event_open personality pivot_root prof profil putpmsg query_module
    quotactl quotactl_fd reboot request_key security set_mempolicy setdomainname sethostname setns settimeofday socket
    stime stty swapoff swapon sysfs syslog tuxcall ulimit umount umount2 unshare uselib userfaultfd ustat vhangup
    vm86 vm86old vserver
    """.split()
)
CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL"
        " AUDIT_WRITE"
    ).split()
]
DEVICES = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None)]


def make(directory: str, name: str, args: list[str], group: str = "/inclavare-bench/container") -> str:
    """Write a bundle for `args` below `directory` and return its path. Bundles share a busybox root filesystem."""
    rootfs = f"{directory}/rootfs"
    if not os.path.exists(rootfs):
        _make_rootfs(rootfs)
    bundle = f"{directory}/{name}"
    os.makedirs(bundle)
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config(rootfs, args, group), file)
    return bundle


def config(rootfs: str, args: list[str], group: str) -> dict[str, object]:
    """Return the configuration of a container that runs `args` in `rootfs`, in the control group `group`."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
            "args": args,
            "env": ["PATH=/bin", "HOSTNAME=bench"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
            "oomScoreAdj": 0,
        },
        "root": {"path": rootfs},
        "hostname": "bench",
        "mounts": [
            _mount("/proc", "proc", "nosuid noexec nodev"),
            _mount("/dev", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
            _mount("/dev/pts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
            _mount("/sys", "sysfs", "nosuid noexec nodev ro"),
            _mount("/sys/fs/cgroup", "cgroup", "ro nosuid noexec nodev"),
            _mount("/dev/mqueue", "mqueue", "nosuid noexec nodev"),
            _mount("/dev/shm", "tmpfs", "nosuid noexec nodev mode=1777 size=67108864"),  # noqa: S108  # a mount point
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc")],
            "maskedPaths": [f"/proc/{name}" for name in "acpi asound kcore keys timer_list scsi".split()]
            + ["/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in "bus fs irq sys sysrq-trigger".split()],
            "cgroupsPath": group,
            "resources": {
                "devices": [{"allow": False, "access": "rwm"}]
                + [
                    {"allow": True, "type": "c", "major": major, "access": "rwm"}
                    | ({} if minor is None else {"minor": minor})
                    for major, minor in DEVICES
                ],
                "memory": {"limit": 512 << 20},
                "cpu": {"shares": 512, "quota": 200_000, "period": 100_000},
                "pids": {"limit": 100},
            },
            "seccomp": profile(),
        },
    }


def profile() -> dict[str, object]:
    """Return a seccomp profile that allows several hundred names, four of them depending on arguments."""
    names = [entry.split()[0] for entry in TABLE.replace("\n", "").split(",") if entry]
    rules: list[dict[str, object]] = [
        {"names": [name for name in names if name not in DENIED], "action": "SCMP_ACT_ALLOW"},
        {  # no new user, mount or other namespaces
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        },
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}],  # AF_VSOCK
        },
        *(
            {
                "names": ["personality"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}],
            }
            for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
        ),
    ]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }


def _mount(destination: str, kind: str, options: str) -> dict[str, object]:
    return {"destination": destination, "type": kind, "source": kind, "options": options.split()}


def _make_rootfs(rootfs: str) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("bench: needs busybox (Debian package busybox-static)")
    for name in ("bin", "dev", "proc", "sys", "tmp"):
        os.makedirs(f"{rootfs}/{name}")
    shutil.copy(busybox, f"{rootfs}/bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            os.symlink("busybox", f"{rootfs}/bin/{applet}")
