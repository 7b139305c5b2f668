"""Runs hooks in the runtime's namespaces: prestart, createRuntime, poststart, poststop.

A hook gets the container's state on its standard input. Its working directory is the bundle; its environment is what
it says, or rune's own where it says nothing, as with runc and crun. Failure is the caller's to handle: it ends the
container, but for poststop hooks. Hooks that run in the container's namespaces are inside_hooks. Hot path.
"""

from __future__ import annotations

import os
import select

from inclavare.container.executor import SIGNALS, sealed_memfd
from inclavare.errors import HostError
from inclavare.oci import jsontext
from inclavare.oci.state import hook_state

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.store import Record
    from inclavare.oci.spec import Hook, Spec

OUTPUT_MAX = 4096


def run_hooks(kind: str, hooks: list[Hook], state: dict[str, object], first: int = 0) -> None:
    """Run hooks in order, the first of which has the number `first`.

    Raises HostError, naming the hook, when one fails, cannot start or takes too long.
    """
    document = jsontext.dumps(state).encode()
    for index, hook in enumerate(hooks, first):
        _run(f"{kind} hook #{index} ({hook.path})", hook, document, str(state["bundle"]))


def run_create_hooks(record: Record, spec: Spec, pid: int) -> None:
    """Run the hooks prestart and createRuntime of a container that waits for them. Raises as `run_hooks`."""
    state = hook_state(
        container_id=record.id, pid=pid, status="creating", bundle=record.bundle, annotations=record.annotations
    )
    run_hooks("prestart", spec.hooks.prestart, state)
    run_hooks("createRuntime", spec.hooks.create_runtime, state)


def finish(name: str, pid: int, timeout_s: int | None, out: int, error_out: int) -> None:
    """Wait for a hook that writes to these memfds. Raises HostError, in runc's words, for all but success."""
    status = _wait(pid, timeout_s)
    if status is None:
        raise HostError(f"error running {name}: hook ran past specified timeout of {timeout_s:.1f}s")
    if status:
        how = f"exit status {status}" if status > 0 else f"signal: {-status}"
        said, complaint = (os.pread(fd, OUTPUT_MAX, 0).decode("utf-8", "replace") for fd in (out, error_out))
        raise HostError(f"error running {name}: {how}, stdout: {said}, stderr: {complaint}")


def _run(name: str, hook: Hook, document: bytes, bundle: str) -> None:
    state = sealed_memfd("rune-state", document)
    os.lseek(state, 0, os.SEEK_SET)
    out, error_out = (os.memfd_create(f"rune-hook-{which}", os.MFD_CLOEXEC) for which in ("stdout", "stderr"))
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    try:
        try:
            os.chdir(bundle)
            pid = os.posix_spawn(
                hook.path,
                hook.args or [hook.path],
                dict(entry.split("=", 1) for entry in hook.env if "=" in entry) if hook.env else os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, state, 0),
                    (os.POSIX_SPAWN_DUP2, out, 1),
                    (os.POSIX_SPAWN_DUP2, error_out, 2),
                ],
                setsigmask=(),
                setsigdef=SIGNALS,
            )
        except OSError as error:
            raise HostError(f"error running {name}: cannot start it: {error.strerror}") from error
        finally:
            os.fchdir(here)
        finish(name, pid, hook.timeout, out, error_out)
    finally:
        for fd in (state, out, error_out, here):
            os.close(fd)


def _wait(pid: int, timeout_s: int | None) -> int | None:
    """Give the exit status, negative for a signal; None after a timeout, when the hook has been killed."""
    if timeout_s is not None:
        pidfd = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                return None
        finally:
            os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
