"""The one tree of errors.

Every error carries `message` (what was attempted, on what, what was found) and `hint` (what to do next, may be
empty). Spec errors carry the JSON path, plan errors the step. Only a command's main() turns them into text and exit
codes.
"""

from __future__ import annotations


class InclavareError(Exception):
    """Something went wrong that the user can be told in one sentence."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def text(self) -> str:
        """Give message and hint in one line."""
        return f"{self.message} (hint: {self.hint})" if self.hint else self.message


class UsageError(InclavareError):
    """The command line cannot be understood."""


class SpecError(InclavareError):
    """config.json (or another document of the runtime-spec) is malformed or asks for what we do not offer.

    `path` names the place, in the form `process.capabilities.bounding[3]`.
    """

    def __init__(self, path: str, message: str, hint: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message, hint)
        self.path = path


class InterruptError(InclavareError):
    """A signal ended the command; what it had begun is undone."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by signal {number}")
        self.number = number


class HostError(InclavareError):
    """The host lacks something or refused something."""


class PlanError(InclavareError):
    """A plan's step failed; nothing of the container is left.

    `step` is the index of the op as `--dry-run` prints it, `errno` the kernel's answer (0 when a process died).
    """

    def __init__(self, step: int, errno: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.step = step
        self.errno = errno


class StateError(InclavareError):
    """The container is not in the state that the command needs, or does not exist."""


class WireError(InclavareError):
    """A message from a peer is malformed."""


class EnclaveError(InclavareError):
    """An enclave cannot be configured, built, measured, signed or entered."""


class AttestationError(InclavareError):
    """A quote, a certificate or another piece of attestation material is malformed, or none that we know.

    `path` names the place: `quote.qe_report.auth_size`, or `tcbInfo.tcbLevels[3].tcbStatus` in JSON.
    """

    def __init__(self, path: str, message: str, hint: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message, hint)
        self.path = path
