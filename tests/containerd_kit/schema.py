"""The messages between containerd and a shim, as Google's protobuf has them.

TEXT has a line for each message: its name, then number:name:type of each field; `*` behind a type is repeated. A line
that begins with `package` names the package of those that follow. Types without a dot are protobuf's own or messages
of the same package; `Any`, `Timestamp` and `Empty` are Google's.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, empty_pb2, message_factory, timestamp_pb2

TEXT = """
package google.rpc
Status 1:code:int32 2:message:string 3:details:Any*

package ttrpc
KeyValue 1:key:string 2:value:string
Request 1:service:string 2:method:string 3:payload:bytes 4:timeout_nano:int64 5:metadata:KeyValue*
Response 1:status:google.rpc.Status 2:payload:bytes

package containerd.types
Mount 1:type:string 2:source:string 3:target:string 4:options:string*
Envelope 1:timestamp:Timestamp 2:namespace:string 3:topic:string 4:event:Any
RuntimeVersion 1:version:string 2:revision:string
RuntimeInfo 1:name:string 2:version:RuntimeVersion 3:options:Any 4:features:Any 5:annotations:map

package containerd.services.events.ttrpc.v1
ForwardRequest 1:envelope:containerd.types.Envelope

package containerd.v1.types
ProcessInfo 1:pid:uint32 2:info:Any

package containerd.task.v2
CreateTaskRequest 1:id:string 2:bundle:string 3:rootfs:containerd.types.Mount* 4:terminal:bool 5:stdin:string \
  6:stdout:string 7:stderr:string 8:checkpoint:string 9:parent_checkpoint:string 10:options:Any
CreateTaskResponse 1:pid:uint32
DeleteRequest 1:id:string 2:exec_id:string
DeleteResponse 1:pid:uint32 2:exit_status:uint32 3:exited_at:Timestamp
ExecProcessRequest 1:id:string 2:exec_id:string 3:terminal:bool 4:stdin:string 5:stdout:string 6:stderr:string \
  7:spec:Any
ResizePtyRequest 1:id:string 2:exec_id:string 3:width:uint32 4:height:uint32
StateRequest 1:id:string 2:exec_id:string
StateResponse 1:id:string 2:bundle:string 3:pid:uint32 4:status:int32 5:stdin:string 6:stdout:string 7:stderr:string \
  8:terminal:bool 9:exit_status:uint32 10:exited_at:Timestamp 11:exec_id:string
KillRequest 1:id:string 2:exec_id:string 3:signal:uint32 4:all:bool
CloseIORequest 1:id:string 2:exec_id:string 3:stdin:bool
PidsRequest 1:id:string
PidsResponse 1:processes:containerd.v1.types.ProcessInfo*
CheckpointTaskRequest 1:id:string 2:path:string 3:options:Any
UpdateTaskRequest 1:id:string 2:resources:Any 3:annotations:map
StartRequest 1:id:string 2:exec_id:string
StartResponse 1:pid:uint32
WaitRequest 1:id:string 2:exec_id:string
WaitResponse 1:exit_status:uint32 2:exited_at:Timestamp
StatsRequest 1:id:string
StatsResponse 1:stats:Any
ConnectRequest 1:id:string
ConnectResponse 1:shim_pid:uint32 2:task_pid:uint32 3:version:string
ShutdownRequest 1:id:string 2:now:bool
PauseRequest 1:id:string
ResumeRequest 1:id:string

package containerd.events
TaskIO 1:stdin:string 2:stdout:string 3:stderr:string 4:terminal:bool
TaskCreate 1:container_id:string 2:bundle:string 3:rootfs:containerd.types.Mount* 4:io:TaskIO 5:checkpoint:string \
  6:pid:uint32
TaskStart 1:container_id:string 2:pid:uint32
TaskDelete 1:container_id:string 2:pid:uint32 3:exit_status:uint32 4:exited_at:Timestamp 5:id:string
TaskExit 1:container_id:string 2:id:string 3:pid:uint32 4:exit_status:uint32 5:exited_at:Timestamp
TaskOOM 1:container_id:string
TaskExecAdded 1:container_id:string 2:exec_id:string
TaskExecStarted 1:container_id:string 2:exec_id:string 3:pid:uint32
TaskPaused 1:container_id:string
TaskResumed 1:container_id:string
TaskCheckpointed 1:container_id:string 2:checkpoint:string

package containerd.runc.v1
Options 1:no_pivot_root:bool 2:no_new_keyring:bool 3:shim_cgroup:string 4:io_uid:uint32 5:io_gid:uint32 \
  6:binary_name:string 7:root:string 8:criu_path:string 9:systemd_cgroup:bool 10:criu_image_path:string \
  11:criu_work_path:string
CheckpointOptions 1:exit:bool 2:open_tcp:bool 3:external_unix_sockets:bool 4:terminal:bool 5:file_locks:bool \
  6:empty_namespaces:string* 7:cgroups_mode:string 8:image_path:string 9:work_path:string
ProcessDetails 1:exec_id:string

package runtimeoptions.v1
Options 1:type_url:string 2:config_path:string 3:config_body:bytes

