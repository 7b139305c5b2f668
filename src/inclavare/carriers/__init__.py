"""Carriers: they prepare an enclave for an ordinary image, before its container is created (docs/carriers.md).

This module decides which carrier a bundle asks for, and for most that is none. The work is done by a process of its
own (`worker`) on the host's python3: it needs what the `rune` program does not have, and whatever ends it, a signal,
the time limit or the death of its parent, it leaves nothing behind. It tells its progress on a pipe.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums: 4 ms
import os
import sys

from inclavare import installed
from inclavare.enclave.config import POD_ITSELF
from inclavare.errors import AttestationError, EnclaveError, HostError, InterruptError, SpecError
from inclavare.linux.files import read_file
from inclavare.oci import jsontext

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

    from inclavare.enclave.hostconfig import HostConfig
    from inclavare.log import Log

VARIABLE = "RUNE_CARRIER"
ANNOTATION = "enclave.carrier"
# name: module:attribute of a `job.Carrier`, "" for nothing to do
CARRIERS = {
    "": "",
    "none": "",
    "empty": "",
    "occlum": "inclavare.carriers.occlum:prepare",
    "skeleton": "inclavare.carriers.skeleton:prepare",
}
NOT_OFFERED = ("graphene",)
PYTHON = "/usr/bin/python3"
SIGNALS = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)
ERRORS = {"EnclaveError": EnclaveError, "HostError": HostError}


def prepare(bundle: str, settings: HostConfig, log: Log, environment: Mapping[str, str]) -> None:
    """Prepare the bundle's enclave by the carrier that it asks for, and rewrite its config.json; for none do nothing.

    The root filesystem must be in its place. `environment` is for the tools that a carrier starts. Raises SpecError,
    EnclaveError, HostError; InterruptError after a signal that asked to end, which ends the work first. Nothing is left
    behind then.
    """
    name = choose(_configuration(bundle), settings.carrier)
    if CARRIERS[name]:
        _run_worker(name, bundle, settings, log, environment)


def is_asked_for(configuration: Mapping[str, object]) -> bool:
    """Tell whether the configuration itself asks for a carrier that does something, or for one that is not known."""
    return bool(CARRIERS.get(_asked_for(configuration) or "", "unknown"))


def choose(configuration: Mapping[str, object], default: str) -> str:
    """Give the name of the carrier: of process.env, else of the annotation, else the default.

    The container that only holds a pod's namespaces has none but by its own process.env. Raises EnclaveError for one
    that is not known.
    """
    name = _asked_for(configuration)
    if name is None:
        name = default
    if name in NOT_OFFERED:
        raise EnclaveError(f"Carrier {name} has not been implemented", _known())
    if name not in CARRIERS:
        raise EnclaveError(f"unexpected carrier kind: {name}: unknown carrier", _known())
    return name


def _asked_for(configuration: Mapping[str, object]) -> str | None:
    """Give the name of process.env, else of the annotation, else None."""
    name = _from_environment(configuration)
    annotations = configuration.get("annotations")
    if name is None and isinstance(annotations, dict):
        if any(annotations.get(kind) == value for kind, value in POD_ITSELF):
            return ""
        found = annotations.get(ANNOTATION)
        return found if isinstance(found, str) else None
    return name


def _from_environment(configuration: Mapping[str, object]) -> str | None:
    process = configuration.get("process")
    entries = process.get("env") if isinstance(process, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        name, equals, value = entry.partition("=") if isinstance(entry, str) else ("", "", "")
        if name == VARIABLE and equals:
            return str(value)
    return None


def _known() -> str:
    return f"{VARIABLE} (annotation {ANNOTATION}) is one of {', '.join(name for name in CARRIERS if name)}."


def _configuration(bundle: str) -> Mapping[str, object]:
    path = f"{bundle}/config.json"
    try:
        document = jsontext.loads(read_file(path))
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error
    if not isinstance(document, dict):
        raise SpecError("", "config.json is not an object")
    return document


def _run_worker(name: str, bundle: str, settings: HostConfig, log: Log, environment: Mapping[str, str]) -> None:
    request = {
        "carrier": name,
        "bundle": os.path.abspath(bundle),
        "settings": {key: getattr(settings, key) for key in dir(settings) if not key.startswith("_")},
        "environment": dict(environment),
        "parent": os.getpid(),
    }
    caught: list[int] = []
    pid = 0

    def forward(number: int, _frame: object) -> None:
        caught.append(number)
        if pid:
            os.kill(pid, _signal.SIGTERM)

    before = {number: _signal.signal(number, forward) for number in SIGNALS}
    try:
        pid, answers = _spawn(jsontext.dumps(request).encode(), log)
        if caught:
            os.kill(pid, _signal.SIGTERM)
        failure = _listen(answers, log)
        _, status = os.waitpid(pid, 0)
        pid = 0
    finally:
        for number, handler in before.items():
            _signal.signal(number, handler)
    if caught:
        raise InterruptError(caught[0])
    if failure is not None:
        raise failure
    if status:
        raise HostError(
            f"carrier {name}: its process ended unexpectedly ({_describe(status)})",
            "What it wrote to the log says why.",
        )


def _spawn(request: bytes, log: Log) -> tuple[int, int]:
    """Start the worker, with the log as its stderr: its pid, and the pipe on which it tells what it does."""
    library = os.path.dirname(os.path.dirname(installed("")))
    code = f"import sys; sys.path.insert(0, {library!r}); from inclavare.carriers.worker import main; main()"
    python = PYTHON if "_launcher" in sys.modules else sys.executable or PYTHON
    source = os.memfd_create("request", os.MFD_CLOEXEC)
    answers, told = os.pipe2(os.O_CLOEXEC)
    try:
        while request:
            request = request[os.write(source, request) :]
        os.lseek(source, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, told, 1), (os.POSIX_SPAWN_DUP2, log.fd, 2)]
        pid = os.posix_spawn(
            python,
            [python, "-I", "-B", "-c", code],
            {"LC_ALL": "C.UTF-8"},
            file_actions=actions,
            setsigmask=[],
            setsigdef=SIGNALS,
        )
    except OSError as error:
        os.close(answers)
        raise HostError(
            f"cannot start {python}, which prepares enclaves: {error.strerror}", "Install python3."
        ) from error
    finally:
        os.close(source)
        os.close(told)
    return pid, answers


def _listen(answers: int, log: Log) -> Exception | None:
    """Log what the worker tells until it ends; give the error that it ended with."""
    failure = None
    rest = b""
    with open(answers, "rb", buffering=0) as pipe:
        while chunk := pipe.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                failure = _understand(line, log) or failure
    return failure


def _understand(line: bytes, log: Log) -> Exception | None:
    told = jsontext.loads(line, "the answer of a carrier's process")
    assert isinstance(told, dict)  # noqa: S101  # it is our own
    kind, message = told["kind"], told["message"]
    if kind in ("debug", "info", "warning"):
        getattr(log, kind)(message)
        return None
    if kind in ("SpecError", "AttestationError"):
        error = SpecError("", message, told["hint"]) if kind == "SpecError" else AttestationError("", message)
        error.path = told["path"]
        return error
    return ERRORS.get(kind, HostError)(message, told["hint"])


def _describe(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"status {os.waitstatus_to_exitcode(status)}"
