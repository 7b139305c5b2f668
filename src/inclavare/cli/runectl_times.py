"""Times on command lines."""

from __future__ import annotations

from datetime import datetime

from inclavare.errors import UsageError


def unix_time(option: str, text: str) -> int:
    """Return the unix seconds that `text` is, as a number or in RFC 3339. Raises UsageError, naming the option."""
    if text.isascii() and text.isdecimal() and len(text) < 16:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return int(moment.timestamp())
    except (ValueError, OverflowError):
        pass
    raise UsageError(f"{option}: expected unix seconds or RFC 3339, as in 2025-06-19T10:56:11Z, found {text}")


def seconds(text: str) -> float:
    """Return the seconds, up to a day, that `text` writes. Raises ValueError, which argparse reports."""
    number = float(text)
    if not 0 < number <= 86400:
        raise ValueError(text)
    return number
