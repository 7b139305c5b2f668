"""The whole examination of a host, in the order in which one would put things right."""

from __future__ import annotations

import stat

from inclavare.doctor.attestation import examine_attestation
from inclavare.doctor.carriers import examine_carriers
from inclavare.doctor.cpu import Cpuid, examine_cpu, read_sgx
from inclavare.doctor.devices import ENCLAVE_DEVICES, examine_devices
from inclavare.doctor.engines import examine_engines
from inclavare.doctor.findings import Finding
from inclavare.doctor.host import Host
from inclavare.doctor.kernel import examine_kernel
from inclavare.enclave import hostconfig
from inclavare.enclave.hostconfig import HostConfig
from inclavare.errors import EnclaveError

SEED = "/var/lib/inclavare/platform/seed"
CERTIFICATE = "/var/lib/inclavare/platform/pck.pem"

_AREA = "enclaves"


def examine(host: Host, platform: str = "", cpuid: Cpuid | None = None) -> list[Finding]:
    """Return all findings. `platform` ("hardware", "emulated", "auto") overrides what the host is set to.

    `cpuid` overrides where the processor's leaves come from.
    """
    config, findings = _configuration(host)
    setting, told = _setting(config, platform)
    findings += told
    sgx = read_sgx(host, cpuid)
    has_device = host.first(*(path for path, _ in ENCLAVE_DEVICES)) is not None
    emulation = setting == "emulated" or (setting == "auto" and not has_device)
    findings += examine_kernel(host, emulation=emulation)
    findings += examine_cpu(host, sgx)
    findings += examine_devices(host, needed=not emulation)
    if emulation:
        findings += [_seed(host), *_certificate(host)]
    findings += examine_attestation(host, emulation=emulation)
    if config is not None:
        findings += examine_carriers(host, config)
    return findings + examine_engines(host)


def _configuration(host: Host) -> tuple[HostConfig | None, list[Finding]]:
    """Return the administrator's settings, None for a file that is refused."""
    path = hostconfig.PATH
    try:
        return hostconfig.read(host.path(path)), []
    except EnclaveError as error:
        advice = error.hint or "rune refuses it."
        return None, [Finding(_AREA, path, "lack", error.message, advice, ("enclaves",))]


def _setting(config: HostConfig | None, platform: str) -> tuple[str, list[Finding]]:
    """Return the platform that enclaves are to run on, and how that was decided."""
    if config is None:
        return platform or "hardware", []
    configured = config.platform
    setting = platform or configured or "hardware"
    found = f"platform {setting}" + ("" if configured or platform else ", the default")
    if setting == "hardware":
        return setting, [Finding(_AREA, "setting", "ok", found)]
    advice = f'Emulation protects nothing. For secrets: platform = "hardware" in {hostconfig.PATH}'
    return setting, [Finding(_AREA, "setting", "note", found, advice)]


def _seed(host: Host) -> Finding:
    status = host.status(SEED)
    if status is None:
        return Finding(
            _AREA,
            "seed of the software platform",
            "note",
            "none, or not for this user: each container gets its own, and reports mean nothing outside",
            "runectl platform init, as root",
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        return Finding(_AREA, "seed of the software platform", "warning", "others can read it", f"chmod 600 {SEED}")
    return Finding(_AREA, "seed of the software platform", "ok", SEED)


def _certificate(host: Host) -> list[Finding]:
    if host.status(SEED) is None or host.status(CERTIFICATE) is not None:
        return []
    return [Finding(_AREA, "certificate of the software platform", "note", f"no {CERTIFICATE}: no quotes")]
