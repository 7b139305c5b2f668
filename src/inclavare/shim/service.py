"""containerd's Task service: what each method does, in which state, and which events follow.

Versions 2 and 3 of the service have the same messages and are served alike. Semantics, codes and the words that
containerd looks at are those of its own shim for runc.
"""

from __future__ import annotations

import os

from inclavare import __version__
from inclavare.errors import InclavareError, WireError
from inclavare.linux import cgroups
from inclavare.oci.ids import validate_id
from inclavare.shim import actions, execution, metrics, options
from inclavare.shim import messages as m
from inclavare.shim.connection import RpcError
from inclavare.shim.creations import Creations
from inclavare.shim.loop import CancelledError
from inclavare.shim.operation import FailedError, operate
from inclavare.shim.task import Container, Ends, Process
from inclavare.wire import protobuf
from inclavare.wire.ttrpc import (
    ALREADY_EXISTS,
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    NOT_FOUND,
    UNIMPLEMENTED,
    UNKNOWN,
)

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from inclavare.shim.log import ShimLog
    from inclavare.shim.loop import Loop
    from inclavare.shim.operation import Action, Result
    from inclavare.shim.publisher import Publisher

    Message = dict[str, Any]

SIGKILL = 9


class TaskService:
    """The tasks of one shim. `leave` is called when it shall end; `platform` is RUNE_SGX_PLATFORM of containerd."""

    def __init__(
        self,
        loop: Loop,
        namespace: str,
        publisher: Publisher,
        log: ShimLog,
        *,
        platform: str,
        leave: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._namespace = namespace
        self._publisher = publisher
        self._log = log
        self._platform = platform
        self._leave = leave
        self._containers: dict[str, Container] = {}
        self._creations = Creations(loop, log)
        self._ends = Ends(loop, publisher, lambda container: loop.start(self._kill_rest(container)))
        self._methods = {
            "State": self._state,
            "Create": self._create,
            "Start": self._start,
            "Delete": self._delete,
            "Pids": self._pids,
            "Pause": self._pause,
            "Resume": self._resume,
            "Checkpoint": self._checkpoint,
            "Kill": self._kill,
            "Exec": self._exec,
            "ResizePty": self._resize_pty,
            "CloseIO": self._close_io,
            "Update": self._update,
            "Wait": self._wait,
            "Stats": self._stats,
            "Connect": self._connect,
            "Shutdown": self._shutdown,
        }

    async def call(self, service: str, method: str, payload: bytes) -> bytes:
        """Carry out one call. Raises RpcError."""
        if service not in m.TASK_SERVICES:
            raise RpcError(UNIMPLEMENTED, f"service {service}")
        handler = self._methods.get(method)
        if handler is None:
            raise RpcError(UNIMPLEMENTED, f"method {method}")
        asked, answered = m.METHODS[method]
        try:
            request = protobuf.parse(asked, payload)
        except WireError as error:
            raise RpcError(INVALID_ARGUMENT, f"{method}: {error.message}") from error
        return protobuf.encode(answered, await handler(request) or {})

    # --- the life of a container -----------------------------------------------------------------------------------

    async def _create(self, request: Message) -> Message:
        container_id = request["id"]
        if container_id in self._containers or container_id in self._creations:
            raise RpcError(ALREADY_EXISTS, f"container {container_id}: already exists")
        try:
            validate_id(container_id)
            given = options.parse(request["options"])
        except InclavareError as error:
            raise RpcError(INVALID_ARGUMENT, f"{error.message}: invalid argument") from error
        if not request["bundle"].startswith("/"):
            raise RpcError(INVALID_ARGUMENT, f"bundle {request['bundle']!r} is no absolute path: invalid argument")
        container = Container(request, given, given.root(self._namespace))
        await self._creations.carry_out(container_id, self._begin(container))
        self._containers[container_id] = container
        init = container.init
        self._publisher.publish(
            "TaskCreate",
            container_id=container_id,
            bundle=container.bundle,
            rootfs=request["rootfs"],
            io={"stdin": init.stdin, "stdout": init.stdout, "stderr": init.stderr, "terminal": init.terminal},
            checkpoint=request["checkpoint"],
            pid=init.pid,
        )
        if init.pid:
            self._ends.expect(container, init)
        return {"pid": init.pid}

    async def _begin(self, container: Container) -> None:
        """Open the stdio of a new container, and have it made, or for a restore mounted. On failure nothing is left."""
        await container.init.open_stdio(self._loop, container.owner(), container.id, self._namespace)
        try:
            if container.request["checkpoint"]:
                await self._operate(lambda _log: actions.mount(container.request), "create")
            else:
                await self._make(container, "create")
        except CancelledError:
            container.init.close_stdio()
            await self._remove(container)  # perhaps it was made before it could hear of it
            raise
        except BaseException:
            container.init.close_stdio()
            raise

    async def _make(self, container: Container, what: str) -> None:
        """Have the runtime make the first process. Its end is to be expected then."""
        self._loop.expected += 1
        try:
            result = await self._operate(
                lambda log: actions.create(container.request, container.root, container.options, self._platform, log),
                what,
                container.init.fds(),
            )
            container.take(self._loop, result.values)
            container.init.take_over(self._loop, result.values["pid"], result.master)
        except BaseException:
            self._loop.end_expectation()
            raise
        try:
            container.watch_memory(self._loop, self._publisher)
        except OSError as error:
            self._log.warning(f"cannot hear of it when {container.id} runs out of memory: {error.strerror}")

    async def _start(self, request: Message) -> Message:
        container = self._container(request)
        process = self._process(container, request)
        if process is not container.init:
            await self._start_exec(container, process)
            return {"pid": process.pid}
        async with container.lock:
            self._require_created(process, "start")
            process.starting = True
            try:
                await self._start_init(container)
                process.run()
                self._publisher.publish("TaskStart", container_id=container.id, pid=process.pid)
            finally:
                process.starting = False
                self._ends.tell(container, process)
        return {"pid": process.pid}

    async def _start_init(self, container: Container) -> None:
        if container.request["checkpoint"]:
            await self._make(container, "restore")
            self._ends.expect(container, container.init)
        elif container.hooks:
            await self._operate(lambda log: actions.start(container.root, container.id, log), "start")
        else:
            try:
                actions.start(container.root, container.id, self._log)
            except InclavareError as error:
                raise RpcError(UNKNOWN, f"OCI runtime start failed: {error.message}") from error

    async def _start_exec(self, container: Container, process: Process) -> None:
        if container.init.state == "stopped" or container.init.ended is not None:
            raise RpcError(
                FAILED_PRECONDITION, f"container {container.id} init process is not running: failed precondition"
            )
        self._require_created(process, "start")
        process.starting = True
        self._loop.expected += 1
        expected = True
        try:
            await process.open_stdio(self._loop, container.owner(), container.id, self._namespace)
            result = await self._execute(container, process)
            process.take_over(self._loop, result.values["pid"], result.master)
            process.run()
            self._publisher.publish(
                "TaskExecStarted", container_id=container.id, exec_id=process.exec_id, pid=process.pid
            )
            expected = False
            self._ends.expect(container, process)
        except BaseException:
            process.close_stdio()
            process.give_up()
            raise
        finally:
            if expected:
                self._loop.end_expectation()
            process.starting = False
            self._ends.tell(container, process)
            self._ends.tell(container, container.init)

    async def _execute(self, container: Container, process: Process) -> Result:
        """Have a process executed: by ourselves if that cannot block, else by a child."""
        try:
            result = await execution.execute(self._loop, self._log, container, process)
        except InclavareError as error:
            raise self._failed("exec", error.text()) from error
        return result or await self._operate(
            lambda log: actions.execute(container.root, container.id, process.spec, terminal=process.terminal, log=log),
            "exec",
            process.fds(),
        )

    async def _delete(self, request: Message) -> Message:
        await self._creations.end(request["id"], "delete")
        container = self._container(request)
        process = self._process(container, request)
        if process is not container.init:
            self._require_ended(container, process)
            await process.drain(self._loop)
            self._process(container, request)  # another may have deleted it meanwhile
            process.close_stdio()
            process.give_up()
            container.execs.pop(process.exec_id, None)
            return {"pid": process.pid, **process.end()}
        async with container.lock:
            self._container(request)  # see above
            self._require_ended(container, process)
            await process.drain(self._loop)
            await self._remove(container)
            if process.pid:
                await process.exited
            for each in (process, *container.execs.values()):
                each.close_stdio()
                each.give_up()
            container.forget_memory(self._loop)
            self._containers.pop(container.id, None)
        self._publisher.publish("TaskDelete", container_id=container.id, pid=process.pid, **process.end())
        return {"pid": process.pid, **process.end()}

    async def _remove(self, container: Container) -> None:
        await self._operate(
            lambda log: actions.delete(container.root, container.id, container.bundle, log, force=True), "delete"
        )

    async def _kill_rest(self, container: Container) -> None:
        try:
            await operate(self._loop, self._log, lambda _log: actions.kill_all(container.root, container.id, 9))
        except FailedError as error:
            self._log.warning(f"cannot end what is left of {container.id}: {error.message}")
        self._ends.tell(container, container.init)

    # --- other processes, signals, terminals -----------------------------------------------------------------------

    async def _exec(self, request: Message) -> Message:
        container = self._container(request)
        exec_id = request["exec_id"]
        if exec_id in container.execs:
            raise RpcError(ALREADY_EXISTS, f"id {exec_id}: already exists")
        now = "paused" if container.paused else container.init.state
        if now in ("paused", "stopped"):
            raise RpcError(UNKNOWN, f"cannot exec in a {now} state")
        try:
            validate_id(exec_id)
        except InclavareError as error:
            raise RpcError(INVALID_ARGUMENT, f"{error.message}: invalid argument") from error
        process = Process(request)
        process.spec = request["spec"]["value"] if request["spec"] and "value" in request["spec"] else b""
        container.execs[exec_id] = process
        self._publisher.publish("TaskExecAdded", container_id=container.id, exec_id=exec_id)
        return {}

    async def _kill(self, request: Message) -> Message:
        if await self._creations.end(request["id"], "kill"):
            return {}
        container = self._container(request)
        process = self._process(container, request)
        if not process.pid:
            raise RpcError(FAILED_PRECONDITION, "process not created: failed precondition")
        if process is container.init and request["all"]:
            await self._operate(
                lambda _log: actions.kill_all(container.root, container.id, request["signal"]), "kill", missing=True
            )
            container.paused = container.paused and request["signal"] != SIGKILL
            return {}
        if process.state == "stopped" or process.ended is not None:
            raise RpcError(NOT_FOUND, "process already finished: not found")
        try:
            os.kill(process.pid, request["signal"])  # nobody but us waits for it, so the pid is still its own
        except ProcessLookupError:
            raise RpcError(NOT_FOUND, "process already finished: not found") from None
        except OSError as error:
            raise RpcError(INVALID_ARGUMENT, f"signal {request['signal']}: {error.strerror}") from error
        if process is container.init and container.paused and request["signal"] == SIGKILL:
            cgroups.thaw(container.cgroups)  # who is frozen does not die
            container.paused = False
        return {}

    async def _resize_pty(self, request: Message) -> Message:
        process = self._process(self._container(request), request)
        if process.terminal:
            process.resize(request["width"], request["height"])
        return {}

    async def _close_io(self, request: Message) -> Message:
        process = self._process(self._container(request), request)
        if request["stdin"]:
            process.close_stdin()
        return {}

    async def _wait(self, request: Message) -> Message:
        process = self._process(self._container(request), request)
        await process.exited
        return process.end()

    # --- the container as a whole ----------------------------------------------------------------------------------

    async def _pause(self, request: Message) -> Message:
        container = self._container(request)
        async with container.lock:
            now = container.init.state
            if container.paused or now != "running":
                raise RpcError(UNKNOWN, f"cannot pause a {'paused' if container.paused else now} container")
            await self._operate(lambda _log: actions.pause(container.root, container.id), "pause")
            container.paused = True
        self._publisher.publish("TaskPaused", container_id=container.id)
        return {}

    async def _resume(self, request: Message) -> Message:
        container = self._container(request)
        async with container.lock:
            if not container.paused:
                raise RpcError(UNKNOWN, f"cannot resume a {container.init.state} container")
            await self._operate(lambda _log: actions.resume(container.root, container.id), "resume")
            container.paused = False
        self._publisher.publish("TaskResumed", container_id=container.id)
        return {}

    async def _checkpoint(self, request: Message) -> Message:
        container = self._container(request)
        given = request["options"] or {}
        chosen = protobuf.parse(m.CHECKPOINT_OPTIONS, given.get("value", b""))
        async with container.lock:
            await self._operate(
                lambda log: actions.checkpoint(container.root, container.id, request["path"], chosen, log),
                "checkpoint",
            )
        self._publisher.publish("TaskCheckpointed", container_id=container.id, checkpoint=request["path"])
        return {}

    async def _update(self, request: Message) -> Message:
        container = self._container(request)
        resources = (request["resources"] or {}).get("value", b"")
        async with container.lock:
            await self._operate(lambda log: actions.update(container.root, container.id, resources, log), "update")
        return {}

    async def _state(self, request: Message) -> Message:
        container = self._container(request)
        return container.describe(self._process(container, request))

    async def _pids(self, request: Message) -> Message:
        return {"processes": self._container(request).processes()}

    async def _stats(self, request: Message) -> Message:
        container = self._container(request)
        if container.init.state == "stopped":
            raise RpcError(NOT_FOUND, "cgroup does not exist: not found")
        return {"stats": metrics.read(container.cgroups)}

    async def _connect(self, request: Message) -> Message:
        container = self._containers.get(request["id"])
        pid = container.init.pid if container is not None else 0
        return {"shim_pid": os.getpid(), "task_pid": pid, "version": __version__}

    async def _shutdown(self, request: Message) -> Message:
        await self._creations.end(request["id"], "shutdown")
        if not self._containers and not self._creations:
            self._leave()
        return {}

    # --- what all have in common -----------------------------------------------------------------------------------

    def _container(self, request: Message) -> Container:
        container = self._containers.get(request["id"])
        if container is None:
            raise RpcError(NOT_FOUND, "container not created: not found")
        return container

    @staticmethod
    def _process(container: Container, request: Message) -> Process:
        exec_id = request["exec_id"]
        if not exec_id:
            return container.init
        process = container.execs.get(exec_id)
        if process is None:
            raise RpcError(NOT_FOUND, f"process does not exist {exec_id}: not found")
        return process

    @staticmethod
    def _require_created(process: Process, verb: str) -> None:
        if process.state != "created" or process.starting:
            raise RpcError(UNKNOWN, f"cannot {verb} a {'running' if process.starting else process.state} process")

    @staticmethod
    def _require_ended(container: Container, process: Process) -> None:
        if process.state == "running" or process.starting:
            raise RpcError(UNKNOWN, f"cannot delete a {'paused' if container.paused else 'running'} process")

    async def _operate(
        self, action: Action, what: str, stdio: tuple[int, int, int] | None = None, *, missing: bool = False
    ) -> Result:
        """Carry out an operation of the runtime. With `missing`, a container that is not in its state is not found."""
        try:
            return await operate(self._loop, self._log, action, stdio)
        except FailedError as error:
            if missing and error.state:
                raise RpcError(NOT_FOUND, "process already finished: not found") from error
            raise self._failed(what, error.message) from error
        except CancelledError:
            self._log.warning(f"{what}: cancelled")
            raise

    def _failed(self, what: str, message: str) -> RpcError:
        self._log.error(f"{what}: {message}")
        return RpcError(UNKNOWN, f"OCI runtime {what} failed: {message}")
