"""The SGX drivers' device nodes, and who may open them."""

from __future__ import annotations

import os
import stat

from inclavare.doctor.findings import Finding
from inclavare.doctor.host import Host

ENCLAVE_DEVICES = (
    ("/dev/sgx_enclave", "Linux's own driver"),
    ("/dev/sgx/enclave", "the DCAP driver"),
    ("/dev/isgx", "the legacy driver, with launch tokens"),
)
PROVISION_DEVICES = ("/dev/sgx_provision", "/dev/sgx/provision")

_AREA = "driver"


def examine_devices(host: Host, *, needed: bool) -> list[Finding]:
    """Say which driver there is; without one enclaves on hardware (`needed`) are not possible."""
    findings = [_device(host, path, driver) for path, driver in ENCLAVE_DEVICES if host.status(path) is not None]
    if not any(finding.state == "ok" for finding in findings):
        findings.append(
            Finding(
                _AREA,
                "enclave device",
                "lack" if needed else "note",
                "none that can be used: " + ", ".join(path for path, _ in ENCLAVE_DEVICES),
                "Use Linux 5.11 or later with CONFIG_X86_SGX, and SGX on in the BIOS; see dmesg | grep -i sgx.",
                ("enclaves",) if needed else (),
            )
        )
    usable = any(finding.state == "ok" for finding in findings)
    findings += [_device(host, path, "for quoting enclaves") for path in PROVISION_DEVICES if host.status(path)]
    if usable and _noexec(host):
        findings.append(
            Finding(
                _AREA,
                "/dev",
                "lack" if needed else "warning",
                "mounted noexec: enclaves cannot be mapped",
                "mount -o remount,exec /dev",
                ("enclaves",) if needed else (),
            )
        )
    return findings


def _device(host: Host, path: str, what: str) -> Finding:
    status = host.status(path)
    assert status is not None  # noqa: S101  # the caller has looked
    if not stat.S_ISCHR(status.st_mode):
        return Finding(_AREA, path, "warning", "no device node", "Remove it, and load the driver again.")
    access = f"mode {stat.S_IMODE(status.st_mode):04o}, group {_group(status.st_gid)}"
    if not os.access(host.path(path), os.R_OK | os.W_OK):
        return Finding(
            _AREA,
            path,
            "warning",
            f"{what}; not for this user ({access})",
            f"Become root, or join the group: usermod -a -G {_group(status.st_gid)} USER",
        )
    return Finding(_AREA, path, "ok", f"{what} ({access})")


def _group(gid: int) -> str:
    import grp  # noqa: PLC0415  # reads the host's groups

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _noexec(host: Host) -> bool:
    for line in (host.text("/proc/mounts") or "").splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[1] == "/dev":
            return "noexec" in fields[3].split(",")
    return False
