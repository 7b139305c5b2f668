"""System calls that Python's modules lack: mount(2), umount2(2), prctl(2).

In the launcher they go through its own functions, in a script through ctypes (3 ms to import).
"""

from __future__ import annotations

import os

from inclavare.linux.calls import SYS_MOUNT, SYS_PRCTL, SYS_UMOUNT2
from inclavare.linux.headers import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG

try:
    from _launcher import rest, syscall  # type: ignore[import-not-found]
except ImportError:
    rest = None

    def syscall(number: int, *arguments: int | bytes) -> int:
        """Call the kernel with integers and with the addresses of bytes. Raises OSError."""
        import ctypes  # noqa: PLC0415  # the launcher has no ctypes, and needs none

        call = ctypes.CDLL(None, use_errno=True).syscall
        call.restype = ctypes.c_long
        values = [ctypes.c_long(value) if isinstance(value, int) else value for value in (number, *arguments)]
        result: int = call(*values)
        if result == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result


def mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    """Mount a file system. Raises OSError."""
    names = [os.fsencode(name) + b"\0" for name in (source, target, kind)]
    syscall(SYS_MOUNT, *names, flags, os.fsencode(data) + b"\0")


def umount(target: str, flags: int) -> None:
    """Unmount what was mounted last on `target`. Raises OSError."""
    syscall(SYS_UMOUNT2, os.fsencode(target) + b"\0", flags)


def die_with_parent(number: int) -> None:
    """Have this signal sent to us when our parent ends. It may have ended already."""
    syscall(SYS_PRCTL, PR_SET_PDEATHSIG, number, 0, 0, 0)


def become_subreaper() -> None:
    """Take the place of the parent for those of our descendants whose parents end."""
    syscall(SYS_PRCTL, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_small(fd: int, milliseconds: int) -> None:
    """Unmap what was only read of the program's own file, and wait for a file, a signal or a time (-1 is for ever).

    A script cannot (native/launcher/pages.c), and does not wait.
    """
    if rest is not None:
        rest(fd, milliseconds)
