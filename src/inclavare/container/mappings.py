"""Writes the id mappings of a user namespace (user_namespaces(7))."""

from __future__ import annotations

import os

from inclavare.errors import HostError

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.linux import IDMapping


LINES_MAX = 4096  # a page, which the kernel takes at most


def write_mappings(pid: int, uids: list[IDMapping], gids: list[IDMapping]) -> None:
    """Give the user namespace of a process its mappings."""
    if os.geteuid():
        from inclavare.container import rootless  # noqa: PLC0415  # not for root

        rootless.write_mappings(pid, uids, gids)
        return
    for name, mappings in (("uid_map", uids), ("gid_map", gids)):
        _write_mapping(f"/proc/{pid}/{name}", mappings)


def _write_mapping(path: str, mappings: list[IDMapping]) -> None:
    lines = "".join([f"{entry.container_id} {entry.host_id} {entry.size}\n" for entry in mappings])
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, lines.encode())
        finally:
            os.close(fd)
    except OSError as error:
        what = repr(lines.strip()) if len(lines) < LINES_MAX else f"({len(mappings)}, at most 340 are possible)"
        raise HostError(f"cannot write the mappings {what} to {path}: {error.strerror}") from error
