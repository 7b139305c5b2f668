"""What state a container is in, and the ways from one to the next that make no new process: start, kill, delete.

A container is `creating` until its record names a process, `created` while the fifo is there, then `running` or
`paused` as long as its process lives, else `stopped`. Hot path.
"""

from __future__ import annotations

import errno
import os
import select
import time

from inclavare.container import store
from inclavare.errors import InclavareError, StateError
from inclavare.linux import cgroups, process
from inclavare.oci.state import hook_state, state_document

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.store import Record
    from inclavare.log import Log

SIGKILL = 9
DEATH_TIMEOUT_MS = 10_000
RECORD_TIMEOUT_S = 0.1  # between the directory and the first record in it
CREATION_TIMEOUT_S = 0.5  # how long who asks for a container waits while it is being created
THAW_AFTER_MS = 200  # who does not die by then may be frozen in a group that is not ours


def status(record: Record) -> str:
    """Give the container's status in the runtime-spec's words."""
    if not record.pid:
        deadline = time.monotonic() + RECORD_TIMEOUT_S
        while not record.creator and time.monotonic() < deadline:  # its creator is about to write, or was killed
            time.sleep(0.001)
            record.read_again()
        if record.creator and process.is_same(record.creator, record.creator_start_time):
            return "creating"
        record.read_again()  # its creator may have come to the end since it was read
        if not record.pid:
            return "stopped"
    if not process.is_same(record.pid, record.start_time):
        return "stopped"
    if os.path.exists(record.path(store.FIFO)):
        return "created"
    return "paused" if cgroups.is_frozen(record.cgroups) else "running"


def settled_status(record: Record) -> str:
    """Give the status; where a creation is under way, wait for its end, but not long.

    Who starts `create` beside itself and asks until there is a container means one that can be started. Hooks of the
    creation may ask, too, and shall not be kept: so it may still be `creating`.
    """
    now = status(record)
    deadline = time.monotonic() + CREATION_TIMEOUT_S
    while now == "creating" and time.monotonic() < deadline:
        time.sleep(0.002)
        record.read_again()
        now = status(record)
    return now


def document(record: Record, now: str) -> dict[str, object]:
    """Give the state document that `rune state` prints. `now` is its status."""
    enclave: dict[str, object] | None = None
    if record.enclave is not None:
        enclave = {**_text_members(record.enclave), "platform": record.platform}
    return state_document(
        container_id=record.id,
        pid=0 if now == "stopped" else record.pid,
        status=now,
        bundle=record.bundle,
        rootfs=record.rootfs,
        created=record.created,
        annotations=record.annotations,
        owner=record.owner,
        enclave=enclave,
    )


def start(record: Record, log: Log) -> None:
    """Let the program of a created container run, then run the poststart hooks."""
    now = settled_status(record)
    if now == "stopped":
        raise StateError("cannot start a container that has stopped", f"Remove it with `rune delete {record.id}`.")
    if now != "created":
        raise StateError(f"cannot start a {now} container", "Only a created container can be started, and only once.")
    path = record.path(store.FIFO)
    try:
        fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            raise StateError(f"cannot start container {record.id}: its process does not wait any more") from error
        raise
    try:
        raw = record.read(store.CONFIG)
        _run_start_hooks(record, raw, log)
        os.unlink(path)  # first: what is written can start one program only
        os.write(fifo, b"0")
    finally:
        os.close(fifo)
    run_poststart_hooks(record, log, raw)


def _run_start_hooks(record: Record, raw: bytes, log: Log) -> None:
    if b'"startContainer"' not in raw:
        return
    from inclavare.container import inside_hooks  # noqa: PLC0415  # most containers have no hooks
    from inclavare.oci import jsontext, spec  # noqa: PLC0415

    try:
        inside_hooks.start_container(record, spec.parse(jsontext.loads(raw)), log)
    except InclavareError:
        end(record)
        raise


def run_poststart_hooks(record: Record, log: Log, raw: bytes | None = None) -> None:
    """Run the poststart hooks. The first that fails ends the container, and is raised (as runc and crun do)."""
    raw = record.read(store.CONFIG) if raw is None else raw
    if b'"poststart"' not in raw:
        return
    from inclavare.container import hooks  # noqa: PLC0415  # most containers have none
    from inclavare.oci import jsontext, spec  # noqa: PLC0415

    try:
        hooks.run_hooks("poststart", spec.parse(jsontext.loads(raw)).hooks.poststart, _hook_state(record, "running"))
    except InclavareError:
        delete(record, log, force=True)
        raise


