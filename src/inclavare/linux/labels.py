"""Security modules of the kernel, as far as a process can be put under their rules: AppArmor and SELinux.

What a configuration asks for and the host does not have is refused: nobody shall run with less than was asked for.
"""

from __future__ import annotations

import os

from inclavare.errors import SpecError
from inclavare.linux.files import read_file

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.oci.process import Process

UNCONFINED = "unconfined"


def check(process: Process, prefix: str, *, enclave: bool) -> None:
    """Raise SpecError, with a path that begins with `prefix`, for a label that cannot be given."""
    if process.apparmor_profile == UNCONFINED and not _has_apparmor():
        process.apparmor_profile = None  # as it is
    for name, value, is_there, module in (
        ("apparmorProfile", process.apparmor_profile, _has_apparmor, "AppArmor"),
        ("selinuxLabel", process.selinux_label, _has_selinux, "SELinux"),
    ):
        if not value:
            continue
        if not is_there():
            raise SpecError(f"{prefix}{name}", f"this host has no {module}", "Leave it out, or boot with it.")
        if enclave:
            raise SpecError(f"{prefix}{name}", f"{module} for enclave containers is not supported yet")


def check_mounts(label: str) -> None:
    """Raise SpecError for a label that new mounts cannot have."""
    if not _has_selinux():
        raise SpecError("linux.mountLabel", "this host has no SELinux", "Leave it out, or boot with it.")
    if '"' in label:
        raise SpecError("linux.mountLabel", f"{label!r} is no label: it has a quotation mark")


def _has_apparmor() -> bool:
    try:
        return read_file("/sys/module/apparmor/parameters/enabled").startswith(b"Y")
    except OSError:
        return False


def _has_selinux() -> bool:
    """Without a policy there are no labels to give, and nothing is enforced."""
    return os.path.exists("/sys/fs/selinux/enforce") and read_file("/proc/self/attr/current") != b"kernel\0"
