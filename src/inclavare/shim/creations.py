"""Containers that are being made, which may take minutes: who waits for one, and who ends that.

The time that containerd gives for a Create ends it, and so does a Kill, Delete or Shutdown of that container. All of
them wait until what was done is undone.
"""

from __future__ import annotations

from inclavare.shim.connection import RpcError
from inclavare.shim.loop import CancelledError, Future
from inclavare.wire.ttrpc import CANCELLED

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Coroutine

    from inclavare.shim.log import ShimLog
    from inclavare.shim.loop import Loop, Task


class Creations:
    """The creations under way, by the ids of their containers."""

    __slots__ = ("_log", "_loop", "_tasks")

    def __init__(self, loop: Loop, log: ShimLog) -> None:
        self._loop = loop
        self._log = log
        self._tasks: dict[str, Task] = {}

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._tasks

    def __len__(self) -> int:
        return len(self._tasks)

    async def carry_out(self, container_id: str, creation: Coroutine[Future, None, None]) -> None:
        """Wait for a creation, which undoes what it did when it is cancelled. Raises RpcError if a call ends it."""
        task = self._tasks[container_id] = self._loop.task(creation)
        try:
            await task
        except CancelledError:
            if task.done:
                raise RpcError(CANCELLED, f"container {container_id}: its creation was ended") from None
            task.cancel()  # it is we whose time is over
            await task
            raise
        finally:
            del self._tasks[container_id]

    async def end(self, container_id: str, what: str) -> bool:
        """End a creation; tell whether there was one."""
        task = self._tasks.get(container_id)
        if task is None:
            return False
        self._log.warning(f"{what}: ends the creation of {container_id}")
        task.cancel()
        ended = Future()
        task.then(ended.set)
        await ended
        return True
