"""The process that a carrier works in: reads its request from stdin, tells on stdout, one JSON object a line.

One asynchronous event ends the work, once: a signal, or the time limit. After it everything is undone, undisturbed. The
processes that the work has started, and theirs, are children of this one (PR_SET_CHILD_SUBREAPER) and end with it; it
ends with its parent (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
from typing import Any, cast

from inclavare.carriers import CARRIERS, bundle, tools
from inclavare.carriers.job import INTERRUPTING, Carrier, Job
from inclavare.enclave.hostconfig import HostConfig
from inclavare.errors import EnclaveError, HostError, InclavareError, InterruptError
from inclavare.linux.headers import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG
from inclavare.oci import jsontext


class Pipe:
    """Tells the parent what is done."""

    def debug(self, message: str) -> None:
        """For who looks for a fault."""
        self._tell("debug", message)

    def info(self, message: str) -> None:
        """For an operator."""
        self._tell("info", message)

    def warning(self, message: str) -> None:
        """What is odd but was dealt with."""
        self._tell("warning", message)

    def error(self, error: InclavareError) -> None:
        """Why the work failed."""
        self._tell(type(error).__name__, error.message, hint=error.hint, path=getattr(error, "path", ""))

    @staticmethod
    def _tell(kind: str, message: str, **more: str) -> None:
        text = json.dumps({"kind": kind, "message": message.encode("utf-8", "replace").decode(), **more}) + "\n"
        os.write(1, text.encode())


def main() -> None:
    """Do what stdin asks for, and end."""
    request = json.load(sys.stdin.buffer)
    tell = Pipe()
    job = None
    failed = True
    try:
        _begin(request["parent"], request["settings"]["build_timeout_s"])
        job = _job(request, tell)
        module, _, attribute = CARRIERS[job.carrier].partition(":")
        carrier: Carrier = getattr(importlib.import_module(module), attribute)
        with job.step("all of it"):
            variables = carrier(job)
            _quiet()
            bundle.add_variables(job, variables)
        failed = False
    except InterruptError:
        pass  # the parent knows
    except InclavareError as error:
        tell.error(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        tell.error(HostError(f"carrier {request['carrier']}: {where}{error.strerror or error}"))
    finally:
        _quiet()
        tools.end_children()
        if job is not None:
            job.end(failed=failed)
    sys.exit(1 if failed else 0)


def _begin(parent: int, timeout_s: int) -> None:
    process = ctypes.CDLL(None, use_errno=True)
    process.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    process.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    for number in INTERRUPTING:
        signal.signal(number, _interrupted)
    if os.getppid() != parent:
        raise InterruptError(signal.SIGTERM)

    def late(_number: int, _frame: object) -> None:
        _quiet()
        raise EnclaveError(
            f"preparing the enclave took more than {timeout_s} s",
            "Allow more: build_timeout under [enclave_runtime] of /etc/inclavare-containers/config.toml.",
        )

    signal.signal(signal.SIGALRM, late)
    if timeout_s:
        signal.setitimer(signal.ITIMER_REAL, timeout_s)


def _interrupted(number: int, _frame: object) -> None:
    _quiet()
    raise InterruptError(number)


def _quiet() -> None:
    """From now on nothing interrupts."""
    for number in INTERRUPTING:
        signal.signal(number, signal.SIG_IGN)


def _job(request: dict[str, Any], tell: Pipe) -> Job:
    path = f"{request['bundle']}/config.json"
    with open(path, "rb") as file:
        configuration = jsontext.loads(file.read())
    settings = HostConfig()
    for name, value in request["settings"].items():
        setattr(settings, name, value)
    return Job(
        carrier=request["carrier"],
        bundle=request["bundle"],
        configuration=cast("dict[str, Any]", configuration),
        settings=settings,
        environment=request["environment"],
        log=tell,
    )
