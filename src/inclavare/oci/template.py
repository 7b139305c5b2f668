"""The configuration that `rune spec` writes: a starting point for hand-made bundles.

An ordinary container by default; with `enclave="skeleton"` one that runs the reference enclave. Members and their order
follow the runtime-spec. Not on the hot path: imported by `rune spec` only.
"""

from __future__ import annotations

from inclavare.errors import UsageError
from inclavare.oci.state import SPEC_VERSION

ENCLAVES = ("skeleton",)

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
_MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
)
_READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def template(
    *, enclave: str | None = None, pal: str = "", rootless: tuple[int, int] | None = None
) -> dict[str, object]:
    """Return a config.json as a JSON value, to be written with an indentation of one tab.

    `rootless` is the uid and gid of a user who is not root: the only ids that the container has, as its root.
    `enclave` is one of ENCLAVES or None; then `pal` is the host path of the enclave runtime (a PAL's shared object).
    Raises UsageError for another `enclave`.
    """
    if enclave is None:
        document = _configuration(args=["sh"], cwd="/", terminal=True)
        return document if rootless is None else _without_root(document, *rootless)
    if enclave not in ENCLAVES:
        raise UsageError(f"there is no template for the enclave {enclave!r}", f"known are: {', '.join(ENCLAVES)}")
    document = _configuration(args=["skeleton"], cwd="/run/rune", terminal=False)
    document["annotations"] = {
        "enclave.type": "intelSgx",
        "enclave.runtime.path": pal,
        "enclave.runtime.args": "debug",
        "enclave.runtime.loglevel": "info",
    }
    return document


def _configuration(*, args: list[str], cwd: str, terminal: bool) -> dict[str, object]:
    return {
        "ociVersion": SPEC_VERSION,
        "process": _process(args, cwd, terminal=terminal),
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "rune",
        "mounts": _mounts(),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in _NAMESPACES],
            "maskedPaths": list(_MASKED_PATHS),
            "readonlyPaths": list(_READONLY_PATHS),
        },
    }


def _process(args: list[str], cwd: str, *, terminal: bool) -> dict[str, object]:
    env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    if terminal:
        env.append("TERM=xterm")
    return {
        "terminal": terminal,
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": env,
        "cwd": cwd,
        "capabilities": {kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }


def _mounts() -> list[dict[str, object]]:
    safe = ["nosuid", "noexec", "nodev"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm",  # noqa: S108  # in the container
            "type": "tmpfs",
            "source": "shm",
            "options": [*safe, "mode=1777", "size=65536k"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": list(safe)},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*safe, "ro"]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": [*safe, "relatime", "ro"],
        },
    ]


def _without_root(document: dict[str, object], uid: int, gid: int) -> dict[str, object]:
    """Take out what only root can have: a network and limits of its own, sysfs, ids that are not mapped."""
    mounts = [mount for mount in _mounts() if mount["type"] not in ("sysfs", "cgroup")]
    for mount in mounts:
        options = mount.get("options")
        if isinstance(options, list):
            mount["options"] = [option for option in options if not option.startswith(("uid=", "gid="))]
    safe = ["rbind", "nosuid", "noexec", "nodev", "ro"]
    mounts.append({"destination": "/sys", "type": "none", "source": "/sys", "options": safe})
    kinds = ("user", *(kind for kind in _NAMESPACES if kind != "network"))
    linux = {
        "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": list(_MASKED_PATHS),
        "readonlyPaths": list(_READONLY_PATHS),
    }
    return {**document, "mounts": mounts, "linux": linux}
