"""The rule for container ids. Hot path: commands that need no configuration need this."""

from __future__ import annotations

from inclavare.errors import UsageError
from inclavare.oci.reader import show

_ID_SIGNS = "_+-."
_ID_SIZE_MAX = 255  # a container is a directory of that name


def validate_id(container_id: str) -> None:
    """Raise UsageError unless `container_id` can name a container: letters, digits and `_+-.` of ASCII.

    It must not begin with a point: such names in the state root are not containers'.
    """
    for sign in container_id:
        if not (sign.isascii() and sign.isalnum()) and sign not in _ID_SIGNS:
            _refuse(container_id, f"invalid character {show(sign)} in a container ID")
    if not container_id or container_id.startswith("."):
        _refuse(container_id, "it is empty" if not container_id else "it begins with a point")
    if len(container_id) > _ID_SIZE_MAX:
        _refuse(container_id, f"it is longer than {_ID_SIZE_MAX} characters")


def _refuse(container_id: str, why: str) -> None:
    raise UsageError(
        f"invalid container ID format: {show(container_id)}: {why}",
        f"use up to {_ID_SIZE_MAX} letters, digits and any of {_ID_SIGNS}",
    )
