"""Trees of files: what is in one, as a digest, and copies of one. Links are never followed out of the tree.

Directories are reached by their descriptors. Only directories, regular files and symbolic links count: what else a tree
holds (devices, FIFOs, sockets) is left out of digests and copies alike. Owners and times are left out, too.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from inclavare.carriers.job import Job
from inclavare.carriers.rootfs import CHUNK, DEPTH_MAX, clear_place, open_in_root, owner
from inclavare.errors import EnclaveError

MODE = 0o777  # without set-user-ID and its kind
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Digest:
    """What a tree holds: SHA-256 (hex) over paths, modes, links and contents; the bytes of its files together."""

    sha256: str
    size: int


def identity(directory: int) -> tuple[int, int]:
    """Give what identifies an open directory on this host."""
    status = os.fstat(directory)
    return status.st_dev, status.st_ino


def digest(directory: int, without: tuple[int, int] | None = None) -> Digest:
    """Read a whole tree. `without`: the identity of a directory in it that does not count. Raises OSError."""
    whole = hashlib.sha256()
    size = 0
    for path, folder, name, status in _walk(directory, b"", without, 0):
        kind, content = stat.S_IFMT(status.st_mode), b""
        if kind == stat.S_IFLNK:
            content = os.fsencode(os.readlink(name, dir_fd=folder))
        elif kind == stat.S_IFREG:
            content = _content(folder, name)
            size += status.st_size
        head = f"{kind:o} {status.st_mode & MODE if kind != stat.S_IFLNK else 0:o} {len(path)} {len(content)} "
        whole.update(head.encode() + path + content)
    return Digest(whole.hexdigest(), size)


def copy(source: int, target: int, ids: tuple[int, int] | None = None) -> None:
    """Copy a tree into an empty directory, as it is. `ids`: user and group of the copies. Raises OSError."""
    _Copy(None, ids).copy(source, target, "", 0)


def place(job: Job, directory: int, source: int) -> None:
    """Copy what is in a tree into a directory of the image, each in place of what has its name; the owner stays."""
    for name in os.listdir(source):
        clear_place(job, directory, name)
    copy(source, directory, owner(directory))


def merge_image(root: int, target: int, without: tuple[int, int] | None) -> None:
    """Copy a root filesystem into a directory that has files already, which stay. Raises OSError.

    Where there is a directory and the root filesystem has a link that leads to one, the content of that is meant:
    /lib64 may be either.
    """
    copying = _Copy(root, None)
    copying.without = without
    copying.copy(root, target, "", 0)


def _walk(
    directory: int, above: bytes, without: tuple[int, int] | None, depth: int
) -> Iterator[tuple[bytes, int, str, os.stat_result]]:
    for name in _names(directory, depth):
        status = os.lstat(name, dir_fd=directory)
        path = above + b"/" + os.fsencode(name)
        if stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) != without:
                yield path, directory, name, status
                folder = os.open(name, _DIRECTORY, dir_fd=directory)
                try:
                    yield from _walk(folder, path, without, depth + 1)
                finally:
                    os.close(folder)
        elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            yield path, directory, name, status


def _names(directory: int, depth: int) -> list[str]:
    if depth > DEPTH_MAX:
        raise EnclaveError(f"a tree of files is more than {DEPTH_MAX} directories deep")
    return sorted(os.listdir(directory), key=os.fsencode)


def _content(folder: int, name: str) -> bytes:
    """Give the SHA-256 of a file."""
    with open(os.open(name, _READ, dir_fd=folder), "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").digest()


class _Copy:
    def __init__(self, root: int | None, ids: tuple[int, int] | None) -> None:
        self.root = root
        self.ids = ids
        self.without: tuple[int, int] | None = None

    def copy(self, source: int, target: int, above: str, depth: int) -> None:
        for name in _names(source, depth):
            status = os.lstat(name, dir_fd=source)
            try:
                if stat.S_ISDIR(status.st_mode):
                    if (status.st_dev, status.st_ino) != self.without:
                        self._directory(source, target, name, f"{above}{name}/", depth, status.st_mode & MODE)
                elif stat.S_ISLNK(status.st_mode):
                    self._link(source, target, name, f"{above}{name}/", depth)
                elif stat.S_ISREG(status.st_mode):
                    self._file(source, target, name, status.st_mode & MODE)
            except FileExistsError:
                if self.root is None:
                    raise

    def _directory(self, source: int, target: int, name: str, path: str, depth: int, mode: int) -> None:
        made = False
        try:
            os.mkdir(name, 0o700, dir_fd=target)
            made = True
        except FileExistsError:
            if self.root is None or not stat.S_ISDIR(os.lstat(name, dir_fd=target).st_mode):
                raise
        inner = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            self._into(inner, target, name, path, depth)
        finally:
            os.close(inner)
        if made:
            os.chmod(name, mode, dir_fd=target)  # at last: it may be one that cannot be written to
            self._give(target, name)

    def _into(self, source: int, target: int, name: str, path: str, depth: int) -> None:
        outer = os.open(name, _DIRECTORY, dir_fd=target)
        try:
            self.copy(source, outer, path, depth + 1)
        finally:
            os.close(outer)

    def _link(self, source: int, target: int, name: str, path: str, depth: int) -> None:
        try:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        except FileExistsError:
            if self.root is None or not stat.S_ISDIR(os.lstat(name, dir_fd=target).st_mode):
                raise
            try:
                inner = open_in_root(self.root, path, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:  # it leads to no directory
                return
            try:
                if identity(inner) != self.without:
                    self._into(inner, target, name, path, depth)
            finally:
                os.close(inner)
        else:
            self._give(target, name)

    def _file(self, source: int, target: int, name: str, mode: int) -> None:
        written = os.open(name, _CREATE, 0o600, dir_fd=target)
        try:
            read = os.open(name, _READ, dir_fd=source)
            try:
                while os.sendfile(written, read, None, CHUNK):
                    pass
            finally:
                os.close(read)
            os.fchmod(written, mode)
            if self.ids is not None:
                os.fchown(written, *self.ids)
        finally:
            os.close(written)

    def _give(self, target: int, name: str) -> None:
        if self.ids is not None:
            os.chown(name, *self.ids, dir_fd=target, follow_symlinks=False)
