"""Programs that carriers start, and how they end: each is waited for, and nothing of it stays."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence

from inclavare.enclave.trust import require_trusted
from inclavare.errors import EnclaveError, HostError

OUTPUT_MAX = 4096  # of which an error shows the end


def find(name: str, environment: Mapping[str, str], places: Sequence[str], from_where: str) -> str:
    """Give the real path of a program: at one of `places`, else on PATH.

    Raises HostError, with the hint `from_where`; EnclaveError for one that others can change.
    """
    there = (place for place in places if os.access(place, os.X_OK) and os.path.isfile(place))
    found = next(there, None) or shutil.which(name, path=environment.get("PATH", os.defpath))
    if found is None:
        raise HostError(f"{name} is not on this host: neither at {' or '.join(places)} nor on PATH", from_where)
    path = os.path.realpath(found)
    require_trusted(path, os.stat(path))
    return path


def run(words: Sequence[str], directory: str, environment: Mapping[str, str]) -> str:
    """Run a program to its end, and everything that it started; give what it wrote. Raises EnclaveError if it fails."""
    name = " ".join([os.path.basename(words[0]), *words[1:2]])
    try:
        process = subprocess.Popen(
            words,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        raise HostError(f"cannot run {words[0]}: {error.strerror}") from error
    output = _output_until_end(process)
    end_children()
    text = output.decode("utf-8", "replace").strip()
    if process.returncode:
        how = f"signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}"
        raise EnclaveError(f"{name} failed with {how}: {text or 'it said nothing'}", f"It ran in {directory}.")
    return text


def _output_until_end(process: subprocess.Popen[bytes]) -> bytes:
    """Give the end of what a process wrote. It has ended when it has, whoever else has its output."""
    output = b""
    assert process.stdout is not None  # noqa: S101  # a pipe
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    ended = os.pidfd_open(process.pid)
    try:
        running = True
        while running:
            ready, _, _ = select.select([pipe, ended], [], [])
            if ended in ready:
                process.wait()
                running = False
            while chunk := _read(pipe):
                output = (output + chunk)[-OUTPUT_MAX:]
            if pipe in ready and running and not _may_write(pipe):
                process.wait()
                running = False
    finally:
        os.close(ended)
        process.stdout.close()
    return output


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, 1 << 16)
    except BlockingIOError:
        return b""


def _may_write(pipe: int) -> bool:
    """Tell whether anybody has the other end of a pipe that is empty."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return not any(event & select.POLLHUP for _, event in poll.poll(0))


def end_children() -> None:
    """End all processes below this one: its children, and what they left to it as their subreaper."""
    while True:
        try:
            found = os.waitpid(-1, os.WNOHANG)
            while found[0]:
                found = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        children = _children()
        for pid in children:
            os.kill(pid, signal.SIGKILL)  # a child is ours until it is waited for
        for pid in children:
            os.waitpid(pid, 0)


def _children() -> list[int]:
    me = str(os.getpid())
    children = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    parent = file.read().rpartition(")")[2].split()[1]
            except OSError:  # it has ended
                continue
            if parent == me:
                children.append(int(entry))
    return children
