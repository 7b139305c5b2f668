"""Docker, containerd and podman: whether they are there and know rune."""

from __future__ import annotations

import glob
import json
import os
import stat
import tomllib
from typing import Any

from inclavare.doctor.findings import Finding
from inclavare.doctor.host import Host
from inclavare.doctor.registration import RUNTIME_TYPE, SERVICE_PATH, SHIM, hidden_by, table

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
    advice = (
        "runectl register docker, then restart docker. "
        f'Before Docker 23: "runtimes": {{"rune": {{"path": "/usr/local/bin/rune"}}}} in {DOCKER}.'
    )
    text = host.text(DOCKER)
    if text is None:
        return Finding(_AREA, "docker", "note", f"does not know rune: {DOCKER} is not there", advice)
    try:
        runtimes = table(json.loads(text or "{}"), "runtimes")
    except ValueError as error:
        return Finding(_AREA, "docker", "warning", f"{DOCKER} is no JSON: {error}", "dockerd will not start with it.")
    for name, runtime in runtimes.items():
        path = table(runtime).get("path")
        kind = str(table(runtime).get("runtimeType", ""))
        if os.path.basename(kind) == SHIM or kind == RUNTIME_TYPE:
            return _with_shim(host, "docker", name, kind if kind.startswith("/") else "")
        if _is_rune(name, path) and path:
            return _registered(host, "docker", name, str(path))
    return Finding(_AREA, "docker", "note", f"does not know rune: {DOCKER}", advice)


def _containerd(host: Host) -> Finding:
    """Judge what Kubernetes gets: `ctr` and Docker need no entry."""
    advice = "For Kubernetes: runectl register containerd, then restart containerd."
    text = host.text(CONTAINERD)
    if text is None:
        return Finding(_AREA, "containerd", "note", f"does not know rune: {CONTAINERD} is not there", advice)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Finding(_AREA, "containerd", "warning", f"{CONTAINERD} is no TOML: {error}", "containerd needs it.")
    imports = imported(host, document, CONTAINERD)
    for file, members in ((CONTAINERD, document), *imports.items()):
        for plugin, settings in table(members, "plugins").items():
            for name, runtime in table(settings, "containerd", "runtimes").items():
                kind = str(table(runtime).get("runtime_type", ""))
                binary = table(runtime, "options").get("BinaryName")
                if binary and _is_rune(name, binary):
                    return _registered(host, "containerd", name, str(binary))
                if not kind.startswith("io.containerd.rune."):
                    continue
                others = hidden_by({path: other for path, other in imports.items() if path != file}, plugin)
                if others:
                    found = f"runtime {name} is ignored by containerd before 2.0: {others[-1]} speaks of {plugin}, too"
                    return Finding(_AREA, "containerd", "warning", found, f"Put it into {others[-1]}.")
                return _with_shim(host, "containerd", name, str(table(runtime).get("runtime_path") or ""))
    return Finding(_AREA, "containerd", "note", f"does not know rune: {CONTAINERD}", advice)


def imported(host: Host, document: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """Return the files that containerd's file `path` imports, by their path; what cannot be read is not there."""
    patterns = document.get("imports")
    documents = {}
    for pattern in patterns if isinstance(patterns, list) else ():
        for place in sorted(glob.glob(host.path(os.path.join(os.path.dirname(path), str(pattern))))):
            try:
                with open(place, "rb") as file:
                    documents[f"/{os.path.relpath(place, host.root)}"] = tomllib.load(file)
            except (OSError, ValueError):
                continue
    return documents


def _podman(host: Host) -> Finding:
    files = list(PODMAN)
    for folder in PODMAN_DROPINS:
        files += [f"{folder}/{name}" for name in host.names(folder) if name.endswith(".conf")]
    for file in reversed(files):
        try:
            runtimes = table(tomllib.loads(host.text(file) or ""), "engine", "runtimes")
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
            _AREA,
            engine,
            "warning",
            f"runtime {name}: {path} is not there, or no program",
            "Install rune, or correct its path.",
        )
    return Finding(_AREA, engine, "ok", f"runtime {name}: {path}")


def _with_shim(host: Host, engine: str, name: str, path: str) -> Finding:
    """Judge a runtime that is the shim, at `path` or, "", where services look for programs."""
    if path:
        return _registered(host, engine, name, path)
    places = [f"{place}/{SHIM}" for place in SERVICE_PATH]
    return _registered(host, engine, name, host.first(*places) or f"{SERVICE_PATH[1]}/{SHIM}")


def _is_rune(name: str, *paths: object) -> bool:
    return name == "rune" or any(os.path.basename(str(path)) == "rune" for path in paths if path)
