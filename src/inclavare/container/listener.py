"""Hands a filter's listener to the seccomp agent: runtime-spec, config-linux.md "Seccomp" (listenerPath).

The process has loaded the filter and waits, with the listener among its fds. It can do little itself, since the filter
judges it already, so rune takes the fd out of it. Imported only for profiles that name an agent.
"""

from __future__ import annotations

import _socket
import os
from struct import pack

from inclavare.container.executor import Run
from inclavare.container.plan import CALL_CLONE, CALL_EXIT, CALL_SEND_PID, CALL_STORE, CALL_SYNC, Data, Plan
from inclavare.container.steps import SYNC_READY
from inclavare.errors import HostError
from inclavare.linux import headers as k
from inclavare.linux.calls import SYS_PIDFD_GETFD, SYS_SENDMSG
from inclavare.oci import jsontext
from inclavare.oci.state import SPEC_VERSION, hook_state

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.store import Record
    from inclavare.log import Log
    from inclavare.oci.spec import Spec

TIMEOUT_S = 10  # for an agent that does not take what it is sent


def hand_over(run: Run, record: Record, document: Spec, status: str, log: Log) -> None:
    """Send the listener of the process that `run` made, and what the agent should know of it. Raises HostError.

    `status` is the container's. Of exec the process is one of exec, and the state tells the container's own.
    """
    profile = document.linux.seccomp
    if profile is None or profile.listener_path is None:
        raise HostError("a seccomp filter has a listener, and no agent")
    state = hook_state(
        container_id=record.id,
        pid=record.pid or run.pid,
        status=status,
        bundle=record.bundle,
        annotations=document.annotations,
    )
    message: dict[str, object] = {"ociVersion": SPEC_VERSION, "fds": ["seccompFd"], "pid": run.pid}
    if profile.listener_metadata:
        message["metadata"] = profile.listener_metadata
    message["state"] = state
    listener = _take(run.pid, run.listener, log)
    try:
        _send(profile.listener_path, jsontext.dumps(message).encode("utf-8", "surrogateescape"), listener)
    finally:
        os.close(listener)


def _take(pid: int, number: int, log: Log) -> int:
    """Give a copy of fd `number` of process `pid`, our child. Python has no pidfd_getfd(2), the executor has."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    pidfd = os.pidfd_open(pid)
    taken: list[int] = []
    plan = Plan()
    clone = plan.take(CALL_CLONE, words="clone a process that takes a seccomp listener")
    plan.add(CALL_SEND_PID, clone, words="tell its pid")
    plan.add(CALL_EXIT, 0, words="end the executor")
    plan.ops[0].args = (k.CLONE_PARENT, len(plan.ops))
    listener = plan.take(SYS_PIDFD_GETFD, pidfd, number, 0, words="take the seccomp listener out of the container")
    control = plan.data(pack("<QiiiI", 20, k.SOL_SOCKET, k.SCM_RIGHTS, 0, 0))  # struct cmsghdr, cmsg(3)
    plan.add(CALL_STORE, Data(control + 16), listener, words="name the seccomp listener in a message")
    part = plan.words64([plan.string("fd"), 1])
    head = plan.words64([0, 0, part, 1, control, 24, 0])  # struct msghdr
    plan.add(SYS_SENDMSG, theirs.fileno(), head, 0, words="pass on the seccomp listener")
    plan.add(CALL_SYNC, SYNC_READY, words="report that it is passed on")
    plan.add(CALL_EXIT, 0, words="end")

    def answer(_sync: int) -> None:
        _, ancillary, _, _ = ours.recvmsg(1, _socket.CMSG_SPACE(4), k.MSG_CMSG_CLOEXEC)
        taken.extend(int.from_bytes(data[:4], "little") for _, _, data in ancillary)

    try:
        run = Run(plan, [pidfd, theirs.fileno()], log)
        run.follow(answer, SYNC_READY)
        run.kill()
    except BaseException:
        for fd in taken:
            os.close(fd)
        raise
    finally:
        os.close(pidfd)
        ours.close()
        theirs.close()
    return taken[0]


def _send(path: str, text: bytes, listener: int) -> None:
    way = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        way.settimeout(TIMEOUT_S)
        way.connect(path)
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, listener.to_bytes(4, "little"))]
        sent = way.sendmsg([text], rights, k.MSG_NOSIGNAL)
        way.sendall(text[sent:], k.MSG_NOSIGNAL)
    except OSError as error:
        raise HostError(
            f"linux.seccomp.listenerPath: cannot send the seccomp listener to {path}: {error.strerror or error}",
            "Start the seccomp agent first: it listens on a unix stream socket there.",
        ) from error
    finally:
        way.close()