package containerd.runtime.bootstrap.v1
Extension 1:value:Any
BootstrapParams 1:instance_id:string 2:namespace:string 3:log_level:int32 4:containerd_version:string \
  5:containerd_ttrpc_address:string 6:containerd_grpc_address:string 7:containerd_binary:string \
  8:extensions:Extension* 9:socket_dir:string
BootstrapResult 1:version:int32 2:address:string 3:protocol:string

package io.containerd.cgroups.v1
Hugetlb 1:usage:uint64 2:max:uint64 3:failcnt:uint64 4:pagesize:string
Pids 1:current:uint64 2:limit:uint64
CpuUsage 1:total:uint64 2:kernel:uint64 3:user:uint64 4:per_cpu:uint64*
Throttle 1:periods:uint64 2:throttled_periods:uint64 3:throttled_time:uint64
Cpu 1:usage:CpuUsage 2:throttling:Throttle
Entry 1:limit:uint64 2:usage:uint64 3:max:uint64 4:failcnt:uint64
Memory 1:cache:uint64 2:rss:uint64 3:rss_huge:uint64 4:mapped_file:uint64 5:dirty:uint64 6:writeback:uint64 \
  7:pg_pg_in:uint64 8:pg_pg_out:uint64 9:pg_fault:uint64 10:pg_maj_fault:uint64 11:inactive_anon:uint64 \
  12:active_anon:uint64 13:inactive_file:uint64 14:active_file:uint64 15:unevictable:uint64 \
  16:hierarchical_memory_limit:uint64 17:hierarchical_swap_limit:uint64 18:total_cache:uint64 19:total_rss:uint64 \
  20:total_rss_huge:uint64 21:total_mapped_file:uint64 22:total_dirty:uint64 23:total_writeback:uint64 \
  24:total_pg_pg_in:uint64 25:total_pg_pg_out:uint64 26:total_pg_fault:uint64 27:total_pg_maj_fault:uint64 \
  28:total_inactive_anon:uint64 29:total_active_anon:uint64 30:total_inactive_file:uint64 \
  31:total_active_file:uint64 32:total_unevictable:uint64 33:usage:Entry 34:swap:Entry 35:kernel:Entry \
  36:kernel_tcp:Entry
BlockEntry 1:op:string 2:device:string 3:major:uint64 4:minor:uint64 5:value:uint64
Block 1:io_service_bytes_recursive:BlockEntry* 2:io_serviced_recursive:BlockEntry* 3:io_queued_recursive:BlockEntry* \
  4:io_service_time_recursive:BlockEntry* 5:io_wait_time_recursive:BlockEntry* 6:io_merged_recursive:BlockEntry* \
  7:io_time_recursive:BlockEntry* 8:sectors_recursive:BlockEntry*
RdmaEntry 1:device:string 2:hca_handles:uint32 3:hca_objects:uint32
Rdma 1:current:RdmaEntry* 2:limit:RdmaEntry*
OomControl 1:oom_kill_disable:uint64 2:under_oom:uint64 3:oom_kill:uint64
Metrics 1:hugetlb:Hugetlb* 2:pids:Pids 3:cpu:Cpu 4:memory:Memory 5:blkio:Block 6:rdma:Rdma \
  9:memory_oom_control:OomControl

package io.containerd.cgroups.v2
Pids 1:current:uint64 2:limit:uint64
Cpu 1:usage_usec:uint64 2:user_usec:uint64 3:system_usec:uint64 4:nr_periods:uint64 5:nr_throttled:uint64 \
  6:throttled_usec:uint64
Memory 1:anon:uint64 2:file:uint64 3:kernel_stack:uint64 4:slab:uint64 5:sock:uint64 6:shmem:uint64 \
  7:file_mapped:uint64 8:file_dirty:uint64 9:file_writeback:uint64 10:anon_thp:uint64 11:inactive_anon:uint64 \
  12:active_anon:uint64 13:inactive_file:uint64 14:active_file:uint64 15:unevictable:uint64 \
  16:slab_reclaimable:uint64 17:slab_unreclaimable:uint64 18:pgfault:uint64 19:pgmajfault:uint64 \
  20:workingset_refault:uint64 21:workingset_activate:uint64 22:workingset_nodereclaim:uint64 23:pgrefill:uint64 \
  24:pgscan:uint64 25:pgsteal:uint64 26:pgactivate:uint64 27:pgdeactivate:uint64 28:pglazyfree:uint64 \
  29:pglazyfreed:uint64 30:thp_fault_alloc:uint64 31:thp_collapse_alloc:uint64 32:usage:uint64 33:usage_limit:uint64 \
  34:swap_usage:uint64 35:swap_limit:uint64 36:max_usage:uint64 37:swap_max_usage:uint64
