"""Hooks in the container's namespaces: createContainer (before the root is pivoted) and startContainer.

A createContainer hook is the host's program with the host's root before it, and in it, at the rootfs's path, the
container's mounts. A startContainer hook is the image's: it has the user, capabilities and filter of the container's
process. Either is an executor's plan that joins the container: nothing of ours runs inside.

runtime-spec: config.md "POSIX-platform Hooks".
"""

from __future__ import annotations

import os

from inclavare.container import facts
from inclavare.container.executor import Run, sealed_memfd
from inclavare.container.filter_cache import read_filter
from inclavare.container.hooks import finish
from inclavare.container.plan import CALL_EXEC, CALL_SYNC, Plan
from inclavare.container.process_plan import Filter, add_death_signal, add_filter, add_identity, add_not_dumpable
from inclavare.container.steps import (
    NAMESPACES,
    SYNC_FILLED,
    SYNC_LISTENER,
    SYNC_READY,
    add_clone,
    add_labels,
    become_root,
)
from inclavare.errors import HostError, PlanError
from inclavare.linux import headers as k
from inclavare.linux.calls import (
    SYS_CHDIR,
    SYS_CHROOT,
    SYS_CLOSE,
    SYS_CLOSE_RANGE,
    SYS_DUP3,
    SYS_FCHDIR,
    SYS_OPENAT,
    SYS_SETNS,
    SYS_SETSID,
)
from inclavare.linux.files import read_file
from inclavare.oci import jsontext
from inclavare.oci.state import hook_state

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.mount_plan import Root
    from inclavare.container.store import Record
    from inclavare.log import Log
    from inclavare.oci.spec import Hook, Spec


def fill_first(plan: Plan, root: Root, rootfs: str) -> None:
    """Plan the mounts before the pivot, in a chroot, and the createContainer hooks between."""
    host = plan.take(
        SYS_OPENAT, k.AT_FDCWD, plan.string("/"), k.O_PATH | k.O_CLOEXEC, 0, words="remember the host's root"
    )
    root.enter()
    plan.add(SYS_CHROOT, plan.string("."), words="stay in it while it is filled")
    plan.add(SYS_CHDIR, plan.string("/"), words="enter the root")
    root.fill()
    plan.add(SYS_FCHDIR, host, words="go back to the host's root")
    plan.add(SYS_CHROOT, plan.string("."), words="see the host's root")
    plan.add(SYS_CLOSE, host, words="close it")
    plan.add(SYS_CHDIR, plan.string(rootfs), words=f"enter {rootfs}")
    plan.add(CALL_SYNC, SYNC_FILLED, words="wait for the hooks createContainer")
    root.leave()


def create_container(record: Record, spec: Spec, pid: int, log: Log) -> None:
    """Run the createContainer hooks of a container that waits for them. Raises HostError as `run_hooks`."""
    _run_all("createContainer", spec.hooks.create_container, "creating", record, spec, pid, None, log)


def start_container(record: Record, spec: Spec, log: Log) -> None:
    """Run the startContainer hooks of a container that is ready to start. Raises HostError as `run_hooks`."""
    profile = spec.linux.seccomp
    filter_ = read_filter(record, profile) if profile is not None else None
    _run_all("startContainer", spec.hooks.start_container, "created", record, spec, record.pid, filter_, log)


def _run_all(
    kind: str, hooks: list[Hook], status: str, record: Record, spec: Spec, pid: int, filter_: Filter | None, log: Log
) -> None:
    state = hook_state(
        container_id=record.id,
        pid=_pid_inside(pid),
        status=status,
        bundle=record.bundle,
        annotations=record.annotations,
    )
    document = jsontext.dumps(state).encode()
    pidfd = os.pidfd_open(pid)
    try:
        for index, hook in enumerate(hooks):
            plan = Plan()
            _join(plan, spec, pidfd, labelled=kind == "startContainer")
            if kind == "createContainer":
                plan.add(SYS_CHDIR, plan.string(record.rootfs), words=f"enter {record.rootfs}")
            name = f"{kind} hook #{index} ({hook.path})"
            _run(name, plan, hook, document, pidfd, record, spec, kind, filter_, log)
    finally:
        os.close(pidfd)


def _pid_inside(pid: int) -> int:
    """Give the pid that a process has in its own pid namespace, as runc tells these hooks."""
    for line in read_file(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"NSpid:"):
            return int(line.split()[-1])
    return pid


def _join(plan: Plan, spec: Spec, pidfd: int, *, labelled: bool) -> None:
    flags = 0
    for namespace in spec.linux.namespaces:
        flags |= NAMESPACES[namespace.type]
    add_not_dumpable(plan)
    if flags & k.CLONE_NEWPID:
        plan.add(SYS_SETNS, pidfd, k.CLONE_NEWPID, words="join the container's pid namespace")
    add_clone(plan, 0)
    add_death_signal(plan)
    plan.add(SYS_SETSID, words="start a session")
    if labelled:
        add_labels(plan, spec.process)
    plan.add(SYS_SETNS, pidfd, flags & ~k.CLONE_NEWPID, words="join the container's namespaces")
    if flags & k.CLONE_NEWUSER:
        become_root(plan)


def _run(
    name: str,
    plan: Plan,
    hook: Hook,
    document: bytes,
    pidfd: int,
    record: Record,
    spec: Spec,
    kind: str,
    filter_: Filter | None,
    log: Log,
) -> None:
    state = sealed_memfd("rune-state", document)
    os.lseek(state, 0, os.SEEK_SET)
    out, error_out = (os.memfd_create(f"rune-hook-{which}", os.MFD_CLOEXEC) for which in ("stdout", "stderr"))
    try:
        for number, fd in enumerate((state, out, error_out)):
            plan.add(SYS_DUP3, fd, number, 0, words=f"make it fd {number}")
        plan.add(SYS_CLOSE_RANGE, 3, 0xFFFF_FFFF, k.CLOSE_RANGE_CLOEXEC, words="let no fd through to the hook")
        process = spec.process
        if kind == "startContainer":
            userns = spec.linux.namespace("user") is not None
            host = facts.Facts({}, facts.read_last_cap(), [None] * 3)
            add_identity(plan, process, host, filter_, userns=userns)
        plan.add(CALL_SYNC, SYNC_READY, words="report that the hook can run")
        if kind == "startContainer" and process.no_new_privileges:
            add_filter(plan, filter_)
        argv, envp = plan.strings(hook.args or [hook.path]), plan.strings(hook.env)
        plan.add(CALL_EXEC, plan.string(hook.path), argv, envp, words=f"run {hook.path}")
        run = Run(plan, [pidfd, state, out, error_out], log)

        def answer(sync: int) -> None:
            if sync == SYNC_LISTENER:
                from inclavare.container import listener  # noqa: PLC0415  # few profiles have an agent

                listener.hand_over(run, record, spec, "created", log)

        try:
            run.follow(answer, SYNC_READY)
        except PlanError as error:
            raise HostError(f"error running {name}: {error.message}") from error
        finish(name, run.pid, hook.timeout, out, error_out)
    finally:
        for fd in (state, out, error_out):
            os.close(fd)
