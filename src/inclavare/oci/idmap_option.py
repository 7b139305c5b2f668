"""Mappings in a mount's option, as crun has them and podman writes them: `idmap=uids=0-1000-10;gids=0-2000-10`.

Each range is id of the filesystem, id on the host, size; several are joined by `#`. They become the mount's uidMappings
and gidMappings of the runtime-spec. Ranges relative to the container's own mappings (`@`) are refused.
"""

from __future__ import annotations

from inclavare.oci.linux import IDMapping
from inclavare.oci.reader import Members, show


def take(members: Members, options: list[str], index: int) -> tuple[list[IDMapping], list[IDMapping]]:
    """Shorten option `index` to its name, and give its mappings of user and of group ids. Raises SpecError."""
    name, _, text = options[index].partition("=")
    found: dict[str, list[IDMapping]] = {"uids": [], "gids": []}
    for part in text.split(";"):
        kind, _, ranges = part.partition("=")
        if kind not in found or found[kind]:
            raise members.error("options", f"{show(part)} in {name} is not uids=RANGES, then gids=RANGES", index)
        for words in ranges.split("#"):
            numbers = words.split("-")
            if len(numbers) != 3 or not all(_is_number(number) for number in numbers):
                raise members.error(
                    "options", f"{show(words)} in {name} is not a range of ids such as 0-1000-10", index
                )
            values = dict(zip(("containerID", "hostID", "size"), map(int, numbers), strict=True))
            found[kind].append(IDMapping(Members(values, members, "options", index)))
    options[index] = name
    return found["uids"], found["gids"]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10
