"""Docker, containerd and podman: whether they are there and know rune."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from typing import Any

from inclavare.doctor.findings import Finding
from inclavare.doctor.host import Host

DOCKER = "/etc/docker/daemon.json"
CONTAINERD = "/etc/containerd/config.toml"
PODMAN = ("/usr/share/containers/containers.conf", "/etc/containers/containers.conf")
PODMAN_DROPINS = ("/usr/share/containers/containers.conf.d", "/etc/containers/containers.conf.d")

_AREA = "engines"
_PLACES = ("/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin", "/bin")


def examine_engines(host: Host) -> list[Finding]:
    """Say of each engine that is installed whether it runs rune."""
    findings = []
    for program, examine in (("dockerd", _docker), ("containerd", _containerd), ("podman", _podman)):
        if host.first(*(f"{place}/{program}" for place in _PLACES)):
            findings.append(examine(host))
    return findings or [Finding(_AREA, "engines", "note", "neither dockerd, containerd nor podman is installed")]


def _docker(host: Host) -> Finding:
    advice = f'Add "runtimes": {{"rune": {{"path": "/usr/local/bin/rune"}}}} to {DOCKER}, then restart docker.'
    text = host.text(DOCKER)
    if text is None:
        return Finding(_AREA, "docker", "note", f"does not know rune: {DOCKER} is not there", advice)
    try:
        runtimes = _table(json.loads(text or "{}"), "runtimes")
    except ValueError as error:
        return Finding(_AREA, "docker", "warning", f"{DOCKER} is no JSON: {error}", "dockerd will not start with it.")
    for name, runtime in runtimes.items():
        path = _table(runtime).get("path")
        if _is_rune(name, path) and path:
            return _registered(host, "docker", name, str(path))
    return Finding(_AREA, "docker", "note", f"does not know rune: {DOCKER}", advice)


def _containerd(host: Host) -> Finding:
    advice = f"Add a runtime with BinaryName = /usr/local/bin/rune to {CONTAINERD}, then restart containerd."
    text = host.text(CONTAINERD)
    if text is None:
        return Finding(_AREA, "containerd", "note", f"does not know rune: {CONTAINERD} is not there", advice)
    try:
        plugins = _table(tomllib.loads(text), "plugins")
    except tomllib.TOMLDecodeError as error:
        return Finding(_AREA, "containerd", "warning", f"{CONTAINERD} is no TOML: {error}", "containerd needs it.")
    for plugin in plugins.values():
        for name, runtime in _table(plugin, "containerd", "runtimes").items():
            kind = str(_table(runtime).get("runtime_type", ""))
            binary = _table(runtime, "options").get("BinaryName")
            if binary and _is_rune(name, binary):
                return _registered(host, "containerd", name, str(binary))
            if kind.startswith("io.containerd.rune."):
                return Finding(_AREA, "containerd", "ok", f"runtime {name}: {kind}")
    return Finding(_AREA, "containerd", "note", f"does not know rune: {CONTAINERD}", advice)


def _podman(host: Host) -> Finding:
    files = list(PODMAN)
    for folder in PODMAN_DROPINS:
        files += [f"{folder}/{name}" for name in host.names(folder) if name.endswith(".conf")]
    for file in reversed(files):
        try:
            runtimes = _table(tomllib.loads(host.text(file) or ""), "engine", "runtimes")
        except tomllib.TOMLDecodeError as error:
            return Finding(_AREA, "podman", "warning", f"{file} is no TOML: {error}", "podman will not start with it.")
        for name, paths in runtimes.items():
            if isinstance(paths, list) and _is_rune(name, *paths):
                present = next((str(path) for path in paths if host.status(str(path))), str(paths[0] if paths else ""))
                return _registered(host, "podman", name, present)
    return Finding(
        _AREA, "podman", "note", "does not know rune", f"`make install` writes {PODMAN_DROPINS[1]}/50-rune.conf."
    )


def _registered(host: Host, engine: str, name: str, path: str) -> Finding:
    status = host.status(path)
    if status is None or not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        return Finding(
            _AREA, engine, "warning", f"runtime {name}: {path} is not there, or no program", "Correct its path."
        )
    return Finding(_AREA, engine, "ok", f"runtime {name}: {path}")


def _is_rune(name: str, *paths: object) -> bool:
    return name == "rune" or any(os.path.basename(str(path)) == "rune" for path in paths if path)


def _table(value: Any, *keys: str) -> dict[str, Any]:
    """Return the table at `keys` below a table; an empty one where there is something else, or nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
