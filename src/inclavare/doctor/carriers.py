"""What the administrator's file promises those who ask for an enclave of an ordinary image, and whether it is there."""

from __future__ import annotations

import socket
import stat
from urllib.parse import urlsplit

from inclavare.doctor.findings import Finding
from inclavare.doctor.host import Host
from inclavare.doctor.registration import SERVICE_PATH
from inclavare.enclave.hostconfig import HostConfig
from inclavare.enclave.trust import require_trusted
from inclavare.errors import EnclaveError

_AREA = "carriers"
_TIMEOUT_S = 3.0
_ON_PATH = [f"{folder}/occlum" for folder in SERVICE_PATH]
# By carrier: attribute of HostConfig and its key. An empty path means a file that comes with rune or the container.
_FILES = {
    "occlum": {
        "occlum_pal": "enclave_runtime.occlum.enclave_runtime_path",
        "occlum_libos": "enclave_runtime.occlum.enclave_libos_path",
    },
    "skeleton": {
        "skeleton_pal": "enclave_runtime.skeleton.enclave_runtime_path",
        "skeleton_enclave": "enclave_runtime.skeleton.enclave_path",
    },
}


def examine_carriers(host: Host, config: HostConfig) -> list[Finding]:
    """Say whether what carriers need is there. A container may ask for any; the default one must work."""
    findings = [_carrier(config)]
    for carrier, files in _FILES.items():
        for attribute, key in files.items():
            path = getattr(config, attribute)
            is_set = path != getattr(HostConfig, attribute)
            if path and (carrier == config.carrier or is_set):
                findings += _file(host, key, path, is_needed=carrier == config.carrier)
    if config.signature_method == "server":
        if config.carrier == "occlum":
            findings += _file(host, "occlum", _occlum(host, config), is_needed=True)
        if config.carrier == "occlum" or config.sgx_tool_sign != HostConfig.sgx_tool_sign:
            findings += _file(host, "sgx_tool_sign", config.sgx_tool_sign, is_needed=config.carrier == "occlum")
        findings += _signer(host, config)
    return findings + _cache(host, config)


def _carrier(config: HostConfig) -> Finding:
    if config.carrier in _FILES:
        return Finding(_AREA, "carrier", "ok", f"{config.carrier}, unless a container asks for another")
    return Finding(_AREA, "carrier", "ok", "none, unless a container asks for one by RUNE_CARRIER")


def _file(host: Host, key: str, path: str, *, is_needed: bool) -> list[Finding]:
    """Return what is wrong with a file that is loaded or started with the rights of root."""
    status = host.status(path)
    if status is None:
        found, advice = f"{path} is not there", "Install it, or correct its path."
    else:
        try:
            require_trusted(path, status)
        except EnclaveError as error:
            found, advice = error.message, error.hint
        else:
            return [Finding(_AREA, key, "ok", path)]
    if is_needed:
        return [Finding(_AREA, key, "lack", found, advice, ("enclaves",))]
    return [Finding(_AREA, key, "warning", found, advice)]


def _occlum(host: Host, config: HostConfig) -> str:
    """Return where the carrier would find the program, or should."""
    own = f"{config.occlum_libos.removesuffix('/build/lib/libocclum-libos.so')}/build/bin/occlum"
    return next((path for path in (own, *_ON_PATH) if host.status(path) is not None), own)


def _signer(host: Host, config: HostConfig) -> list[Finding]:
    if not config.signature_server:
        if config.signature_throw_away_key:
            return [Finding(_AREA, "signature", "note", "a key that is thrown away: for the software platform alone")]
        if config.carrier in _FILES:
            advice = 'Name a server: [signature] server_address; or signature_method = "client" for signed images.'
            return [Finding(_AREA, "signature", "lack", "nobody signs enclaves", advice, ("enclaves",))]
        return []
    findings = []
    for key, path in (("ca_file", config.signature_ca_file), ("token_file", config.signature_token_file)):
        status = host.status(path) if path else None
        if path and status is None:
            findings.append(Finding(_AREA, f"signature.{key}", "warning", f"{path} is not there", "Correct its path."))
        elif status is not None and key == "token_file" and stat.S_IMODE(status.st_mode) & 0o077:
            findings.append(Finding(_AREA, f"signature.{key}", "warning", "others can read it", f"chmod 600 {path}"))
    return [*findings, _server(host, config.signature_server)]


def _server(host: Host, address: str) -> Finding:
    subject = "signature server"
    if not host.is_this:
        return Finding(_AREA, subject, "note", f"{address}, not asked: this is another host")
    parts = urlsplit(address)
    try:
        place = (parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme])
        socket.create_connection(place, _TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        return Finding(_AREA, subject, "warning", f"{address} cannot be reached: {error}", "Is it running?")
    return Finding(_AREA, subject, "ok", f"{address} listens")


def _cache(host: Host, config: HostConfig) -> list[Finding]:
    status = host.status(config.cache_directory)
    if not config.cache_size or status is None:  # it is made when it is needed
        return []
    path = config.cache_directory
    if not stat.S_ISDIR(status.st_mode):
        return [Finding(_AREA, "cache", "warning", f"{path} is not a directory", "Remove it.")]
    if status.st_uid or stat.S_IMODE(status.st_mode) & 0o022:
        return [
            Finding(
                _AREA,
                "cache",
                "warning",
                f"others than root can change {path}",
                f"chown root {path}; chmod go-w {path}",
            )
        ]
    return [Finding(_AREA, "cache", "ok", path)]
