"""Events for containerd: each is forwarded, and answered, before the next one goes.

containerd serves the requests of a connection at once and in any order; so only one is under way. What cannot be
forwarded is tried again, and given up after a while: containerd asks for the state of tasks when it comes back.
"""

from __future__ import annotations

import _socket
import time

from inclavare.errors import WireError
from inclavare.shim.loop import IN, OUT, CancelledError, Future
from inclavare.shim.messages import EVENTS, EVENTS_SERVICE, FORWARD, timestamp
from inclavare.wire import protobuf, ttrpc

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.shim.log import ShimLog
    from inclavare.shim.loop import Loop

QUEUE_MAX = 2048
TRIES = 5
TIMEOUT_S = 5
CHUNK = 1 << 16


class Publisher:
    """Forwards the events of a namespace to containerd's ttrpc socket at `address`; "" is nobody."""

    __slots__ = ("_address", "_log", "_loop", "_namespace", "_queue", "_running", "_socket", "_stream", "empty")

    def __init__(self, loop: Loop, address: str, namespace: str, log: ShimLog) -> None:
        self._loop = loop
        self._address = address.removeprefix("unix://")
        self._namespace = namespace
        self._log = log
        self._queue: list[tuple[str, bytes]] = []
        self._socket: _socket.socket | None = None
        self._stream = 1
        self._running = False
        self.empty = Future()
        self.empty.set()

    def publish(self, kind: str, **values: object) -> None:
        """Queue an event of the type containerd.events.KIND."""
        if not self._address:
            return
        topic, schema = EVENTS[kind]
        envelope = {
            "timestamp": timestamp(time.time_ns()),
            "namespace": self._namespace,
            "topic": topic,
            "event": {"type_url": f"containerd.events.{kind}", "value": protobuf.encode(schema, values)},
        }
        if len(self._queue) >= QUEUE_MAX:
            self._log.error(f"containerd takes no events: {self._queue.pop(0)[0]} is lost")
        self._queue.append((topic, protobuf.encode(FORWARD, {"envelope": envelope})))
        if not self._running:
            self._running = True
            self.empty = Future()
            self._loop.start(self._run())

    async def _run(self) -> None:
        tries = 0
        while self._queue:
            event = self._queue[0]
            try:
                await self._forward(event[1])
            except (OSError, WireError) as error:
                self._close()
                tries += 1
                if tries <= TRIES:
                    await self._loop.sleep(tries - 1)
                    continue
                self._log.error(f"cannot forward {event[0]}: {error}")
            tries = 0
            if self._queue and self._queue[0] is event:
                self._queue.pop(0)
        self._running = False
        self.empty.set()

    async def _forward(self, event: bytes) -> None:
        forwarding = self._loop.task(self._call(event))
        timer = self._loop.later(TIMEOUT_S, forwarding.cancel)
        try:
            await forwarding
        except CancelledError:
            raise TimeoutError("containerd does not answer") from None
        finally:
            timer.cancel()

    async def _call(self, event: bytes) -> None:
        if self._socket is None:
            self._stream = 1
            self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
            self._socket.connect(self._address)
        metadata = {"containerd-namespace-ttrpc": self._namespace}
        stream, self._stream = self._stream, self._stream + 2
        frame = ttrpc.request(stream, EVENTS_SERVICE, "Forward", event, TIMEOUT_S * 10**9, metadata)
        while frame:
            try:
                frame = frame[self._socket.send(frame) :]
            except BlockingIOError:
                await self._loop.until(self._socket.fileno(), OUT)
        answer = await self._receive(self._socket, stream)
        status = protobuf.decode(ttrpc.RESPONSE_SCHEMA, answer).get("status")
        if status:
            self._log.error(f"containerd refused an event: {status.get('message', '')}")

    async def _receive(self, client: _socket.socket, stream: int) -> bytes:
        reader = ttrpc.Reader()
        while True:
            await self._loop.until(client.fileno(), IN)
            data = client.recv(CHUNK)
            if not data:
                raise ConnectionResetError("containerd closed the connection")
            for frame in reader.feed(data):
                if frame.stream == stream and frame.kind == ttrpc.RESPONSE and frame.payload is not None:
                    return frame.payload

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
