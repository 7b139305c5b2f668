"""Exec without a child: what it needs to know of the container is remembered from its creation, and nothing blocks.

That takes a third of the time (decision 0017). Where something would block (an enclave's agent, systemd, the agent of a
seccomp profile), `remember` gives nothing, and a child does it as everything else.
"""

from __future__ import annotations

import os

from inclavare.container import exec as execution
from inclavare.container import filter_cache, store
from inclavare.container.process_plan import Filter
from inclavare.container.steps import SYNC_READY
from inclavare.errors import HostError
from inclavare.oci import jsontext, spec
from inclavare.shim.loop import IN
from inclavare.shim.operation import Result

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from typing import Any

    from inclavare.container.store import Record
    from inclavare.oci.spec import Spec
    from inclavare.shim.log import ShimLog
    from inclavare.shim.loop import Loop
    from inclavare.shim.task import Container, Process

# What is long and nothing to exec; whatever else there is stays, lest exec should do without what it has to heed.
BULKY = ("mounts", "hooks")
BULKY_OF_PROCESS = ("args", "env")
BULKY_OF_LINUX = ("seccomp", "resources", "devices", "maskedPaths", "readonlyPaths", "sysctl")
BRIEF_MAX = 16 << 10  # characters: it is kept for each container, and is a part of one message


def remember(record: Record, document: Spec, configuration: Any) -> dict[str, Any] | None:
    """Give what exec needs of a new container, as JSON's values; None where exec is a child's work."""
    profile = document.linux.seccomp
    flags, young = 0, list[str]()
    if profile is not None:
        from inclavare.linux import seccomp  # noqa: PLC0415  # its tables are for profiles only

        flags, young = seccomp.filter_flags(profile), seccomp.young(profile)
    if record.enclave is not None or record.systemd_unit or Filter(b"", flags, young).listens:
        return None
    brief = jsontext.dumps(
        {
            **_without(configuration, BULKY),
            "process": {**_without(configuration["process"], BULKY_OF_PROCESS), "args": ["-"]},
            "linux": _without(configuration.get("linux") or {}, BULKY_OF_LINUX),
        }
    )
    if len(brief) > BRIEF_MAX:
        return None
    return {"configuration": brief, "filter": None if profile is None else {"flags": flags, "young": young}}


def _without(members: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in names}


class Known:
    """What exec needs of a container, ready for use."""

    __slots__ = ("document", "filter", "record")

    def __init__(self, root: str, container_id: str, values: dict[str, Any]) -> None:
        """Read what remember() gave. Raises InclavareError."""
        self.record = store.load(root, container_id)
        self.document = spec.parse(jsontext.loads(values["configuration"].encode()))
        self.filter: Filter | None = None
        if values["filter"] is not None:
            code = filter_cache.find_filter(self.record)
            if code is None:
                raise HostError(f"the cache of filters has lost that of {container_id}")
            self.filter = Filter(code, values["filter"]["flags"], values["filter"]["young"])


async def execute(loop: Loop, log: ShimLog, container: Container, process: Process) -> Result | None:
    """Run another process in a container. None where a child has to do it.

    Raises InclavareError; then nothing of the process is left, and neither when the task is cancelled.
    """
    if container.exec is None:
        return None
    try:
        return await _execute(loop, log, container.exec, process)
    except OSError as error:
        raise HostError(f"cannot execute in {container.id}: {error}") from error


async def _execute(loop: Loop, log: ShimLog, known: Known, process: Process) -> Result:
    execution.require_running(known.record)
    parsed = spec.parse_process(jsontext.loads(process.spec, "the process"))
    parsed.terminal = process.terminal
    options = execution.Options()
    options.terminal = options.terminal_as_is = True
    null, stdio = -1, process.fds()
    if stdio is None:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        stdio = (null, null, null)
    try:
        request = execution.make_request(known.record, known.document, parsed, stdio, known.filter)
        going = execution.Execution(known.record, request, options, log, stdio)
    finally:
        if null >= 0:
            os.close(null)
    run = going.run
    executor, fd = run.detach()
    loop.on_exit(executor, lambda _code: run.lose_executor())
    try:
        while not run.advance(going.answer, SYNC_READY):
            await loop.until(fd, IN)
    except BaseException:
        going.end()
        raise
    return Result({"pid": run.pid}, going.master)
