"""What the children of the shim do: each function is one operation of the runtime, and gives its answer's values."""

from __future__ import annotations

import errno
import os
import time

from inclavare import carriers
from inclavare.container import create as creation
from inclavare.container import exec as executing
from inclavare.container import lifecycle, store
from inclavare.enclave import hostconfig
from inclavare.errors import HostError, StateError
from inclavare.linux.files import read_file
from inclavare.oci import jsontext, spec
from inclavare.shim import execution, rootfs
from inclavare.shim.log import ShimLog

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from typing import Any

    from inclavare.log import Log
    from inclavare.shim.options import Options

UNDO_TIMEOUT_S = 3.0  # containerd gives `delete` 5 s
HOOKS_OF_START = (b'"startContainer"', b'"poststart"')


def mount(request: dict[str, Any]) -> dict[str, Any]:
    """Mount the root filesystem of a container that is to be restored at its start."""
    rootfs.mount(request["rootfs"], f"{request['bundle']}/rootfs")
    return {}


def create(request: dict[str, Any], root: str, options: Options, platform: str, log: ShimLog) -> dict[str, Any]:
    """Mount the root filesystem and make the container, or restore it where it is mounted. On failure nothing is left.

    A carrier that the bundle asks for prepares its enclave in between, which may take minutes. Gives pid, cgroups,
    whether it has its own pid namespace, whether its start has hooks, and what exec needs to know.
    """
    bundle = request["bundle"]
    _write(f"{bundle}/options.json", options.json())
    _write(f"{bundle}/runtime", b"rune")
    place = f"{bundle}/rootfs"
    if not request["checkpoint"]:
        rootfs.mount(request["rootfs"], place)
    try:
        configuration = jsontext.loads(read_file(f"{bundle}/config.json"))
        chosen = _choices(request, root, options, platform, configuration)
        if not request["checkpoint"]:
            _prepare_enclave(bundle, configuration, platform, log)
        prepared = creation.Prepared(request["id"], bundle, chosen, log)
        if request["checkpoint"]:
            built = _restore(prepared, request["checkpoint"], log)
        else:
            built = creation.build(prepared, log)
    except BaseException:
        rootfs.umount(place)
        raise
    pid_namespace = prepared.spec.linux.namespace("pid")
    return {
        "pid": built.pid,
        "master": built.master,
        "cgroups": built.record.cgroups,
        "own_pids": pid_namespace is not None and not pid_namespace.path,
        "hooks": any(name in prepared.raw for name in HOOKS_OF_START),
        "exec": execution.remember(built.record, prepared.spec, configuration),
    }


def start(root: str, container_id: str, log: Log) -> dict[str, Any]:
    """Let the container's program run. Without hooks this does not block, and the shim does it itself."""
    lifecycle.start(store.load(root, container_id), log)
    return {}


def execute(root: str, container_id: str, process: bytes, *, terminal: bool, log: Log) -> dict[str, Any]:
    """Run another process, with the child's stdio. Gives its pid."""
    record = store.load(root, container_id)
    document = executing.container_spec(record)
    parsed = spec.parse_process(jsontext.loads(process, "the process"))
    parsed.terminal = terminal
    options = executing.Options()
    options.terminal = options.terminal_as_is = True
    executed = executing.execute(record, executing.make_request(record, document, parsed), options, log)
    return {"pid": executed.pid, "master": executed.master}


def delete(root: str, container_id: str, bundle: str, log: Log, *, force: bool) -> dict[str, Any]:
    """Remove the container, if it is there, and unmount its root filesystem."""
    deadline = time.monotonic() + UNDO_TIMEOUT_S
    while os.path.isdir(f"{root}/{container_id}"):
        try:
            lifecycle.delete(store.load(root, container_id), log, force=force)
        except store.DamagedError:
            from inclavare.container import damaged  # noqa: PLC0415  # never, if all goes well

            damaged.delete(root, container_id, log)
        except StateError:  # a child of a shim that died may be making or removing it just now
            if not force or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    rootfs.umount(f"{bundle}/rootfs")
    return {}


