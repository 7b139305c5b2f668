"""The settings of a terminal, termios(3) by ioctl_tty(2): the module `termios` cannot be loaded by a static program.

Spelled as in asm-generic/termbits.h and asm-generic/ioctls.h.
"""

from __future__ import annotations

import fcntl
from struct import Struct

TCGETS = 0x5401
TCSETS = 0x5402
TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414
BRKINT, INPCK, ISTRIP, ICRNL, IXON = 0x2, 0x10, 0x20, 0x100, 0x400
OPOST, ONLCR = 0x1, 0x4
ISIG, ICANON, ECHO, IEXTEN = 0x1, 0x2, 0x8, 0x8000
TERMIOS = Struct("4I20s")  # c_iflag, c_oflag, c_cflag, c_lflag; c_line and c_cc


def raw(settings: bytes) -> bytes:
    """Let every byte of input through at once; output keeps its line ends."""
    iflag, oflag, cflag, lflag, rest = TERMIOS.unpack(settings)
    return TERMIOS.pack(
        iflag & ~(BRKINT | ICRNL | INPCK | ISTRIP | IXON),
        oflag | OPOST | ONLCR,
        cflag,
        lflag & ~(ECHO | ICANON | IEXTEN | ISIG),
        rest,
    )


def without_line_ends(settings: bytes) -> bytes:
    """Write a newline as what it is, for a terminal whose output goes to another one."""
    iflag, oflag, cflag, lflag, rest = TERMIOS.unpack(settings)
    return TERMIOS.pack(iflag, oflag & ~ONLCR, cflag, lflag, rest)


def get(fd: int) -> bytes:
    """Read a terminal's settings, 36 bytes. Raises OSError (ENOTTY) for what is none."""
    return fcntl.ioctl(fd, TCGETS, bytes(TERMIOS.size))


def set_now(fd: int, settings: bytes) -> None:
    """Change a terminal's settings."""
    fcntl.ioctl(fd, TCSETS, settings)


def copy_size(source: int, target: int) -> None:
    """Give `target` the size of the window that `source` is, if it is one."""
    try:
        size = fcntl.ioctl(source, TIOCGWINSZ, bytes(8))
    except OSError:
        return
    fcntl.ioctl(target, TIOCSWINSZ, size)
