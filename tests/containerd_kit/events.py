"""containerd's service for events: takes what shims forward, and can be slow, silent or gone."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.containerd_kit.schema import message_class, unpack
from tests.containerd_kit.ttrpc import CHUNK, REQUEST, RESPONSE, Frames, frame

SERVICE = "containerd.services.events.ttrpc.v1.Events"
TOPICS = {
    "TaskCreate": "/tasks/create",
    "TaskStart": "/tasks/start",
    "TaskOOM": "/tasks/oom",
    "TaskExit": "/tasks/exit",
    "TaskDelete": "/tasks/delete",
    "TaskExecAdded": "/tasks/exec-added",
    "TaskExecStarted": "/tasks/exec-started",
    "TaskPaused": "/tasks/paused",
    "TaskResumed": "/tasks/resumed",
    "TaskCheckpointed": "/tasks/checkpointed",
}

_Request = message_class("ttrpc.Request")
_Response = message_class("ttrpc.Response")
_Forward = message_class("containerd.services.events.ttrpc.v1.ForwardRequest")


class Event:
    """One event. `name` is the message's name without its package, `body` the message."""

    def __init__(self, envelope: Any) -> None:
        self.namespace: str = envelope.namespace
        self.topic: str = envelope.topic
        self.time_ns: int = envelope.timestamp.seconds * 10**9 + envelope.timestamp.nanos
        self.type_url: str = envelope.event.type_url
        self.name = self.type_url.rpartition(".")[2]
        self.body = unpack(envelope.event)

    @property
    def container(self) -> str:
        found: str = self.body.container_id
        return found

    def __repr__(self) -> str:
        return f"{self.name}({str(self.body).replace(chr(10), ' ').strip()})"


class Events:
    """Listens at `path`. `seen` has the events in the order in which they were taken.

    `delay_s` is waited before each answer, with `silent` none is given; `refusal` is (code, message) instead of an
    answer. `faults` tells what no containerd would have liked.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.seen: list[Event] = []
        self.faults: list[str] = []
        self.delay_s = 0.0
        self.silent = False
        self.refusal: tuple[int, str] | None = None
        self.connections = 0
        self._changed = threading.Condition()
        self._clients: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.up()

    def up(self) -> None:
        """Listen, for the first time or again."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(1024)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Be gone, at once, for all."""
        if self._listener is None:
            return
        os.unlink(self.path)
        with self._changed:
            gone, self._listener = [self._listener, *self._clients], None
        for each in gone:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def of(self, container_id: str) -> list[Event]:
        """Give those of a container."""
        with self._changed:
            return [event for event in self.seen if event.container == container_id]

    def names(self, container_id: str) -> list[str]:
        """Give the names of those of a container."""
        return [event.name for event in self.of(container_id)]

    def wait(self, name: str, container_id: str, timeout_s: float = 20.0, **fields: object) -> Event:
        """Wait until there is one of that name, and with these fields."""

        def fits(event: Event) -> bool:
            return (
                event.name == name
                and event.container == container_id
                and all(getattr(event.body, key) == value for key, value in fields.items())
            )

        return self.wait_for(fits, f"{name} of {container_id} {fields or ''}", timeout_s)

    def wait_for(self, fits: Callable[[Event], bool], what: str, timeout_s: float = 20.0) -> Event:
        """Wait until there is one that fits; `what` names it."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for event in self.seen:
                    if fits(event):
                        return event
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"no {what} among {self.seen}")
                self._changed.wait(left)

    def _accept(self, listener: socket.socket) -> None:
        with listener, contextlib.suppress(OSError):  # it is down
            while True:
                client, _ = listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        frames = Frames()
        with self._changed:
            if self._listener is None:
                client.close()
                return
            self._clients.add(client)
        with client, contextlib.suppress(OSError):
            while data := client.recv(CHUNK):
                found = frames.feed(data)
                if len(found) > 1:
                    self.faults.append(f"{len(found)} events at once, whose order nobody knows")
                for stream, kind, payload in found:
                    event = self._read(stream, kind, payload)
                    self._answer(client, stream)
                    self._take(event)
        with self._changed:
            self._clients.discard(client)

    def _read(self, stream: int, kind: int, payload: bytes) -> Event | None:
        wanted = _Request.FromString(payload)
        if not stream & 1 or kind != REQUEST:
            self.faults.append(f"stream {stream} of type {kind}")
        if (wanted.service, wanted.method) != (SERVICE, "Forward"):
            self.faults.append(f"{wanted.service}/{wanted.method} was called")
            return None
        event = Event(_Forward.FromString(wanted.payload).envelope)
        if [(each.key, each.value) for each in wanted.metadata] != [("containerd-namespace-ttrpc", event.namespace)]:
            self.faults.append(f"metadata {wanted.metadata}")
        if event.topic != TOPICS.get(event.name) or event.type_url != f"containerd.events.{event.name}":
            self.faults.append(f"{event.type_url} in topic {event.topic}")
        return event

    def _take(self, event: Event | None) -> None:
        with self._changed:
            if event is not None:
                self.seen.append(event)
            self._changed.notify_all()

    def _answer(self, client: socket.socket, stream: int) -> None:
        if self.delay_s:
            time.sleep(self.delay_s)
            if select.select([client], [], [], 0)[0] and client.recv(1, socket.MSG_PEEK):
                self.faults.append("another event before the answer to the one before it")
        if self.silent:
            return
        answer = _Response()
        if self.refusal is not None:
            answer.status.code, answer.status.message = self.refusal
        client.sendall(frame(stream, RESPONSE, answer.SerializeToString()))
