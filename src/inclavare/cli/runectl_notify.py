"""How a daemon tells systemd how it is: sd_notify(3)."""

from __future__ import annotations

import os
import socket

from inclavare.errors import HostError


def notify(message: str) -> None:
    """Tell systemd, where it asked to be told."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place:
        address = "\0" + place[1:] if place.startswith("@") else place
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as bus:
            try:
                bus.sendto(message.encode(), address)
            except OSError as error:
                raise HostError(f"cannot notify {place}: {error.strerror}", "NOTIFY_SOCKET is systemd's.") from error
