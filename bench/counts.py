"""Counts what repeats exactly: instructions (valgrind's callgrind) and system calls (strace) of each command.

Instructions are those of the command's own program, without the programs that it starts; system calls are those of all
its processes, the container's included. What a tool cannot follow (valgrind lacks some of Linux's newer calls) has no
number.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from compare import Runtime

TIMEOUT_S = 60
CREATE_S = 3  # more than any create takes
ENVIRONMENT = {"PATH": os.defpath}  # each variable costs instructions
KILL = ("kill", "bench", "KILL")
DELETE = ("delete", "bench")


def show(runtimes: Sequence[Runtime], short: str, long: str, directory: str) -> None:
    """Print a table of both counts. A "-" stands for what the tool could not follow, or is not installed."""
    create, start = ("create", "--bundle", long, "bench"), ("start", "bench")
    # command: what comes before it, the command, what comes after it
    life = {
        "run": ((), ("run", "--bundle", short, "bench"), ()),
        "create": ((), create, (KILL, DELETE)),
        "start": ((create,), start, (KILL, DELETE)),
        "state": ((create, start), ("state", "bench"), (KILL, DELETE)),
        "exec": ((create, start), ("exec", "bench", "/bin/true"), (KILL, DELETE)),
        "kill": ((create, start), KILL, (DELETE,)),
        "delete": ((create, start, KILL), DELETE, ()),
    }
    print(f"{'command':8} {'runtime':8} {'instructions':>14} {'system calls':>13}")
    for runtime in runtimes:
        _quietly(runtime, *life["run"][1])  # the first container of a state root also compiles its seccomp filter
    for command, (before, measured, after) in life.items():
        for runtime in runtimes:
            counted = []
            for count in (_instructions, _system_calls):
                for words in before:
                    _quietly(runtime, *words)
                counted.append(count(runtime, measured, directory))
                for words in after:
                    _quietly(runtime, *words)
                subprocess.run(runtime.words("delete", "--force", "bench"), capture_output=True, check=False)
            instructions, calls = ("-" if number is None else f"{number:,}" for number in counted)
            print(f"{command:8} {runtime.name:8} {instructions:>14} {calls:>13}", flush=True)


def _instructions(runtime: Runtime, command: Sequence[str], directory: str) -> int | None:
    log = f"{directory}/callgrind"
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--log-file={log}.%p"]
    pid = _trace(tool, runtime, command)
    return _match(f"{log}.{pid}", r"Collected : (\d+)") if pid else None


def _system_calls(runtime: Runtime, command: Sequence[str], directory: str) -> int | None:
    log = f"{directory}/strace"
    pid = _trace(["strace", "-f", "-c", "-o", log], runtime, command)
    return _match(log, r"^100\.00 +\S+ +(?:\S+ +)?(\d+) +(?:\d+ +)?total$") if pid else None


def _trace(tool: list[str], runtime: Runtime, command: Sequence[str]) -> int:
    """Run a command under a tool to its end; return its pid, or 0 if that failed."""
    if shutil.which(tool[0]) is None:
        return 0
    words = [*tool, *runtime.words(*command)]
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(CREATE_S if command[0] == "create" else TIMEOUT_S)
        if command[0] == "create" and process.poll() is None:
            _quietly(runtime, *KILL)  # strace stays with the container
        status = process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return 0
    return 0 if status else process.pid


def _match(path: str, pattern: str) -> int | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.search(pattern, file.read(), re.MULTILINE)
    except FileNotFoundError:
        return None
    os.unlink(path)
    return int(found[1]) if found else None


def _quietly(runtime: Runtime, *words: str) -> None:
    subprocess.run(
        runtime.words(*words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if words == KILL:
        time.sleep(0.05)
