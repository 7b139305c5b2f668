"""The messages of containerd's Task service (v2 and v3 are the same), of its events, and of a shim's start, as tables.

Numbers and names are those of containerd's api/runtime/task, api/events, api/types and api/runtime/bootstrap.
"""

from __future__ import annotations

from inclavare.wire.protobuf import ENTRY, Field, Schema

TASK_SERVICES = ("containerd.task.v2.Task", "containerd.task.v3.Task")
EVENTS_SERVICE = "containerd.services.events.ttrpc.v1.Events"

CREATED, RUNNING, STOPPED, PAUSED, PAUSING = 1, 2, 3, 4, 5  # containerd.v1.types.Status
STATUS = {"created": CREATED, "running": RUNNING, "stopped": STOPPED}

EMPTY: Schema = {}
ANY: Schema = {"type_url": Field(1, "text"), "value": Field(2, "bytes")}
TIMESTAMP: Schema = {"seconds": Field(1, "int"), "nanos": Field(2, "int")}
MOUNT: Schema = {
    "type": Field(1, "text"),
    "source": Field(2, "text"),
    "target": Field(3, "text"),
    "options": Field(4, "text", repeated=True),
}
ID: Schema = {"id": Field(1, "text")}
PROCESS: Schema = {"id": Field(1, "text"), "exec_id": Field(2, "text")}
PID: Schema = {"pid": Field(1, "uint")}
CREATE: Schema = {
    "id": Field(1, "text"),
    "bundle": Field(2, "text"),
    "rootfs": Field(3, MOUNT, repeated=True),
    "terminal": Field(4, "bool"),
    "stdin": Field(5, "text"),
    "stdout": Field(6, "text"),
    "stderr": Field(7, "text"),
    "checkpoint": Field(8, "text"),
    "parent_checkpoint": Field(9, "text"),
    "options": Field(10, ANY),
}
DELETED: Schema = {"pid": Field(1, "uint"), "exit_status": Field(2, "uint"), "exited_at": Field(3, TIMESTAMP)}
STATE: Schema = {
    "id": Field(1, "text"),
    "bundle": Field(2, "text"),
    "pid": Field(3, "uint"),
    "status": Field(4, "uint"),
    "stdin": Field(5, "text"),
    "stdout": Field(6, "text"),
    "stderr": Field(7, "text"),
    "terminal": Field(8, "bool"),
    "exit_status": Field(9, "uint"),
    "exited_at": Field(10, TIMESTAMP),
    "exec_id": Field(11, "text"),
}
EXEC: Schema = {
    "id": Field(1, "text"),
    "exec_id": Field(2, "text"),
    "terminal": Field(3, "bool"),
    "stdin": Field(4, "text"),
    "stdout": Field(5, "text"),
    "stderr": Field(6, "text"),
    "spec": Field(7, ANY),
}
KILL: Schema = {**PROCESS, "signal": Field(3, "uint"), "all": Field(4, "bool")}
RESIZE: Schema = {**PROCESS, "width": Field(3, "uint"), "height": Field(4, "uint")}
CLOSE_IO: Schema = {**PROCESS, "stdin": Field(3, "bool")}
PROCESS_INFO: Schema = {"pid": Field(1, "uint"), "info": Field(2, ANY)}
PIDS: Schema = {"processes": Field(1, PROCESS_INFO, repeated=True)}
CHECKPOINT: Schema = {"id": Field(1, "text"), "path": Field(2, "text"), "options": Field(3, ANY)}
UPDATE: Schema = {
    "id": Field(1, "text"),
    "resources": Field(2, ANY),
    "annotations": Field(3, ENTRY, repeated=True),
}
WAITED: Schema = {"exit_status": Field(1, "uint"), "exited_at": Field(2, TIMESTAMP)}
STATS: Schema = {"stats": Field(1, ANY)}
CONNECTED: Schema = {"shim_pid": Field(1, "uint"), "task_pid": Field(2, "uint"), "version": Field(3, "text")}
SHUTDOWN: Schema = {"id": Field(1, "text"), "now": Field(2, "bool")}

METHODS: dict[str, tuple[Schema, Schema]] = {
    "State": (PROCESS, STATE),
    "Create": (CREATE, PID),
    "Start": (PROCESS, PID),
    "Delete": (PROCESS, DELETED),
    "Pids": (ID, PIDS),
    "Pause": (ID, EMPTY),
    "Resume": (ID, EMPTY),
    "Checkpoint": (CHECKPOINT, EMPTY),
    "Kill": (KILL, EMPTY),
    "Exec": (EXEC, EMPTY),
    "ResizePty": (RESIZE, EMPTY),
    "CloseIO": (CLOSE_IO, EMPTY),
    "Update": (UPDATE, EMPTY),
    "Wait": (PROCESS, WAITED),
    "Stats": (ID, STATS),
    "Connect": (ID, CONNECTED),
    "Shutdown": (SHUTDOWN, EMPTY),
}

PROCESS_DETAILS_TYPE = "containerd.runc.v1.ProcessDetails"
PROCESS_DETAILS: Schema = {"exec_id": Field(1, "text")}

