"""What carriers have built, by what it was built of: `[cache]` of the administrator's file.

    entries/KEY/tree        complete
    entries/KEY/manifest    digest and size of the tree; its time is that of the last use
    building/KEY/           under way; an entry is published by a rename
    locks/KEY               flock(2): exclusive to build, shared to use

KEY is the SHA-256 of everything that decides the result. Two that want the same build it once: the other waits. An
entry that is damaged is built anew. The entries that were used longest ago go when all together exceed the limit, but
none that is in use. Whoever is killed leaves no lock, and what it had begun is removed by who builds next.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator

from inclavare.carriers import tree
from inclavare.carriers.job import Job
from inclavare.errors import HostError

_CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def key(*parts: str) -> str:
    """Give the key of what depends on these parts, all of them, in this order."""
    whole = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogateescape")
        whole.update(len(encoded).to_bytes(8, "big") + encoded)
    return whole.hexdigest()


class Cache:
    """The cache of a job's settings. Without a limit above 0 nothing is kept, and it is only a place to build in."""

    def __init__(self, job: Job) -> None:
        """Make the directories that are missing. Raises HostError for one that others can change."""
        self._job = job
        self._directory = job.settings.cache_directory
        self._limit = job.settings.cache_size
        for name in ("", "entries", "building", "locks"):
            _private_directory(os.path.join(self._directory, name))

    @contextlib.contextmanager
    def held(self, what: str, entry_key: str, build: Callable[[str], None]) -> Iterator[str]:
        """Give the directory of an entry, for reading; where there is none yet, `build` fills a directory with it.

        It stays as it is until the end of the `with` statement. `what` is for the log.
        """
        if not self._limit:
            entry_key = secrets.token_hex(32)
        while True:
            with self._locked(entry_key, fcntl.LOCK_SH):
                if self._is_intact(entry_key):
                    self._job.log.info(f"carrier {self._job.carrier}: {what} is in the cache")
                    os.utime(self._path("entries", entry_key, "manifest"))
                    yield self._path("entries", entry_key, "tree")
                    return
            with self._locked(entry_key, fcntl.LOCK_EX) as lock:
                if self._is_intact(entry_key):  # somebody else has built it meanwhile
                    continue
                try:
                    size = self._build(entry_key, build)
                    if size > self._limit:
                        yield self._path("building", entry_key, "tree")
                        return
                    os.rename(self._path("building", entry_key), self._path("entries", entry_key))
                finally:
                    self._remove("building", entry_key)
                    if not os.path.exists(self._path("entries", entry_key)):
                        self._remove_lock(entry_key)
                    self._sweep()
                self._evict()
                fcntl.flock(lock, fcntl.LOCK_SH)  # not at once: it may have been evicted in between
                if os.path.exists(self._path("entries", entry_key, "manifest")):
                    yield self._path("entries", entry_key, "tree")
                    return

    def _build(self, entry_key: str, build: Callable[[str], None]) -> int:
        """Fill building/KEY, whose lock is ours; give the size of the tree."""
        place = self._path("building", entry_key)
        self._remove("entries", entry_key)
        self._remove("building", entry_key)  # of somebody who was killed
        os.mkdir(place, 0o700)
        os.mkdir(f"{place}/tree", 0o700)
        build(f"{place}/tree")
        found = _digest(f"{place}/tree")
        with open(f"{place}/manifest", "x", encoding="ascii") as file:
            file.write(f"{found.sha256} {found.size}\n")
        return max(found.size, 1)

    def _is_intact(self, entry_key: str) -> bool:
        manifest = self._read_manifest(entry_key)
        if manifest is None:
            return False
        with contextlib.suppress(OSError):
            if _digest(self._path("entries", entry_key, "tree")) == manifest:
                return True
        self._job.log.warning(f"carrier {self._job.carrier}: entry {entry_key} of the cache is damaged")
        return False

    def _read_manifest(self, entry_key: str) -> tree.Digest | None:
        try:
            with open(self._path("entries", entry_key, "manifest"), encoding="ascii") as file:
                digest, size = file.read(200).split()
            return tree.Digest(digest, int(size))
        except (OSError, ValueError):
            return None

    def _sweep(self) -> None:
        """Remove what those have left who were killed."""
        building, entries, locks = (set(os.listdir(self._path(kind))) for kind in ("building", "entries", "locks"))
        for name in building | locks - entries:
            self._remove_unless_locked("building", name)

    def _evict(self) -> None:
        """Remove what was used longest ago, until the rest is below the limit."""
        entries = []
        for name in os.listdir(self._path("entries")):
            manifest = self._read_manifest(name)
            if manifest is None:
                self._remove_unless_locked("entries", name)
            else:
                with contextlib.suppress(FileNotFoundError):
                    used_ns = os.stat(self._path("entries", name, "manifest")).st_mtime_ns
                    entries.append((used_ns, name, manifest.size))
        total = sum(size for _, _, size in entries)
        for _, name, size in sorted(entries):
            if total <= self._limit:
                return
            if self._remove_unless_locked("entries", name):
                self._job.log.debug(f"carrier {self._job.carrier}: entry {name} left the cache")
                total -= size

    def _remove_unless_locked(self, kind: str, name: str) -> bool:
        try:
            with self._locked(name, fcntl.LOCK_EX | fcntl.LOCK_NB):
                self._remove(kind, name)
                self._remove_lock(name)
        except BlockingIOError:
            return False
        return True

    def _remove(self, kind: str, name: str) -> None:
        """Remove a directory at once, though its files take their time."""
        doomed = self._path("building", secrets.token_hex(8))
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path(kind, name), doomed)
            _remove_tree(doomed)

    def _remove_lock(self, name: str) -> None:
        """Remove the file of a lock that is ours alone: who waits for it makes another."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path("locks", name))

    @contextlib.contextmanager
    def _locked(self, name: str, how: int) -> Iterator[int]:
        """Lock a name, and give the lock's file. A file that was removed meanwhile is no lock."""
        path = self._path("locks", name)
        while True:
            fd = os.open(path, _CREATE, 0o600)
            try:
                fcntl.flock(fd, how)
                if _is_at(fd, path):
                    yield fd
                    return
            finally:
                os.close(fd)

    def _path(self, *names: str) -> str:
        return os.path.join(self._directory, *names)


def _digest(path: str) -> tree.Digest:
    directory = os.open(path, _DIRECTORY)
    try:
        return tree.digest(directory)
    finally:
        os.close(directory)


def _private_directory(path: str) -> None:
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        status = os.lstat(path)
    except OSError as error:
        raise HostError(f"cannot make the cache {path}: {error.strerror}", "[cache] directory names it.") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise HostError(
            f"others can change the cache {path}, or it is no directory",
            f"chown root {path}; chmod go-w {path}; or set [cache] directory.",
        )


def _remove_tree(path: str) -> None:
    """Remove a tree, whatever modes its directories have."""
    for directory, names, _ in os.walk(path):
        for name in names:
            inner = os.path.join(directory, name)
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
