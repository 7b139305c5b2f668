"""The two JSON documents that tell a container's state.

`state_document` is what `rune state` prints, with runc's members in runc's order; `hook_state` is what a hook reads on
its standard input (runtime-spec: runtime.md "State"). Hot path.
"""

from __future__ import annotations

SPEC_VERSION = "1.3.0"  # the version of the runtime-spec that our documents name
STATUSES = ("creating", "created", "running", "paused", "stopped")


def state_document(
    *,
    container_id: str,
    pid: int,
    status: str,
    bundle: str,
    rootfs: str,
    created: str,
    annotations: dict[str, str],
    owner: str = "",
    enclave: dict[str, object] | None = None,
) -> dict[str, object]:
    """Return the document of `rune state`, to be written with an indentation of two blanks.

    `pid` is 0 for a stopped container, `status` one of STATUSES, `bundle` and `rootfs` absolute paths, `created` a time
    of RFC 3339 with nanoseconds, `owner` the name of the user who created the container ("" is root). `enclave` is
    ours, for enclave containers only.
    """
    document: dict[str, object] = {
        "ociVersion": SPEC_VERSION,
        "id": container_id,
        "pid": pid,
        "status": status,
        "bundle": bundle,
        "rootfs": rootfs,
        "created": created,
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    document["owner"] = owner
    if enclave is not None:
        document["enclave"] = enclave
    return document


def hook_state(
    *, container_id: str, pid: int, status: str, bundle: str, annotations: dict[str, str]
) -> dict[str, object]:
    """Return the document that a hook gets; without `pid` once there is no process any more (0)."""
    document: dict[str, object] = {"ociVersion": SPEC_VERSION, "id": container_id, "status": status}
    if pid:
        document["pid"] = pid
    document["bundle"] = bundle
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return document
