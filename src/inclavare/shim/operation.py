"""What would block the loop is done by a child of ours, one for each operation (decision 0017).

The child has the fds that its container shall have as stdio, says how it went in one message, and ends: what it has
made (a container's process) is ours then, because we are the subreaper. It is a process group of its own, so that all
that it has started can be told to end; then it undoes what it had begun. It is told so, too, when we die.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums: 4 ms
import _socket
import fcntl
import os

from inclavare.container.interrupt import TERMINATING, undo_on_signals
from inclavare.errors import InclavareError, StateError
from inclavare.linux.syscall import die_with_parent
from inclavare.log import json_string
from inclavare.oci import jsontext
from inclavare.shim.log import ShimLog, describe
from inclavare.shim.loop import IN, CancelledError, Future

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from inclavare.shim.loop import Loop

    Action = Callable[[ShimLog], dict[str, Any]]

RESULT_FD, LOG_FD = 3, 4  # of the child
MESSAGE_MAX = 1 << 16
UNDO_TIMEOUT_S = 10
OTHER_SIGNALS = (_signal.SIGCHLD, _signal.SIGPIPE)


class FailedError(InclavareError):
    """The operation failed. `state` tells that the container was not in the state for it, or is none."""

    def __init__(self, message: str, *, state: bool) -> None:
        super().__init__(message)
        self.state = state


class Result:
    """What an operation answered, and the terminal's master that it made (the caller owns it), or -1."""

    __slots__ = ("master", "values")

    def __init__(self, values: dict[str, Any], master: int) -> None:
        self.values = values
        self.master = master


async def operate(loop: Loop, log: ShimLog, action: Action, stdio: tuple[int, int, int] | None = None) -> Result:
    """Carry out an action in a child. `stdio`: the child's, /dev/null without. Raises FailedError.

    The action gives the values of the answer; `master` among them is an fd, and is passed on. When the task that waits
    is cancelled, the child undoes its work.
    """
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    shim = os.getpid()
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, TERMINATING)  # until the child has handlers of its own
    pid = os.fork()
    if not pid:
        _be_the_child(shim, theirs.fileno(), log, action, stdio)
    os.setpgid(pid, pid)  # the child does so, too: whoever is first
    _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
    theirs.close()
    ended = Future()
    loop.on_exit(pid, ended.set)
    ours.setblocking(False)
    try:
        await loop.until(ours.fileno(), IN)
        message, ancillary, _, _ = ours.recvmsg(MESSAGE_MAX, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    except CancelledError:
        _cancel(loop, pid, ended)
        await ended
        raise
    finally:
        ours.close()
    master = int.from_bytes(ancillary[0][2][:4], "little") if ancillary else -1
    values = jsontext.loads(message, "the answer of an operation") if message else None
    if not isinstance(values, dict):
        raise FailedError(f"the process that did it ended with status {await ended}", state=False)
    if "error" in values:
        raise FailedError(str(values["error"]), state=bool(values["state"]))
    return Result(values, master)


def _cancel(loop: Loop, pid: int, ended: Future) -> None:
    if ended.done:
        return
    os.killpg(pid, _signal.SIGTERM)

    def insist() -> None:
        if not ended.done:
            os.killpg(pid, _signal.SIGKILL)

    loop.later(UNDO_TIMEOUT_S, insist)


def _be_the_child(shim: int, result: int, log: ShimLog, action: Action, stdio: tuple[int, int, int] | None) -> None:
    try:
        os.setpgid(0, 0)
        _signal.set_wakeup_fd(-1)
        for number in OTHER_SIGNALS:
            _signal.signal(number, _signal.SIG_DFL)
        undo_on_signals()
        die_with_parent(_signal.SIGTERM)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, TERMINATING)
        if os.getppid() != shim:
            return
        _arrange(result, log.fd, stdio)
        said = ShimLog(LOG_FD, level=log.level)
        try:
            _report(_carry_out(action, said))
            os._exit(0)
        except Exception as error:  # noqa: BLE001  # nobody else could tell of it
            said.error(describe(error))
    finally:
        os._exit(1)


def _arrange(result: int, log: int, stdio: tuple[int, int, int] | None) -> None:
    """Have no file of the shim but what the operation needs."""
    if stdio is None:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        stdio = (null, null, null)
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LOG_FD + 1) for fd in (*stdio, result, log)]  # not where they go to
    for number, fd in enumerate(above):
        os.dup2(fd, number, inheritable=number < RESULT_FD)
    os.closerange(LOG_FD + 1, 1 << 30)


def _carry_out(action: Action, said: ShimLog) -> dict[str, Any]:
    try:
        return action(said)
    except InclavareError as error:
        return {"error": error.text(), "state": isinstance(error, StateError)}
    except OSError as error:
        return {"error": f"{error.filename}: {error.strerror}" if error.filename else str(error), "state": False}
    except Exception as error:  # noqa: BLE001  # the last one who can tell of it
        said.error(describe(error))
        return {"error": f"{type(error).__name__}: {error}", "state": False}


def _report(values: dict[str, Any]) -> None:
    master = values.pop("master", -1)
    if "error" in values:
        text = json_string(str(values["error"])[: MESSAGE_MAX // 8])
        message = f'{{"error":{text},"state":{"true" if values["state"] else "false"}}}'
    else:
        message = jsontext.dumps(values)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, master.to_bytes(4, "little"))] if master >= 0 else []
    _socket.socket(fileno=RESULT_FD).sendmsg([message.encode()], rights)
