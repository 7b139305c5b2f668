"""Files in a container's root filesystem, touched from the host.

What is in there was made by whoever made the image. So a path is resolved by the kernel with that filesystem as its
root (openat2(2), RESOLVE_IN_ROOT), everything below is reached by directory descriptors and without following links,
only regular files are read, and nothing is ever executed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import struct
from collections.abc import Iterator, Mapping

from inclavare.carriers.job import Job, undisturbed
from inclavare.errors import EnclaveError
from inclavare.linux.calls import SYS_OPENAT2
from inclavare.linux.headers import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS

FILE_MAX = 1 << 30  # of what is read whole
DEPTH_MAX = 200
CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


def open_in_root(root: int, path: str, flags: int) -> int:
    """Open `path` as a process would whose root directory is `root`. Raises OSError."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    fd: int = _libc.syscall(SYS_OPENAT2, root, os.fsencode(path), how, len(how))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


@contextlib.contextmanager
def open_root(path: str) -> Iterator[int]:
    """Give a descriptor of a root filesystem on the host."""
    fd = os.open(path, _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def work_directory(job: Job, root: int, *, make: bool = True) -> Iterator[int]:
    """Give a descriptor of the container's process.cwd; with `make`, directories that are missing are made.

    Raises EnclaveError for what is no directory, or what a mount of the container's will hide.
    """
    path = job.work_directory
    mounts = _mount_points(job, root)
    current = os.dup(root)
    try:
        so_far = "/"
        for name in filter(None, path.split("/")):
            so_far = f"{so_far}{name}/"
            _require_visible(path, so_far, mounts)
            try:
                current = _replace(current, open_in_root(root, so_far, _DIRECTORY))
            except FileNotFoundError:
                if not make:
                    raise
                _make_directory(job, current, name)
                current = _replace(current, open_in_root(root, so_far, _DIRECTORY))
            _require_visible(path, _identity(current), mounts)
    except EnclaveError:
        os.close(current)
        raise
    except OSError as error:
        os.close(current)
        raise EnclaveError(
            f"process.cwd {path} is no directory of the image where an enclave can be: {so_far}: {error.strerror}",
            "Choose a working directory of its own for the enclave, such as /run/rune.",
        ) from error
    try:
        yield current
    finally:
        os.close(current)


def place_file(job: Job, directory: int, name: str, content: bytes) -> None:
    """Write a file that everybody may read, in place of what was there, owned by the directory's owner."""
    clear_place(job, directory, name)
    fd = os.open(name, _CREATE, 0o600, dir_fd=directory)
    with open(fd, "wb") as file:
        file.write(content)
        os.fchmod(fd, 0o644)
        os.fchown(fd, *owner(directory))


def read_file(directory: int, name: str, size_max: int = FILE_MAX) -> bytes:
    """Give the content of a regular file. Raises EnclaveError for another kind, or one that is larger; OSError."""
    fd = os.open(name, _READ, dir_fd=directory)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise EnclaveError(f"{name} in the working directory is not a regular file")
        content = file.read(size_max + 1)
    if len(content) > size_max:
        raise EnclaveError(f"{name} in the working directory has more than {size_max} bytes")
    return content


def _mount_points(job: Job, root: int) -> dict[str | tuple[int, int], str]:
    """Give the destinations of the container's mounts, by their paths and by their directories where there are some."""
    found: dict[str | tuple[int, int], str] = {}
    for mount in job.configuration.get("mounts") or []:
        destination = str(mount.get("destination", "")) if isinstance(mount, dict) else ""
        found[f"{os.path.normpath(destination)}/"] = destination
        with contextlib.suppress(OSError):
            fd = open_in_root(root, destination, os.O_PATH)
            found[_identity(fd)] = destination
            os.close(fd)
    return found


def _require_visible(path: str, place: str | tuple[int, int], mounts: Mapping[str | tuple[int, int], str]) -> None:
    if place in mounts:
        raise EnclaveError(
            f"process.cwd {path} is below {mounts[place]}, where the container has something else mounted",
            "Choose a working directory of the image; `ctr run` mounts on /run, so there /opt/rune will do.",
        )


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new


def _make_directory(job: Job, parent: int, name: str) -> None:
    held = _hold(job, parent)
    with undisturbed():
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:  # a link that leads nowhere
            raise OSError(errno.ENOTDIR, "a link to nowhere", name) from None
        job.undo.append(lambda: os.rmdir(name, dir_fd=held))
    os.chown(name, *owner(parent), dir_fd=parent, follow_symlinks=False)


def clear_place(job: Job, directory: int, name: str) -> None:
    """Remove what has that name, and see to it that what will have it is removed after a failure."""
    remove(directory, name)
    held = _hold(job, directory)
    job.undo.append(lambda: remove(held, name))


def remove(directory: int, name: str) -> None:
    """Remove a file or a tree, if it is there. Follows no links."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            shutil.rmtree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)


def _hold(job: Job, fd: int) -> int:
    """Keep a directory reachable until the job ends."""
    held = os.dup(fd)
    job.always.append(lambda: os.close(held))
    return held


def owner(directory: int) -> tuple[int, int]:
    """Give user and group of an open directory."""
    status = os.fstat(directory)
    return status.st_uid, status.st_gid
