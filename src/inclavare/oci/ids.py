"""The rule for container ids. Hot path: commands that need no configuration need this."""

from __future__ import annotations

from inclavare.errors import UsageError
from inclavare.oci.reader import show

_ID_SIGNS = "_+-."
_ID_SIZE_MAX = 255  # a container is a directory of that name


def validate_id(container_id: str) -> None:
    """Raise UsageError unless `container_id` can name a container: letters, digits and `_+-.` of ASCII."""
    signs = container_id.translate({ord(sign): None for sign in _ID_SIGNS})
    fits = not signs or (signs.isascii() and signs.isalnum())
    if not fits or container_id in ("", ".", "..") or len(container_id) > _ID_SIZE_MAX:
        raise UsageError(
            f"invalid container ID format: {show(container_id)}",
            f"use up to {_ID_SIZE_MAX} letters, digits and any of {_ID_SIGNS}",
        )
