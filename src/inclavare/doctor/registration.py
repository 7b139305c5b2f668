"""How containerd's and Docker's configuration files name the shim: their text with it, and without it again. Pure.

containerd before 2.0 takes of each plugin only the last file that speaks of it: a file of our own in its `imports`
would undo everything that the administrator has set for Kubernetes. So the entry goes into the main file, between two
marks, and all else there stays as it is, comments too. containerd 1.3 to 2.x understands a file with `version = 2`.

Docker has one JSON file; it keeps its members, their order and its indentation.
"""

from __future__ import annotations

import json
import os
import tomllib
from typing import Any

from inclavare.enclave.toml_lines import line_of
from inclavare.errors import HostError

RUNTIME = "rune"
RUNTIME_TYPE = "io.containerd.rune.v2"
SHIM = "containerd-shim-rune-v2"
# Where services of systemd look for programs.
SERVICE_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_BEGIN = "# --- rune: added by `runectl register containerd`, removed by it with --undo\n"
_END = "# --- end of rune\n"
# The plugin that Kubernetes talks to, by the version of the file; later versions have the name of 3.
_PLUGINS = {1: "cri", 2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
_REPLACES_DEFAULTS = 2  # in files up to this version, runtimes that are named are all that there are


def containerd_plugin(document: dict[str, Any]) -> str:
    """Return the plugin that has the runtimes, in a configuration file of containerd. Raises HostError."""
    version = document.get("version", 1)
    if not isinstance(version, int) or version < 0:
        raise HostError(f"version is {version!r}", "It is a number.")
    return _PLUGINS[min(max(version, 1), max(_PLUGINS))]


def containerd_runtimes(document: dict[str, Any]) -> dict[str, Any]:
    """Return the runtimes of Kubernetes in a configuration file of containerd. Raises HostError."""
    return table(document, "plugins", containerd_plugin(document), "containerd", "runtimes")


def register_containerd(text: str, path: str, shim: str) -> str:
    """Return a configuration file of containerd, "" where there is none yet, with the shim at `shim`.

    `path` is for the messages. Raises HostError.
    """
    rest = unregister_containerd(text, path)
    document = _toml(rest, path)
    runtimes = containerd_runtimes(document)
    plugin = containerd_plugin(document)
    if RUNTIME in runtimes:
        line = line_of(rest, ("plugins", plugin, "containerd", "runtimes", RUNTIME))
        raise HostError(f"{path}, line {line}: there is a runtime {RUNTIME} already", "Remove it, or let it be.")
    lines = [_BEGIN]
    if not rest:
        lines.append("version = 2\n")
        plugin = _PLUGINS[2]
    place = f'[plugins."{plugin}".containerd.runtimes'
    if not runtimes and document.get("version", 2 if not rest else 1) <= _REPLACES_DEFAULTS:
        lines += [f"{place}.runc]\n", '  runtime_type = "io.containerd.runc.v2"\n']
    lines += [
        f"{place}.{RUNTIME}]\n",
        f'  runtime_type = "{RUNTIME_TYPE}"\n',
        *([] if _is_found(shim) else [f"  runtime_path = {json.dumps(shim)}\n"]),
        '  pod_annotations = ["enclave.*"]\n',
        '  container_annotations = ["enclave.*"]\n',
        "  privileged_without_host_devices = true\n",
        _END,
    ]
    changed = rest + ("\n" if rest and not rest.endswith("\n") else "") + "".join(lines)
    try:
        tomllib.loads(changed)
    except ValueError as error:
        raise HostError(
            f"{path} cannot have another runtime: {error}", "Write its tables as [plugins...], not as { }."
        ) from error
    return changed


def unregister_containerd(text: str, path: str) -> str:
    """Return the file without what register_containerd added, "" when nothing is left of it. Raises HostError."""
    before, begin, rest = text.partition(_BEGIN)
    if not begin:
        return text
    _, end, after = rest.partition(_END)
    if not end or _BEGIN in after:
        raise HostError(f"{path}: the marks around the entry of rune are damaged", "Remove the entry by hand.")
    return before + after


def hidden_by(documents: dict[str, dict[str, Any]], plugin: str) -> list[str]:
    """Return which of the imported files, by path, speak of the plugin, and so replace what the main file says."""
    return [path for path, document in documents.items() if plugin in table(document, "plugins")]


def register_docker(text: str, path: str, shim: str) -> str:
    """Return a daemon.json of Docker 23 or later, "" where there is none yet, with the shim at `shim`.

    Raises HostError.
    """
    document = _json(text, path)
    runtimes = document.setdefault("runtimes", {})
    if not isinstance(runtimes, dict):
        raise HostError(f"{path}: runtimes is {runtimes!r}", "It is an object.")
    entry = {"runtimeType": RUNTIME_TYPE if _is_found(shim) else shim}
    present = runtimes.get(RUNTIME, entry)
    if present == entry and RUNTIME in runtimes:
        return text
    if not _is_ours(present):
        raise HostError(
            f"{path}: there is a runtime {RUNTIME} already: {json.dumps(present)}", "Remove it, or let it be."
        )
    runtimes[RUNTIME] = entry
    return _json_text(document, text)


def unregister_docker(text: str, path: str) -> str:
    """Return daemon.json without what register_docker added, "" when nothing is left of it. Raises HostError."""
    document = _json(text, path)
    runtimes = table(document, "runtimes")
    if RUNTIME not in runtimes or not _is_ours(runtimes[RUNTIME]):
        return text
    if document.get("default-runtime") == RUNTIME:
        raise HostError(f"{path}: default-runtime is {RUNTIME}", "Choose another one first: dockerd would not start.")
    del runtimes[RUNTIME]
    if not runtimes:
        del document["runtimes"]
    return _json_text(document, text) if document else ""


def table(value: Any, *keys: str) -> dict[str, Any]:
    """Return the table at `keys` below a table; an empty one where there is something else, or nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _is_found(shim: str) -> bool:
    return os.path.dirname(shim) in SERVICE_PATH


def _is_ours(entry: object) -> bool:
    kind = entry.get("runtimeType") if isinstance(entry, dict) and len(entry) == 1 else None
    return kind == RUNTIME_TYPE or (isinstance(kind, str) and os.path.basename(kind) == SHIM)


def _toml(text: str, path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise HostError(f"{path} is no TOML: {error}", "containerd does not start with it.") from error


def _json(text: str, path: str) -> dict[str, Any]:
    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) < len(pairs):
            raise ValueError("a member is there twice")
        return document

    try:
        document = json.loads(text, object_pairs_hook=members) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise HostError(f"{path} is no JSON: {error}", "dockerd does not start with it.") from error
    if not isinstance(document, dict):
        raise HostError(f"{path} is no JSON object", "dockerd does not start with it.")
    return document


def _json_text(document: dict[str, Any], before: str) -> str:
    """Return a document as text, indented as it was before."""
    second = next((line for line in before.splitlines()[1:] if line.strip()), "    ")
    return json.dumps(document, indent=second[: len(second) - len(second.lstrip())] or 4, ensure_ascii=False) + "\n"
