"""linux.netDevices: the network devices that a container takes over (config-linux.md "Network Devices")."""

from __future__ import annotations

from inclavare.errors import SpecError
from inclavare.oci.reader import Members, join_path, show
from inclavare.oci.spec import Spec

NAME_MAX = 15  # IFNAMSIZ without its NUL


def parse(spec: Spec, *, host_network: bool) -> list[tuple[str, str]]:
    """Give (name on the host, name in the container) of the devices to be moved. Raises SpecError."""
    path = "linux.netDevices"
    devices: list[tuple[str, str]] = []
    raw = spec.linux.net_devices or {}
    if raw and (spec.linux.namespace("network") is None or host_network):
        raise SpecError(path, "unable to move network devices without a private NET namespace")
    members = Members({"linux": {"netDevices": raw}}).child("linux").child("netDevices")
    for host in raw:
        where = join_path(path, host)
        name = members.child(host).text("name") or host
        for text in (host, name):
            if not _is_name(text):
                raise SpecError(where, f"{show(text)} cannot be the name of a network device")
        if name in [taken for _, taken in devices]:
            raise SpecError(where, f"two devices are to be {name}")
        devices.append((host, name))
    return devices


def _is_name(text: str) -> bool:
    """Ask of a name what the kernel asks (dev_valid_name)."""
    return (
        0 < len(text.encode()) <= NAME_MAX
        and text not in (".", "..")
        and not any(char in "/:" or char.isspace() for char in text)
    )
