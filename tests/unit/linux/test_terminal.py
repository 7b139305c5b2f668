"""Settings of terminals, beside what `termios` says of the same terminal."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator

import pytest

from inclavare.linux import terminal


@pytest.fixture
def tty() -> Iterator[int]:
    master, slave = os.openpty()
    yield slave
    os.close(master)
    os.close(slave)


def test_names_are_those_of_the_headers() -> None:
    names = [name for name in vars(terminal) if name.isupper() and name != "TERMIOS" and hasattr(termios, name)]
    assert len(names) == 15
    assert [getattr(terminal, name) for name in names] == [getattr(termios, name) for name in names]


def test_a_raw_terminal_gives_bytes_as_they_are_typed_and_comes_back(tty: int) -> None:
    before = termios.tcgetattr(tty)
    saved = terminal.get(tty)
    terminal.set_now(tty, terminal.raw(saved))
    iflag, oflag, cflag, lflag, *rest = termios.tcgetattr(tty)
    assert not iflag & (termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
    assert not lflag & (termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    assert oflag & termios.OPOST
    assert oflag & termios.ONLCR
    assert [cflag, *rest[:2]] == [before[2], *before[4:6]]
    terminal.set_now(tty, saved)
    assert termios.tcgetattr(tty) == before


def test_line_ends_are_not_made_twice(tty: int) -> None:
    before = termios.tcgetattr(tty)
    terminal.set_now(tty, terminal.without_line_ends(terminal.get(tty)))
    after = termios.tcgetattr(tty)
    assert after[1] == before[1] & ~termios.ONLCR
    assert after[:1] + after[2:] == before[:1] + before[2:]


def test_what_is_no_terminal_has_no_settings() -> None:
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        terminal.get(reader)
    os.close(reader)
    os.close(writer)


def test_the_size_of_a_window_is_copied_and_a_pipe_has_none(tty: int) -> None:
    termios.tcsetwinsize(tty, (12, 34))
    other, other_slave = os.openpty()
    terminal.copy_size(tty, other)
    assert termios.tcgetwinsize(other) == (12, 34)
    reader, writer = os.pipe()
    terminal.copy_size(reader, other)
    assert termios.tcgetwinsize(other) == (12, 34)
    for fd in (other, other_slave, reader, writer):
        os.close(fd)