Events 1:low:uint64 2:high:uint64 3:max:uint64 4:oom:uint64 5:oom_kill:uint64
RdmaEntry 1:device:string 2:hca_handles:uint32 3:hca_objects:uint32
Rdma 1:current:RdmaEntry* 2:limit:RdmaEntry*
IoEntry 1:major:uint64 2:minor:uint64 3:rbytes:uint64 4:wbytes:uint64 5:rios:uint64 6:wios:uint64
Io 1:usage:IoEntry*
Hugetlb 1:current:uint64 2:max:uint64 3:pagesize:string
Metrics 1:pids:Pids 2:cpu:Cpu 4:memory:Memory 5:rdma:Rdma 6:io:Io 7:hugetlb:Hugetlb* 8:memory_events:Events
"""

SCALARS = ("bool", "bytes", "double", "int32", "int64", "string", "uint32", "uint64")
GOOGLES = {"Any": any_pb2, "Empty": empty_pb2, "Timestamp": timestamp_pb2}

TASK = "containerd.task.v2."
# The Task service's methods: what is asked and what is answered.
METHODS = {
    "State": (f"{TASK}StateRequest", f"{TASK}StateResponse"),
    "Create": (f"{TASK}CreateTaskRequest", f"{TASK}CreateTaskResponse"),
    "Start": (f"{TASK}StartRequest", f"{TASK}StartResponse"),
    "Delete": (f"{TASK}DeleteRequest", f"{TASK}DeleteResponse"),
    "Pids": (f"{TASK}PidsRequest", f"{TASK}PidsResponse"),
    "Pause": (f"{TASK}PauseRequest", "google.protobuf.Empty"),
    "Resume": (f"{TASK}ResumeRequest", "google.protobuf.Empty"),
    "Checkpoint": (f"{TASK}CheckpointTaskRequest", "google.protobuf.Empty"),
    "Kill": (f"{TASK}KillRequest", "google.protobuf.Empty"),
    "Exec": (f"{TASK}ExecProcessRequest", "google.protobuf.Empty"),
    "ResizePty": (f"{TASK}ResizePtyRequest", "google.protobuf.Empty"),
    "CloseIO": (f"{TASK}CloseIORequest", "google.protobuf.Empty"),
    "Update": (f"{TASK}UpdateTaskRequest", "google.protobuf.Empty"),
    "Wait": (f"{TASK}WaitRequest", f"{TASK}WaitResponse"),
    "Stats": (f"{TASK}StatsRequest", f"{TASK}StatsResponse"),
    "Connect": (f"{TASK}ConnectRequest", f"{TASK}ConnectResponse"),
    "Shutdown": (f"{TASK}ShutdownRequest", "google.protobuf.Empty"),
}
STATUS = {0: "unknown", 1: "created", 2: "running", 3: "stopped", 4: "paused", 5: "pausing"}


def _read(text: str) -> tuple[descriptor_pool.DescriptorPool, list[str]]:
    """Make all types of TEXT known to a pool; give their full names, too."""
    pool = descriptor_pool.DescriptorPool()
    for module in GOOGLES.values():
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    names = []
    package = ""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("package "):
            package = line.split()[1]
            files[package] = descriptor_pb2.FileDescriptorProto(
                name=f"{package}.proto", package=package, syntax="proto3"
            )
            files[package].dependency.extend(module.DESCRIPTOR.name for module in GOOGLES.values())
        elif line:
            name, *fields = line.split()
            message = files[package].message_type.add(name=name)
            for word in fields:
                _add(files, package, message, word)
            names.append(f"{package}.{name}")
    for file in files.values():  # a package uses those before it only
        pool.AddSerializedFile(file.SerializeToString())
    return pool, names


def _add(
    files: dict[str, descriptor_pb2.FileDescriptorProto],
    package: str,
    message: descriptor_pb2.DescriptorProto,
    word: str,
) -> None:
    number, name, kind = word.split(":")
    field = message.field.add(name=name, number=int(number), label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.endswith("*") or kind == "map":
        field.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
        kind = kind.removesuffix("*")
    if kind in SCALARS:
        field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
        return
    field.type = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
    if kind == "map":  # of strings
        entry = message.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add(files, package, entry, "1:key:string")
        _add(files, package, entry, "2:value:string")
        field.type_name = f".{package}.{message.name}.{entry.name}"
    elif kind in GOOGLES:
        field.type_name = f".google.protobuf.{kind}"
    else:
        owner, _, _ = kind.rpartition(".")
        field.type_name = f".{kind}" if owner else f".{package}.{kind}"
        if owner and f"{owner}.proto" not in files[package].dependency:
            files[package].dependency.append(f"{owner}.proto")


POOL, NAMES = _read(TEXT)
_CLASSES: dict[str, Any] = {}


def message_class(name: str) -> Any:
    """Give the class of a message by its full name."""
    found = _CLASSES.get(name)
    if found is None:
        found = _CLASSES[name] = message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))
    return found


def make(name: str, **fields: object) -> Any:
    """Make a message."""
    return message_class(name)(**fields)


def pack(name: str, **fields: object) -> Any:
    """Make a message and put it into an Any, as containerd does: the type's name without a prefix."""
    return make("google.protobuf.Any", type_url=name, value=make(name, **fields).SerializeToString())


def unpack(message: Any) -> Any:
    """Give the message in an Any."""
    return message_class(message.type_url.rpartition("/")[2]).FromString(message.value)
