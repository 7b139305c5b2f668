"""Remembers compiled seccomp filters: most containers of a host share one profile.

ROOT/.bpf/HASH holds a filter, HASH being that of the profile's identity and of what compiles it. The directory is
for its owner only, files are written whole and renamed, and what does not look as we wrote it is compiled anew.
Hot path.
"""

from __future__ import annotations

import os
import stat

from inclavare import __version__, installed
from inclavare.container.process_plan import Filter
from inclavare.linux.digest import blake2b

DIRECTORY = ".bpf"
FILES_MAX = 64
MAGIC = b"RBP2"
DIGEST_SIZE = 32

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    from inclavare.container.store import Record
    from inclavare.oci.seccomp import Seccomp
    from inclavare.oci.spec import Spec


def filter_key(profile: bytes, compiler: str) -> str:
    """Give the name that the filter of a profile (its identity) has in the cache.

    `compiler` is the file of the compiler: one that was replaced does not answer for what the old one made.
    """
    status = os.stat(compiler)
    made_by = f"{__version__} {status.st_mtime_ns} {status.st_size} "
    return blake2b(made_by.encode() + profile).hex()


def cached_filter(root: str, key: str, compile_it: Callable[[], bytes]) -> bytes:
    """Give a filter from the cache, or compile and remember it."""
    directory = f"{root}/{DIRECTORY}"
    path = f"{directory}/{key}"
    found = _read(directory, path)
    if found is not None:
        return found
    code = compile_it()
    try:
        _write(directory, path, code)
    except OSError:
        return code  # a full or read-only disk costs only the time of compiling
    return code


def compile_profile(document: Spec) -> Filter | None:
    """Give the seccomp filter of a configuration, without the cache."""
    from inclavare.linux import seccomp  # noqa: PLC0415  # its tables are for profiles only

    profile = document.linux.seccomp
    if profile is None:
        return None
    return Filter(seccomp.compile_filter(profile), seccomp.filter_flags(profile), seccomp.young(profile))


def load_filter(record: Record, document: Spec) -> Filter | None:
    """Give the seccomp filter of a new container, and note which it is."""
    from inclavare.linux import seccomp  # noqa: PLC0415  # its tables are for profiles only

    profile = document.linux.seccomp
    if profile is None:
        return None
    if document.annotations.get("run.oci.seccomp_fail_unknown_syscall", "0") != "0":  # crun's
        seccomp.check_names(profile)
    record.filter = filter_key(seccomp.identity(profile), installed("linux/seccomp.py"))
    return read_filter(record, profile)


def read_filter(record: Record, profile: Seccomp) -> Filter:
    """Give the seccomp filter of a container: the one it was made with, as long as the cache has it."""
    from inclavare.linux import seccomp  # noqa: PLC0415  # its tables are for profiles only

    root = os.path.dirname(record.directory)
    code = cached_filter(root, record.filter, lambda: seccomp.compile_filter(profile))
    return Filter(code, seccomp.filter_flags(profile), seccomp.young(profile))


def find_filter(record: Record) -> bytes | None:
    """Give the code of a container's filter, if the cache has it."""
    directory = f"{os.path.dirname(record.directory)}/{DIRECTORY}"
    return _read(directory, f"{directory}/{record.filter}")


def _read(directory: str, path: str) -> bytes | None:
    try:
        status = os.lstat(directory)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            return None
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            content = os.read(fd, 1 << 16)
        finally:
            os.close(fd)
    except OSError:
        return None
    head = len(MAGIC) + DIGEST_SIZE
    code = content[head:]
    if content[:head] != MAGIC + blake2b(code) or not code or len(code) % 8:
        return None
    return code


def _write(directory: str, path: str, code: bytes) -> None:
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        names = os.listdir(directory)
        if len(names) >= FILES_MAX:
            for name in names:
                os.unlink(f"{directory}/{name}")
    temporary = f"{path}.{os.getpid()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, MAGIC + blake2b(code) + code)
    finally:
        os.close(fd)
    os.rename(temporary, path)
