"""The files of the host that is examined: this one, or one whose file system lies below a directory."""

from __future__ import annotations

import os


class Host:
    """Reads below `root`. What cannot be read is not there: an examination goes on."""

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self.is_this = os.path.realpath(root) == "/"

    def path(self, path: str) -> str:
        """Return where the absolute `path` of that host is."""
        return os.path.join(self.root, path.lstrip("/"))

    def text(self, path: str) -> str | None:
        """Return a file's content without the white space around it; None when it cannot be read."""
        try:
            with open(self.path(path), encoding="utf-8", errors="replace") as file:
                return file.read().strip()
        except OSError:
            return None

    def status(self, path: str) -> os.stat_result | None:
        """Return what stat says of a path; None when it is not there."""
        try:
            return os.stat(self.path(path))
        except OSError:
            return None

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory, sorted; none when it cannot be read."""
        try:
            return sorted(os.listdir(self.path(directory)))
        except OSError:
            return []

    def first(self, *paths: str) -> str | None:
        """Return the first of `paths` that exists on that host."""
        return next((path for path in paths if self.status(path) is not None), None)
