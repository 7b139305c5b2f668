"""Runs hooks in the runtime's namespaces: prestart, createRuntime, poststart, poststop.

A hook gets the container's state on its standard input. Failure is an error of the caller's to handle: it stops a
create, and is only a warning after the end. Hot path.
"""

from __future__ import annotations

import os
import select

from inclavare.container.executor import SIGNALS, sealed_memfd
from inclavare.errors import HostError
from inclavare.oci import jsontext

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.spec import Hook

OUTPUT_MAX = 4096


def run_hooks(kind: str, hooks: list[Hook], state: dict[str, object]) -> None:
    """Run hooks in order. Raises HostError, naming the hook, when one fails, cannot start or takes too long."""
    document = jsontext.dumps(state).encode()
    for index, hook in enumerate(hooks):
        _run(f"hook {kind}[{index}] ({hook.path})", hook, document)


def _run(name: str, hook: Hook, document: bytes) -> None:
    state = sealed_memfd("rune-state", document)
    os.lseek(state, 0, os.SEEK_SET)
    output = os.memfd_create("rune-hook-output", os.MFD_CLOEXEC)
    try:
        try:
            pid = os.posix_spawn(
                hook.path,
                hook.args or [hook.path],
                dict(entry.split("=", 1) for entry in hook.env if "=" in entry),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, state, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                ],
                setsigmask=(),
                setsigdef=SIGNALS,
            )
        except OSError as error:
            raise HostError(f"{name} cannot be started: {error.strerror}") from error
        status = _wait(pid, hook.timeout)
        said = os.pread(output, OUTPUT_MAX, 0).decode("utf-8", "replace").strip()
    finally:
        os.close(state)
        os.close(output)
    if status is None:
        raise HostError(f"{name} took longer than its timeout of {hook.timeout} s")
    if status:
        how = f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"
        raise HostError(f"{name} {how}" + (f": {said}" if said else ""))


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
