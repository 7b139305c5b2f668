"""`runectl register`: makes the shim known to containerd or Docker, in their configuration file, and unknown again."""

from __future__ import annotations

import argparse
import os
import stat
import sys
import tomllib

from inclavare.cli.runectl_files import print_json, write_file
from inclavare.errors import HostError

PATHS = {"containerd": "/etc/containerd/config.toml", "docker": "/etc/docker/daemon.json"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to runectl's parser."""
    parser = commands.add_parser(
        "register",
        help="make rune known to containerd or Docker, or unknown again",
        description="Add the runtime rune, of containerd-shim-rune-v2, to the configuration file of containerd (1.3 to"
        " 2.x, for Kubernetes) or Docker (23 or later). What else is there stays. Restart the daemon afterwards.",
        allow_abbrev=False,
    )
    parser.add_argument("engine", choices=tuple(PATHS), help="containerd or docker")
    parser.add_argument("--undo", action="store_true", help="take away what this command has added")
    parser.add_argument("--config", metavar="FILE", help=f"the file (default: {', '.join(PATHS.values())})")
    parser.add_argument("--root", metavar="DIR", default="/", help="change the host whose files are below DIR")
    parser.add_argument("--shim", metavar="FILE", help="the shim on that host (default: the one beside this runectl)")
    parser.add_argument("--dry-run", action="store_true", help="print the file as it would be, and change nothing")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Change the file, or print it."""
    from inclavare.doctor import registration  # noqa: PLC0415  # much to load for the other commands

    shown = arguments.config or PATHS[arguments.engine]
    path = os.path.realpath(os.path.join(arguments.root, shown.lstrip("/")) if arguments.root != "/" else shown)
    shim = arguments.shim or os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), registration.SHIM)
    text, mode = _read(path)
    if arguments.engine == "containerd":
        changed = registration.unregister_containerd(text, path)
        if not arguments.undo:
            changed = registration.register_containerd(text, path, shim)
            _warn(changed, path, arguments.root)
    elif arguments.undo:
        changed = registration.unregister_docker(text, path)
    else:
        changed = registration.register_docker(text, path, shim)
    if changed != text and not arguments.dry_run:
        _write(path, changed, mode)
    if arguments.json:
        values = {"engine": arguments.engine, "config": path, "changed": changed != text}
        print_json({**values, "content": changed} if arguments.dry_run else values)
    elif arguments.dry_run:
        sys.stdout.write(changed)
    elif changed != text:
        verb = "without" if arguments.undo else "with"
        print(f"{path}: {verb} runtime {registration.RUNTIME}; restart {arguments.engine}")
    else:
        print(f"{path}: nothing to change")
    return 0


def _read(path: str) -> tuple[str, int]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    except FileNotFoundError:
        return "", 0o644
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise HostError(f"{path} is not UTF-8: {error}") from error


def _write(path: str, text: str, mode: int) -> None:
    try:
        if text:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        else:
            os.unlink(path)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from error
    if text:
        write_file(path, text.encode(), mode)


def _warn(text: str, path: str, root: str) -> None:
    """Say why containerd may not use what its file says."""
    from inclavare.doctor import registration  # noqa: PLC0415
    from inclavare.doctor.engines import imported  # noqa: PLC0415
    from inclavare.doctor.host import Host  # noqa: PLC0415

    document = tomllib.loads(text)
    if "version" not in document or document["version"] == 1:
        hint = "containerd config migrate; then register again"
        print(f"runectl: {path} is of version 1: containerd 2 ignores its runtimes\nhint: {hint}", file=sys.stderr)
    plugin = registration.containerd_plugin(document)
    if {"cri", plugin} & set(document.get("disabled_plugins", [])):
        print(f"runectl: {path} disables {plugin}: Kubernetes cannot use this containerd", file=sys.stderr)
    inside = f"/{os.path.relpath(path, os.path.realpath(root))}"
    for other in registration.hidden_by(imported(Host(root), document, inside), plugin):
        print(
            f"runectl: containerd before 2.0 ignores the entry: {other} speaks of {plugin}, too\n"
            f"hint: runectl register containerd --undo; runectl register containerd --config {other}",
            file=sys.stderr,
        )