def kill_all(root: str, container_id: str, number: int) -> dict[str, Any]:
    """Signal every process of the container."""
    lifecycle.kill(store.load(root, container_id), number, everyone=True)
    return {}


def pause(root: str, container_id: str) -> dict[str, Any]:
    """Stop every process of the container."""
    from inclavare.container import pause as pausing  # noqa: PLC0415  # seldom

    pausing.pause(store.load(root, container_id))
    return {}


def resume(root: str, container_id: str) -> dict[str, Any]:
    """Let them go on."""
    from inclavare.container import pause as pausing  # noqa: PLC0415  # seldom

    pausing.resume(store.load(root, container_id))
    return {}


def update(root: str, container_id: str, resources: bytes, log: Log) -> dict[str, Any]:
    """Change the container's limits."""
    from inclavare.container import update as updating  # noqa: PLC0415  # seldom

    parsed = spec.parse_resources(jsontext.loads(resources, "the resources"))
    updating.update(store.load(root, container_id), parsed, log)
    return {}


def checkpoint(root: str, container_id: str, path: str, options: dict[str, Any], log: Log) -> dict[str, Any]:
    """Write the container to an image, and let it end if `exit` says so."""
    from inclavare.container import checkpoint as checkpoints  # noqa: PLC0415  # seldom

    names = {
        "tcp_established": options["open_tcp"],
        "ext_unix_sk": options["external_unix_sockets"],
        "shell_job": options["terminal"],
        "file_locks": options["file_locks"],
        "leave_running": not options["exit"],
    }
    image = path or options["image_path"]
    choices = checkpoints.Choices(image, {name: True for name, chosen in names.items() if chosen})
    choices.work_path = options["work_path"] or f"{image}/work"
    choices.manage_cgroups_mode = options["cgroups_mode"]
    os.makedirs(choices.work_path, 0o700, exist_ok=True)
    checkpoints.checkpoint(store.load(root, container_id), choices, log)
    return {}


def _prepare_enclave(bundle: str, configuration: object, platform: str, log: ShimLog) -> None:
    """Let a carrier prepare the enclave, if one was chosen; else this takes no time."""
    if not isinstance(configuration, dict):
        return
    if carriers.is_asked_for(configuration) or hostconfig.may_choose_carrier():
        settings = hostconfig.read()
        settings.platform = platform or settings.platform
        level = settings.log_level if log.level == "info" else log.level
        carriers.prepare(bundle, settings, ShimLog(log.fd, level=level), os.environ)


def _choices(
    request: dict[str, Any], root: str, options: Options, platform: str, configuration: object
) -> creation.Options:
    chosen = creation.Options(root)
    chosen.pid_file = f"{request['bundle']}/init.pid"
    chosen.no_pivot = options.values["no_pivot_root"]
    chosen.new_keyring = not options.values["no_new_keyring"]
    chosen.sgx_platform = platform
    chosen.terminal = chosen.terminal_as_is = bool(request["terminal"])
    chosen.wait = not request["checkpoint"]
    if options.values["systemd_cgroup"] or _names_a_slice(configuration):
        chosen.cgroup_manager = "systemd"
    return chosen


def _names_a_slice(document: object) -> bool:
    """Tell whether cgroupsPath is SLICE:PREFIX:NAME: kubelet with systemd's driver writes so."""
    linux = document.get("linux") if isinstance(document, dict) else None
    path = linux.get("cgroupsPath") if isinstance(linux, dict) else None
    return isinstance(path, str) and path.count(":") == 2 and not path.startswith("/") and ".slice:" in path


def _restore(prepared: creation.Prepared, image: str, log: Log) -> creation.Built:
    from inclavare.container import checkpoint as checkpoints  # noqa: PLC0415  # seldom
    from inclavare.container import restore  # noqa: PLC0415

    return restore.restore(prepared, checkpoints.Choices(image, {}), log)


def _write(path: str, content: bytes) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}") from error
    try:
        if os.write(fd, content) != len(content):
            raise HostError(f"cannot write {path}: {os.strerror(errno.ENOSPC)}")
    finally:
        os.close(fd)