def _run_poststop_hooks(record: Record, log: Log) -> None:
    """Run the poststop hooks; a failure is logged, and the next ones run (runtime.md "Lifecycle")."""
    try:
        raw = record.read(store.CONFIG)
    except FileNotFoundError:
        return
    if b'"poststop"' not in raw:
        return
    from inclavare.container import hooks  # noqa: PLC0415  # most containers have none
    from inclavare.oci import jsontext, spec  # noqa: PLC0415

    try:
        listed = spec.parse(jsontext.loads(raw)).hooks.poststop
    except InclavareError as error:
        log.warning(error.message)
        return
    for index, hook in enumerate(listed):
        try:
            hooks.run_hooks("poststop", [hook], _hook_state(record, "stopped"), index)
        except InclavareError as error:
            log.warning(error.message)


def _hook_state(record: Record, now: str) -> dict[str, object]:
    return hook_state(
        container_id=record.id,
        pid=0 if now == "stopped" else record.pid,
        status=now,
        bundle=record.bundle,
        annotations=record.annotations,
    )


def kill(record: Record, number: int, *, everyone: bool) -> None:
    """Send a signal to the container's process, or to `everyone` in its cgroup. What is paused goes on to be killed."""
    now = status(record)
    if everyone and (now != "stopped" or cgroups.processes(record.cgroups)):
        _signal_all(record, number)
    elif now == "stopped" or not record.pid:
        raise StateError(f"container not running: {record.id} is {now}")
    elif not process.send_signal(record.pid, record.start_time, number):
        raise StateError(f"container not running: the process of {record.id} has ended")
    if number == SIGKILL:
        cgroups.thaw(record.cgroups)


def delete(record: Record, log: Log, *, force: bool) -> None:
    """Remove a stopped container, or with `force` any: its processes, cgroups, state. Then run poststop hooks."""
    now = status(record)
    if now == "created" or (force and now != "stopped"):
        end(record)
    elif now != "stopped":
        raise StateError(
            f"cannot delete container {record.id} that is not stopped: {now}",
            f"Stop it first with `rune kill {record.id} KILL`, or use `rune delete --force`.",
        )
    clean_up(record)
    _run_poststop_hooks(record, log)
    record.remove()


def end(record: Record) -> None:
    """Kill the container's processes, or the rune that makes it, and wait for their end."""
    pid, started = (record.pid, record.start_time) if record.pid else (record.creator, record.creator_start_time)
    cgroups.thaw(record.cgroups)
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if process.is_same(pid, started):
            process.send_signal(pid, started, 9)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(THAW_AFTER_MS):
                cgroups.thaw_process(pid)
            if not poll.poll(DEATH_TIMEOUT_MS):
                raise StateError(f"container {record.id} does not die: process {pid} is still there after SIGKILL")
    finally:
        os.close(pidfd)


def _signal_all(record: Record, number: int) -> None:
    """Signal all processes in the container's cgroups, also those that are forked meanwhile."""
    pids = cgroups.processes(record.cgroups)
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    if set(cgroups.processes(record.cgroups)) - set(pids):
        from inclavare.container import pause  # noqa: PLC0415  # few are that fast

        pause.signal_crowd(record, number, set(pids))


def clean_up(record: Record) -> None:
    """Kill what is left in the container's cgroups and remove them."""
    deadline = time.monotonic() + DEATH_TIMEOUT_MS / 1000
    while pids := cgroups.processes(record.cgroups):
        _signal_all(record, 9)
        if time.monotonic() > deadline:
            raise StateError(f"cannot remove container {record.id}: processes {pids} do not die")
        time.sleep(0.005)
    if record.systemd_unit:
        from inclavare.linux import systemd_cgroup  # noqa: PLC0415  # only for systemd's driver

        systemd_cgroup.remove(record.systemd_unit)
    cgroups.remove(record.cgroups)


def _text_members(enclave: dict[str, object]) -> dict[str, object]:
    inner = enclave.get("Enclave")
    table = inner if isinstance(inner, dict) else {}
    return {name: value for name, value in table.items() if name in ("type", "path", "args") and value}
