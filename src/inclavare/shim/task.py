"""Containers and their processes as the shim knows them, and the order in which their ends are told.

A process is `created`, then `running`, then `stopped`. Its end is told after its start was, and the end of a
container's first process after those of all others.
"""

from __future__ import annotations

import os
import time

from inclavare.linux import cgroups
from inclavare.linux.oom import OutOfMemory
from inclavare.shim import messages as m
from inclavare.shim.console import Console, open_output
from inclavare.shim.execution import Known
from inclavare.shim.logger import Logger
from inclavare.shim.loop import Future, Lock
from inclavare.shim.stdio import LOGGERS, Stdio
from inclavare.wire import protobuf

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from inclavare.shim.loop import Loop
    from inclavare.shim.options import Options
    from inclavare.shim.publisher import Publisher

DRAIN_TIMEOUT_S = 10


class Process:
    """One process of a container: its first (`exec_id` is empty) or another. `exited` is done when its end was told.

    `ended` is (exit code, time in ns) of an end that cannot be told yet.
    """

    __slots__ = (
        "console",
        "ended",
        "exec_id",
        "exit_status",
        "exited",
        "exited_at",
        "logger",
        "output",
        "pid",
        "size",
        "spec",
        "starting",
        "state",
        "stderr",
        "stdin",
        "stdin_closed",
        "stdio",
        "stdout",
        "terminal",
    )

    def __init__(self, request: dict[str, Any]) -> None:
        """Take what a Create or an Exec says of it."""
        self.exec_id: str = request.get("exec_id", "")
        self.stdin: str = request["stdin"]
        self.stdout: str = request["stdout"]
        self.stderr: str = request["stderr"]
        self.terminal: bool = request["terminal"]
        self.spec = b""
        self.state = "created"
        self.pid = 0
        self.starting = False
        self.ended: tuple[int, int] | None = None
        self.exit_status = 0
        self.exited_at = 0
        self.exited = Future()
        self.stdio: Stdio | None = None
        self.console: Console | None = None
        self.output: tuple[int, ...] = ()  # of a terminal that is not there yet
        self.logger: Logger | None = None  # of a terminal
        self.stdin_closed = False
        self.size: tuple[int, int] | None = None

    async def open_stdio(self, loop: Loop, owner: tuple[int, int], container: str, namespace: str) -> None:
        """Open what the process shall have; of a terminal, which the runtime makes, the output. Raises HostError."""
        logger = Logger(loop, self.stdout, container, namespace) if self.stdout.startswith(LOGGERS) else None
        if self.terminal:
            self.logger = logger
            self.output = await open_output(loop, self.stdout, logger)
        else:
            stdio = Stdio(loop, self.stdin)
            stdio.logger = logger
            await stdio.open(self.stdout, self.stderr, owner)
            self.stdio = stdio
        if logger is not None:
            try:
                await logger.ready()
            except BaseException:
                self.close_stdio()
                raise

    def fds(self) -> tuple[int, int, int] | None:
        """Give its stdio, None for what a terminal will be."""
        return self.stdio.fds() if self.stdio is not None else None

    def take_over(self, loop: Loop, pid: int, master: int) -> None:
        """Note that it exists; its terminal's master is ours from now on."""
        self.pid = pid
        if self.stdio is not None:
            self.stdio.hand_over()
        if master >= 0:
            self.console, self.output = Console(loop, master, self.output), ()
            if self.size is not None:
                self.console.resize(*self.size)

    def run(self) -> None:
        """Note that its program runs."""
        if self.state == "created":
            self.state = "running"
        if self.stdio is not None:
            if self.stdin_closed:
                self.stdio.close_stdin()
            self.stdio.feed()
        if self.console is not None:
            self.console.feed(self.stdin, closed=self.stdin_closed)

    def close_stdin(self) -> None:
        """Let it see the end of its input."""
        self.stdin_closed = True
        if self.stdio is not None:
            self.stdio.close_stdin()
        if self.console is not None:
            self.console.close_stdin()

    def resize(self, width: int, height: int) -> None:
        """Set the size of its terminal, now or when it has one."""
        self.size = (width, height)
        if self.console is not None:
            self.console.resize(width, height)

    async def drain(self, loop: Loop) -> None:
        """Wait until what it wrote has been passed on, but not for ever: others may have its terminal open, too."""
        if self.console is not None:
            console, passed = self.console, Future()
            timer = loop.later(DRAIN_TIMEOUT_S, passed.set)
            console.drained.then(passed.set)
            await passed
            timer.cancel()

    def close_stdio(self) -> None:
        """Close all that we have open for it."""
        if self.stdio is not None:
            self.stdio.close()
            self.stdio = None
        if self.console is not None:
            self.console.close()
            self.console = None
        for fd in self.output:
            os.close(fd)
        self.output = ()
        if self.logger is not None:
            self.logger.close()
            self.logger = None

    def give_up(self) -> None:
        """Let nobody wait any longer for the end of what never ran."""
        if not self.exited.done:
            waited, self.exited = self.exited, Future()
            waited.set()

    def end(self) -> dict[str, Any]:
        """Give what Wait and Delete answer."""
        return {"exit_status": self.exit_status, "exited_at": m.timestamp(self.exited_at)}


