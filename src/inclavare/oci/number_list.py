"""Lists of CPUs or memory nodes such as `0-3,7`, as bits of a number."""

from __future__ import annotations

from inclavare.oci.reader import Members, show


def parse(members: Members, name: str, highest: int) -> int:
    """Give the number whose bits are the list in member `name`; 0 when not given. Raises SpecError beyond `highest`."""
    text = members.text(name)
    if text is None:
        return 0
    bits = 0
    for part in text.strip().split(","):
        first, dash, last = part.strip().partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise members.error(name, f'{show(text)} is not a list of numbers and ranges such as "0-3,7"')
        low, high = int(first), int(last or first)
        if low > high:
            raise members.error(name, f"the range {low}-{high} runs backwards")
        if high > highest:
            raise members.error(name, f"{high} is beyond the last possible number {highest}")
        bits |= (2 << high) - (1 << low)
    return bits


def render(bits: int) -> str:
    """Write the list again, for messages."""
    parts: list[str] = []
    number = 0
    while bits >> number:
        if not bits >> number & 1:
            number += 1
            continue
        first = number
        while bits >> number & 1:
            number += 1
        parts.append(str(first) if number == first + 1 else f"{first}-{number - 1}")
    return ",".join(parts)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9
