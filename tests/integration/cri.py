"""A client of the Container Runtime Interface: what kubelet says to containerd. gRPC's unary calls, over HTTP/2.

Each method's messages are tables of the fields that tests use; numbers and names are those of k8s.io/cri-api,
runtime/v1. Without threads, unlike gRPC's own library: other tests fork.
"""

from __future__ import annotations

import socket
import struct
import time
import urllib.parse
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events

from inclavare.wire import protobuf
from inclavare.wire.protobuf import ENTRY, Field, Schema

NODE = 2  # of NamespaceMode: the host's
CREATED, RUNNING, EXITED, UNKNOWN = range(4)  # ContainerState
NOT_FOUND, DEADLINE_EXCEEDED = 5, 4  # of gRPC's codes

ID: Schema = {"id": Field(1, "text")}
NOTHING: Schema = {}
UINT64: Schema = {"value": Field(1, "uint")}
IMAGE: Schema = {"image": Field(1, "text")}
RESOURCES: Schema = {
    "cpu_period": Field(1, "int"),
    "cpu_quota": Field(2, "int"),
    "cpu_shares": Field(3, "int"),
    "memory_limit_in_bytes": Field(4, "int"),
    "oom_score_adj": Field(5, "int"),
}
NAMESPACES: Schema = {"network": Field(1, "uint"), "pid": Field(2, "uint"), "ipc": Field(3, "uint")}
SECURITY: Schema = {"namespace_options": Field(1, NAMESPACES)}
SANDBOX: Schema = {
    "metadata": Field(
        1,
        {"name": Field(1, "text"), "uid": Field(2, "text"), "namespace": Field(3, "text"), "attempt": Field(4, "uint")},
    ),
    "hostname": Field(2, "text"),
    "log_directory": Field(3, "text"),
    "labels": Field(6, ENTRY, repeated=True),
    "annotations": Field(7, ENTRY, repeated=True),
    "linux": Field(8, {"cgroup_parent": Field(1, "text"), "security_context": Field(2, SECURITY)}),
}
CONTAINER: Schema = {
    "metadata": Field(1, {"name": Field(1, "text"), "attempt": Field(2, "uint")}),
    "image": Field(2, IMAGE),
    "command": Field(3, "text", repeated=True),
    "args": Field(4, "text", repeated=True),
    "working_dir": Field(5, "text"),
    "envs": Field(6, ENTRY, repeated=True),
    "annotations": Field(10, ENTRY, repeated=True),
    "log_path": Field(11, "text"),
    "stdin": Field(12, "bool"),
    "tty": Field(14, "bool"),
    "linux": Field(
        15,
        {
            "resources": Field(1, RESOURCES),
            # Its namespaces have a number of their own.
            "security_context": Field(2, {"namespace_options": Field(3, NAMESPACES)}),
        },
    ),
}
CONTAINER_STATUS: Schema = {
    "status": Field(
        1,
        {
            "id": Field(1, "text"),
            "state": Field(3, "uint"),
            "exit_code": Field(7, "int"),
            "reason": Field(10, "text"),
            "message": Field(11, "text"),
        },
    ),
    "info": Field(2, ENTRY, repeated=True),
}
CONTAINER_STATS: Schema = {
    "stats": Field(
        1,
        {
            "cpu": Field(2, {"usage_core_nano_seconds": Field(2, UINT64)}),
            "memory": Field(3, {"working_set_bytes": Field(2, UINT64), "usage_bytes": Field(4, UINT64)}),
        },
    )
}
METHODS: dict[str, tuple[Schema, Schema]] = {
    "Version": (NOTHING, {"runtime_name": Field(2, "text"), "runtime_version": Field(3, "text")}),
    "RunPodSandbox": ({"config": Field(1, SANDBOX), "runtime_handler": Field(2, "text")}, ID),
    "StopPodSandbox": (ID, NOTHING),
    "RemovePodSandbox": (ID, NOTHING),
    "PodSandboxStatus": (ID, {"status": Field(1, {"id": Field(1, "text"), "state": Field(3, "uint")})}),
    "ListPodSandbox": (NOTHING, {"items": Field(1, ID, repeated=True)}),
    "CreateContainer": ({"pod": Field(1, "text"), "config": Field(2, CONTAINER), "sandbox": Field(3, SANDBOX)}, ID),
    "StartContainer": (ID, NOTHING),
    "StopContainer": ({"id": Field(1, "text"), "timeout": Field(2, "int")}, NOTHING),
    "RemoveContainer": (ID, NOTHING),
    "ContainerStatus": ({"id": Field(1, "text"), "verbose": Field(2, "bool")}, CONTAINER_STATUS),
    "ContainerStats": (ID, CONTAINER_STATS),
    "UpdateContainerResources": ({"id": Field(1, "text"), "linux": Field(2, RESOURCES)}, NOTHING),
    "ReopenContainerLog": (ID, NOTHING),
    "ExecSync": (
        {"id": Field(1, "text"), "cmd": Field(2, "text", repeated=True), "timeout": Field(3, "int")},
        {"stdout": Field(1, "bytes"), "stderr": Field(2, "bytes"), "exit_code": Field(3, "int")},
    ),
}


class CriError(Exception):
    """containerd refused a call: gRPC's code and message."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {code}: {message}")
        self.code = code
        self.message = message


class Cri:
    """Kubelet's side. A call is a method of the name that CRI has for it, with the request's fields as arguments."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, method: str, timeout_s: float = 60, **request: Any) -> dict[str, Any]:
        """Call, and return the answer. Raises CriError."""
        asked, answered = METHODS[method]
        raw = protobuf.encode(asked, request)
        code, message, answer = _call(self._path, f"/runtime.v1.RuntimeService/{method}", raw, timeout_s)
        if code:
            raise CriError(method, code, message)
        return protobuf.parse(answered, answer)


def pairs(values: dict[str, str]) -> list[dict[str, str]]:
    """Return a map as messages have it."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _call(path: Path, method: str, message: bytes, timeout_s: float) -> tuple[int, str, bytes]:
    """Make one call on a connection of its own: gRPC's status, its message, and the answer."""
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        http.initiate_connection()
        stream = http.get_next_available_stream_id()
        fixed = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "localhost"}
        headers = fixed | {"content-type": "application/grpc", "te": "trailers"}
        http.send_headers(stream, list(headers.items()))
        http.send_data(stream, struct.pack(">BI", 0, len(message)) + message, end_stream=True)
        body = b""
        trailers: dict[str, str] = {}
        while True:
            client.sendall(http.data_to_send())
            client.settimeout(max(0.01, deadline - time.monotonic()))
            for event in http.receive_data(client.recv(1 << 16)):
                if isinstance(event, h2.events.DataReceived):
                    body += event.data
                    http.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    trailers |= {str(name): str(value) for name, value in event.headers}
                elif isinstance(event, h2.events.StreamEnded):
                    return (
                        int(trailers["grpc-status"]),
                        urllib.parse.unquote(trailers.get("grpc-message", "")),
                        body[5:],
                    )
                elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                    raise ConnectionError(f"{method}: {event!r}")
