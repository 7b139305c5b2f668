"""`rune ps`: list a container's processes."""

from __future__ import annotations

import os

from inclavare.container import store
from inclavare.errors import UsageError
from inclavare.linux import cgroups, process
from inclavare.linux.files import read_file
from inclavare.oci import jsontext

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation


def run(invocation: Invocation) -> int:
    """Carry out the command."""
    form = invocation.options.value("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"invalid format option: {form!r}", "It is table or json.")
    record = store.load(invocation.root, invocation.arguments[0])
    pids = cgroups.processes(record.cgroups) if record.cgroups else process.in_same_namespace(record.pid)
    if form == "json":
        text = jsontext.dumps(pids) + "\n"
    else:
        text = "PID     COMMAND\n" + "".join(f"{pid:<7} {_command(pid)}\n" for pid in pids)
    os.write(1, text.encode("utf-8", "surrogateescape"))
    return 0


def _command(pid: int) -> str:
    try:
        words = read_file(f"/proc/{pid}/cmdline").replace(b"\0", b" ").strip()
    except OSError:
        return "(ended)"
    return words.decode("utf-8", "surrogateescape")
