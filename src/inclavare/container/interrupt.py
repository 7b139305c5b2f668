"""Signals that ask a command to end, as exceptions: what it has begun is undone. Hot path."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums: 4 ms

from inclavare.errors import InterruptError

TERMINATING = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)


def undo_on_signals() -> None:
    """Let the signals that ask a command to end raise InterruptError, so that what it has begun is undone."""
    for number in TERMINATING:
        _signal.signal(number, _interrupt)


def _interrupt(number: int, _frame: object) -> None:
    raise InterruptError(number)
