"""The files that runectl's commands read and write, and how they say what they found."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from inclavare.errors import HostError


def read_file(path: str) -> bytes:
    """Return the content of the file `path`. Raises HostError."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise HostError(f"Unable to open {path}: {error.strerror}") from error


def write_file(path: str, data: bytes, mode: int = 0o644) -> None:
    """Replace the file `path` by one with `data` and permissions `mode`; it is there completely or not at all.

    Raises HostError.
    """
    import tempfile  # noqa: PLC0415  # 3 ms, for those who write

    directory = os.path.dirname(path) or "."
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".runectl-", dir=directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise HostError(f"Unable to write {path}: {error.strerror}") from error


def create_secret_file(path: str, data: bytes) -> None:
    """Create the file `path`, which must not exist, with `data`, for its owner's eyes only. Raises HostError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"Unable to create {path}: {error.strerror}", "keys are never overwritten") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def print_json(values: Mapping[str, object]) -> None:
    """Print `values` as one JSON object."""
    print(json.dumps(values, indent=2))


def print_labelled(rows: list[tuple[str, str]], column: int) -> None:
    """Print one row a line, the value beginning at `column` (counted from 0)."""
    for label, value in rows:
        print(f"{label + ':':<{column - 1}} {value}")
