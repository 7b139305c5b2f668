"""What a carrier is given to work with: the bundle, the settings, places to build in, and what to undo.

Everything that a job makes is registered before it is made: `end` takes away what must not stay, in any case, and after
a failure also what should have stayed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from inclavare.enclave.hostconfig import HostConfig
from inclavare.errors import SpecError

INTERRUPTING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGALRM)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let what happens inside and its note for `undo` be one step for signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Teller(Protocol):
    """Where progress is told."""

    def debug(self, message: str) -> None:
        """For who looks for a fault."""

    def info(self, message: str) -> None:
        """For an operator."""

    def warning(self, message: str) -> None:
        """What is odd but was dealt with."""


class Carrier(Protocol):
    """What is registered in `inclavare.carriers.CARRIERS`."""

    def __call__(self, job: Job) -> dict[str, str]:
        """Prepare the enclave in the job's root filesystem; give variables, which process.env gets where it lacks them.

        Raises InclavareError. What is made outside of `job.scratch()` is to be registered in `job.undo`.
        """


@dataclass(slots=True)
class Job:
    """One bundle to prepare. `configuration` is its config.json, not to be changed."""

    carrier: str
    bundle: str
    configuration: Mapping[str, Any]
    settings: HostConfig
    environment: Mapping[str, str]
    log: Teller
    undo: list[Callable[[], object]] = field(default_factory=list)
    always: list[Callable[[], object]] = field(default_factory=list)

    @property
    def process(self) -> Mapping[str, Any]:
        """The configuration's process. Raises SpecError when there is none."""
        process = self.configuration.get("process")
        if not isinstance(process, dict):
            raise SpecError("process", "it is missing, and so is a program to run in an enclave")
        return process

    @property
    def work_directory(self) -> str:
        """The container's process.cwd, where the enclave lies. Raises SpecError unless it is absolute."""
        cwd = self.process.get("cwd")
        if not isinstance(cwd, str) or not cwd.startswith("/"):
            raise SpecError("process.cwd", f"it is {cwd!r}, not an absolute path")
        return cwd

    @property
    def arguments(self) -> list[str]:
        """The container's process.args. Raises SpecError unless there is at least one."""
        args = self.process.get("args")
        if not isinstance(args, list) or not args or not all(isinstance(word, str) for word in args):
            raise SpecError("process.args", "there is no program to run")
        return args

    @property
    def variables(self) -> dict[str, str]:
        """The container's process.env; of several variables of one name the first counts."""
        found: dict[str, str] = {}
        for entry in self.process.get("env") or []:
            name, equals, value = str(entry).partition("=")
            if equals:
                found.setdefault(name, value)
        return found

    @property
    def rootfs(self) -> str:
        """The host's path of the root filesystem. Raises SpecError."""
        root = self.configuration.get("root")
        path = root.get("path") if isinstance(root, dict) else None
        if not isinstance(path, str) or not path:
            raise SpecError("root.path", "it is missing")
        return os.path.join(self.bundle, path)

    def scratch(self) -> str:
        """Make a private directory below the bundle that ends with the job."""
        with undisturbed():
            path = tempfile.mkdtemp(prefix=".carrier-", dir=self.bundle)
            self.always.append(lambda: shutil.rmtree(path, ignore_errors=True))
        return path

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Tell how long a step took, once it is done."""
        begin = time.monotonic()
        yield
        self.log.info(f"carrier {self.carrier}: {name} ({time.monotonic() - begin:.1f} s)")

    def end(self, *, failed: bool) -> None:
        """Take away what must not stay. Never raises."""
        for actions in (self.undo if failed else [], self.always):
            while actions:
                with contextlib.suppress(OSError):
                    actions.pop()()
