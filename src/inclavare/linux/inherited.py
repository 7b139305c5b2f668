"""What rune inherits from whoever starts it, made safe: the launcher does the same in C (native/launcher/launcher.c).

Imported only where rune runs on a plain Python.
"""

from __future__ import annotations

import os


def guard_fds() -> None:
    """Open /dev/null where stdio is closed, and keep all other inherited fds from the programs that rune starts."""
    opened = os.open("/dev/null", os.O_RDWR)
    while opened < 3:
        os.set_inheritable(opened, True)
        opened = os.open("/dev/null", os.O_RDWR)
    os.close(opened)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
            except OSError:  # the directory's own
                continue
