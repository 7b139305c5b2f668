"""What the engines of the tests have in common: a client on the command line, and daemons that end with them."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

END_TIMEOUT_S = 30


class Client(ABC):
    """Runs a client's commands, in `environment`."""

    environment: dict[str, str]

    @abstractmethod
    def command(self, *words: str | Path) -> list[str]:
        """Return the whole command line of a command."""

    @abstractmethod
    def log(self) -> str:
        """Return the last lines of what the daemons wrote."""

    def __call__(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command; the result has returncode, stdout and stderr, whatever the status."""
        options = {"capture_output": True, "timeout": 120} | options
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(self.command(*words), env=self.environment, text=True, check=False, **options)

    def ok(self, *words: str | Path, **options: Any) -> str:
        """Run a command that must succeed; return what it printed, without the last newline."""
        done = self(*words, **options)
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.log()}"
        out: str = done.stdout.rstrip("\n")
        return out

    def terminal(
        self, *words: str | Path, typed: str = "", size: tuple[int, int] = (24, 80), timeout_s: float = 60
    ) -> tuple[int, str]:
        """Run a command on a terminal, with `typed` as its input: its status and what the terminal showed."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
        process = subprocess.Popen(
            self.command(*words), env=self.environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        os.write(master, typed.encode())
        shown, deadline = b"", time.monotonic() + timeout_s
        try:
            while time.monotonic() < deadline:
                if not select.select([master], [], [], 0.2)[0]:
                    continue
                try:
                    shown += os.read(master, 4096)
                except OSError:  # EIO: nobody has the terminal any more
                    break
            return process.wait(max(0.1, deadline - time.monotonic())), shown.decode()
        finally:
            process.kill()
            process.wait()
            os.close(master)


def end(processes: Iterable[subprocess.Popen[bytes]]) -> list[str]:
    """End processes, one after the other; tell which had to be made to."""
    stubborn = []
    for process in processes:
        process.terminate()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            stubborn.append(f"{process.args!r} does not end")
            process.kill()
            process.wait()
    return stubborn
