"""The way of a terminal's master out of the container: to the foreground command, or to the engine's socket."""

from __future__ import annotations

import _socket

from inclavare.errors import HostError


class Console:
    """A socket that receives a terminal's master: a foreground command's own pair, or the engine's."""

    __slots__ = ("_ours", "theirs")

    def __init__(self, path: str) -> None:
        self._ours: _socket.socket | None = None
        if path:
            self.theirs = _connect(path)
        else:
            self._ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            self.theirs = theirs.detach()

    def receive(self, *, as_is: bool) -> int:
        """Take the master (CLOEXEC). To be called before the program may run.

        Without `as_is` it is set for being copied to our own terminal: line ends are made there, not twice, and it has
        the same size.
        """
        if self._ours is None:
            raise ValueError("the engine's console socket is not ours to read")
        _, ancillary, _, _ = self._ours.recvmsg(64, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        self.close()
        master = int.from_bytes(ancillary[0][2][:4], "little")
        if as_is:
            return master
        from inclavare.linux import terminal  # noqa: PLC0415  # only terminals need it

        terminal.set_now(master, terminal.without_line_ends(terminal.get(master)))
        terminal.copy_size(0, master)  # the program may look at once
        return master

    def close(self) -> None:
        """Receive nothing any more. `theirs` is its user's to close."""
        if self._ours is not None:
            self._ours.close()


def _connect(path: str) -> int:
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        client.connect(path)
    except OSError as error:
        client.close()
        raise HostError(f"cannot connect to the console socket {path}: {error.strerror}") from error
    return client.detach()