# containerd.events
ENVELOPE: Schema = {
    "timestamp": Field(1, TIMESTAMP),
    "namespace": Field(2, "text"),
    "topic": Field(3, "text"),
    "event": Field(4, ANY),
}
FORWARD: Schema = {"envelope": Field(1, ENVELOPE)}
TASK_IO: Schema = {
    "stdin": Field(1, "text"),
    "stdout": Field(2, "text"),
    "stderr": Field(3, "text"),
    "terminal": Field(4, "bool"),
}
_CONTAINER: Schema = {"container_id": Field(1, "text")}
EVENTS: dict[str, tuple[str, Schema]] = {
    "TaskCreate": (
        "/tasks/create",
        {
            **_CONTAINER,
            "bundle": Field(2, "text"),
            "rootfs": Field(3, MOUNT, repeated=True),
            "io": Field(4, TASK_IO),
            "checkpoint": Field(5, "text"),
            "pid": Field(6, "uint"),
        },
    ),
    "TaskStart": ("/tasks/start", {**_CONTAINER, "pid": Field(2, "uint")}),
    "TaskDelete": (
        "/tasks/delete",
        {
            **_CONTAINER,
            "pid": Field(2, "uint"),
            "exit_status": Field(3, "uint"),
            "exited_at": Field(4, TIMESTAMP),
            "id": Field(5, "text"),
        },
    ),
    "TaskExit": (
        "/tasks/exit",
        {
            **_CONTAINER,
            "id": Field(2, "text"),
            "pid": Field(3, "uint"),
            "exit_status": Field(4, "uint"),
            "exited_at": Field(5, TIMESTAMP),
        },
    ),
    "TaskOOM": ("/tasks/oom", _CONTAINER),
    "TaskExecAdded": ("/tasks/exec-added", {**_CONTAINER, "exec_id": Field(2, "text")}),
    "TaskExecStarted": ("/tasks/exec-started", {**_CONTAINER, "exec_id": Field(2, "text"), "pid": Field(3, "uint")}),
    "TaskPaused": ("/tasks/paused", _CONTAINER),
    "TaskResumed": ("/tasks/resumed", _CONTAINER),
    "TaskCheckpointed": ("/tasks/checkpointed", {**_CONTAINER, "checkpoint": Field(2, "text")}),
}

# What a shim is configured with: containerd.runc.v1.Options, runtimeoptions.v1.Options.
RUNC_OPTIONS_TYPE = "containerd.runc.v1.Options"
RUNC_OPTIONS: Schema = {
    "no_pivot_root": Field(1, "bool"),
    "no_new_keyring": Field(2, "bool"),
    "shim_cgroup": Field(3, "text"),
    "io_uid": Field(4, "uint"),
    "io_gid": Field(5, "uint"),
    "binary_name": Field(6, "text"),
    "root": Field(7, "text"),
    "criu_path": Field(8, "text"),
    "systemd_cgroup": Field(9, "bool"),
    "criu_image_path": Field(10, "text"),
    "criu_work_path": Field(11, "text"),
}
RUNTIME_OPTIONS_TYPE = "runtimeoptions.v1.Options"
RUNTIME_OPTIONS: Schema = {
    "type_url": Field(1, "text"),
    "config_path": Field(2, "text"),
    "config_body": Field(3, "bytes"),
}
CHECKPOINT_OPTIONS_TYPE = "containerd.runc.v1.CheckpointOptions"
CHECKPOINT_OPTIONS: Schema = {
    "exit": Field(1, "bool"),
    "open_tcp": Field(2, "bool"),
    "external_unix_sockets": Field(3, "bool"),
    "terminal": Field(4, "bool"),
    "file_locks": Field(5, "bool"),
    "empty_namespaces": Field(6, "text", repeated=True),
    "cgroups_mode": Field(7, "text"),
    "image_path": Field(8, "text"),
    "work_path": Field(9, "text"),
}

# The start of a shim: containerd.runtime.bootstrap.v1.
BOOTSTRAP: Schema = {
    "instance_id": Field(1, "text"),
    "namespace": Field(2, "text"),
    "log_level": Field(3, "int"),
    "containerd_version": Field(4, "text"),
    "containerd_ttrpc_address": Field(5, "text"),
    "containerd_grpc_address": Field(6, "text"),
    "containerd_binary": Field(7, "text"),
    "extensions": Field(8, {"value": Field(1, ANY)}, repeated=True),
    "socket_dir": Field(9, "text"),
}
BOOTSTRAPPED: Schema = {"version": Field(1, "int"), "address": Field(2, "text"), "protocol": Field(3, "text")}
RUNTIME_INFO: Schema = {
    "name": Field(1, "text"),
    "version": Field(2, {"version": Field(1, "text"), "revision": Field(2, "text")}),
    "options": Field(3, ANY),
    "features": Field(4, ANY),
    "annotations": Field(5, ENTRY, repeated=True),
}


def timestamp(time_ns: int) -> dict[str, int] | None:
    """Give a time as a Timestamp; None for 0, which is no time."""
    return {"seconds": time_ns // 10**9, "nanos": time_ns % 10**9} if time_ns else None