class Container:
    """One container. `lock` keeps what changes it as a whole in order."""

    __slots__ = (
        "_oom",
        "_oom_group",
        "bundle",
        "cgroups",
        "exec",
        "execs",
        "hooks",
        "id",
        "init",
        "lock",
        "options",
        "own_pids",
        "paused",
        "request",
        "root",
    )

    def __init__(self, request: dict[str, Any], options: Options, root: str) -> None:
        self.id: str = request["id"]
        self.bundle: str = request["bundle"]
        self.request = request  # a restore wants it again
        self.options = options
        self.root = root
        self.init = Process(request)
        self.execs: dict[str, Process] = {}
        self.lock = Lock()
        self.cgroups: dict[str, str] = {}
        self.own_pids = True
        self.hooks = False
        self.exec: Known | None = None  # where exec needs no child
        self.paused = False
        self._oom: OutOfMemory | None = None
        self._oom_group = ""

    def owner(self) -> tuple[int, int]:
        """Give uid and gid that the options want for pipes."""
        return int(self.options.values["io_uid"]), int(self.options.values["io_gid"])

    def take(self, loop: Loop, values: dict[str, Any]) -> None:
        """Note what the runtime said of it."""
        self.cgroups = values["cgroups"]
        self.own_pids = values["own_pids"]
        self.hooks = values["hooks"]
        if values["exec"] is not None:
            loop.soon(lambda: self._recall(values["exec"]))  # the answer goes first

    def _recall(self, values: dict[str, Any]) -> None:
        self.exec = Known(self.root, self.id, values)

    def describe(self, process: Process) -> dict[str, Any]:
        """Give what State answers. Who is in a paused container is paused, whatever else it is."""
        paused = self.paused and self.init.state == "running"
        return {
            "id": process.exec_id or self.id,
            "bundle": self.bundle,
            "pid": process.pid,
            "status": m.PAUSED if paused else m.STATUS[process.state],
            "stdin": process.stdin,
            "stdout": process.stdout,
            "stderr": process.stderr,
            "terminal": process.terminal,
            **process.end(),
            "exec_id": process.exec_id,
        }

    def processes(self) -> list[dict[str, Any]]:
        """Give what Pids answers."""
        names = {process.pid: process.exec_id for process in self.execs.values()}
        found: list[dict[str, Any]] = []
        # Nobody is left, but somebody will ask for the status: containerd, when it comes back, takes a shim that names
        # no process for one that it has forgotten, and throws the status away with it.
        for pid in cgroups.processes(self.cgroups) or ([self.init.pid] if self.init.pid else []):
            info = None
            if pid in names:
                details = protobuf.encode(m.PROCESS_DETAILS, {"exec_id": names[pid]})
                info = {"type_url": m.PROCESS_DETAILS_TYPE, "value": details}
            found.append({"pid": pid, "info": info})
        return found

    def is_alone(self) -> bool:
        """Tell whether no other process than the first is under way."""
        return not any(process.starting or process.state == "running" for process in self.execs.values())

    def watch_memory(self, loop: Loop, publisher: Publisher) -> None:
        """Tell of it when it runs out of memory. Raises OSError."""
        self._oom = OutOfMemory(self.cgroups)
        self._oom_group = cgroups.path_of(self.cgroups, "memory") or ""
        if self._oom.fd >= 0:
            loop.watch(self._oom.fd, self._oom.events, lambda _events: self.tell_memory(publisher))

    def tell_memory(self, publisher: Publisher) -> None:
        """Tell of each time that has not been told. The removal of its cgroup is none."""
        if self._oom is not None and self._oom.fd >= 0:
            times = self._oom.count()
            for _ in range(times if os.path.isdir(self._oom_group) else 0):
                publisher.publish("TaskOOM", container_id=self.id)

    def forget_memory(self, loop: Loop) -> None:
        """Watch its memory no more."""
        if self._oom is not None and self._oom.fd >= 0:
            loop.forget(self._oom.fd)
            os.close(self._oom.fd)
        self._oom = None


class Ends:
    """Tells the ends of processes, in their order."""

    __slots__ = ("_kill_rest", "_loop", "_publisher")

    def __init__(self, loop: Loop, publisher: Publisher, kill_rest: Callable[[Container], None]) -> None:
        """`kill_rest` ends what is left of a container that shares its pids with others, then calls tell() again."""
        self._loop = loop
        self._publisher = publisher
        self._kill_rest = kill_rest

    def expect(self, container: Container, process: Process) -> None:
        """Note when the process ends; it may have ended already."""

        def ended(code: int) -> None:
            process.ended = (code, time.time_ns())
            if process is container.init and not container.own_pids:
                self._kill_rest(container)
            else:
                self.tell(container, process)

        self._loop.on_exit(process.pid, ended)
        self._loop.end_expectation()

    def tell(self, container: Container, process: Process) -> None:
        """Tell the process's end, if it is known and its turn; then the first process's, if that waited for it."""
        if process.ended is None or process.starting or process.exited.done:
            return
        if process is container.init:
            if not container.is_alone():
                return
            container.tell_memory(self._publisher)
        process.state = "stopped"
        process.exit_status, process.exited_at = process.ended
        self._publisher.publish(
            "TaskExit",
            container_id=container.id,
            id=process.exec_id or container.id,
            pid=process.pid,
            exit_status=process.exit_status,
            exited_at=m.timestamp(process.exited_at),
        )
        process.exited.set()
        if process is not container.init:
            self.tell(container, container.init)
