"""The cache of carriers: what is kept, for how long, and what becomes of it when somebody is killed or damages it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.carriers import tree
from inclavare.carriers.cache import Cache, key
from inclavare.carriers.job import Job
from inclavare.enclave.hostconfig import HostConfig
from inclavare.errors import EnclaveError, HostError, InterruptError
from inclavare.log import Log

KIB = bytes(1024)


class Caches:
    """A cache's directory; each `get` is that of another job."""

    def __init__(self, directory: Path, log: Path) -> None:
        self.directory = directory
        self.size = 1 << 20
        self.built: list[str] = []
        self._log = log

    def cache(self) -> Cache:
        settings = HostConfig()
        settings.cache_directory, settings.cache_size = str(self.directory), self.size
        job = Job("test", "/none", {}, settings, {}, Log(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)))
        return Cache(job)

    def get(self, name: str, content: bytes = b"content", during: Callable[[], object] = bool) -> bytes:
        """Return what the cache has for a name, which is built of `content` where it is not there."""

        def build(path: str) -> None:
            self.built.append(name)
            Path(path, "inner").mkdir(mode=0o555)
            Path(path, "inner/file").write_bytes(content)
            Path(path, "link").symlink_to("inner/file")

        with self.cache().held(name, key(name), build) as path:
            during()
            return Path(path, "link").read_bytes()

    def entries(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "entries").iterdir())

    def rest(self) -> list[Path]:
        """Return what is there beside entries and their locks."""
        locks = [path for path in (self.directory / "locks").iterdir() if path.name not in self.entries()]
        return [*(self.directory / "building").iterdir(), *locks]

    def age(self, name: str, seconds: int) -> None:
        manifest = self.directory / "entries" / key(name) / "manifest"
        time = manifest.stat().st_mtime - seconds
        os.utime(manifest, (time, time))


@pytest.fixture
def caches(tmp_path: Path) -> Caches:
    return Caches(tmp_path / "var/cache", tmp_path / "log")


def test_what_was_built_once_is_there_and_nobody_elses(caches: Caches) -> None:
    assert [caches.get("a"), caches.get("a", b"other")] == [b"content", b"content"]
    assert caches.built == ["a"]
    assert not caches.rest()
    for path in (caches.directory, *caches.directory.iterdir(), *(caches.directory / "entries").iterdir()):
        assert path.stat().st_mode & 0o777 == 0o700


def test_keys_tell_parts_apart() -> None:
    keys = [key("a", "b"), key("ab"), key("a", "", "b"), key("b", "a"), key("a\0b")]
    assert len({*keys}) == len(keys)
    assert all(len(name) == 64 for name in keys)


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "tree/inner/file").write_bytes(b"c0ntent"),
        lambda entry: (entry / "tree/inner/file").chmod(0o755),
        lambda entry: (entry / "tree/link").unlink(),
        lambda entry: (entry / "tree/more").touch(),
        lambda entry: shutil.rmtree(entry / "tree"),
        lambda entry: (entry / "manifest").unlink(),
        lambda entry: (entry / "manifest").write_text("00 1\n"),
        lambda entry: (entry / "manifest").write_bytes(b"\xff" * 100),
    ],
)
def test_a_damaged_entry_is_built_anew(caches: Caches, damage: Callable[[Path], object]) -> None:
    caches.get("a")
    damage(caches.directory / "entries" / key("a"))
    assert caches.get("a") == b"content"
    assert caches.built == ["a", "a"]
    assert caches.get("a") == b"content"
    assert caches.built == ["a", "a"]
    assert not caches.rest()


def test_what_was_used_longest_ago_goes_first(caches: Caches) -> None:
    caches.size = 3 * 1024
    for age, name in enumerate("abc"):
        caches.get(name, KIB)
        caches.age(name, 100 - age)
    caches.get("a", KIB)  # used again
    caches.get("d", KIB)
    assert caches.entries() == sorted(map(key, "acd"))
    assert not caches.rest()


def test_what_is_in_use_stays(caches: Caches) -> None:
    caches.size = 1024

    def meanwhile() -> None:
        caches.get("b", KIB)
        assert key("a") in caches.entries()

    assert caches.get("a", KIB, meanwhile) == KIB
    caches.get("c", KIB)
    assert caches.entries() == [key("c")]


def test_what_is_too_large_is_built_and_not_kept(caches: Caches) -> None:
    caches.size = 1000
    assert caches.get("a", KIB) == KIB
    assert caches.entries() == []
    assert not caches.rest()


def test_without_a_limit_above_zero_nothing_is_kept_or_waited_for(caches: Caches) -> None:
    caches.size = 0
    assert caches.get("a", KIB, lambda: caches.get("a", KIB)) == KIB
    assert caches.built == ["a", "a"]
    assert caches.entries() == []
    assert not caches.rest()


def test_a_failure_leaves_nothing(caches: Caches) -> None:
    def build(path: str) -> None:
        Path(path, "half").touch()
        raise InterruptError(15)

    with pytest.raises(InterruptError), caches.cache().held("a", key("a"), build):
        pass
    assert caches.entries() == []
    assert not caches.rest()


def test_a_failure_of_who_uses_it_leaves_the_entry(caches: Caches) -> None:
    def fail() -> None:
        raise EnclaveError("no room")

    for _ in range(2):
        with pytest.raises(EnclaveError):
            caches.get("a", during=fail)
    assert caches.built == ["a"]
    assert not caches.rest()


def test_what_somebody_has_left_who_was_killed_is_removed(caches: Caches) -> None:
    caches.get("a")
    code = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1] + '/locks/b', os.O_CREAT | os.O_RDWR)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX); os.makedirs(sys.argv[1] + '/building/b/tree/x'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, caches.directory], check=False).returncode == -9
    assert caches.rest()
    caches.get("c")
    assert not caches.rest()


def test_many_at_once_build_each_thing_once(caches: Caches) -> None:
    names = "abcd" * 8
    threads = [threading.Thread(target=caches.get, args=(name, name.encode() * 1000)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(caches.built) == sorted("abcd")
    assert not caches.rest()


def test_many_at_once_in_a_cache_that_is_too_small_get_what_they_want(caches: Caches) -> None:
    caches.size = 2500
    wrong: list[str] = []

    def want(name: str) -> None:
        content = name.encode() * 1000
        wrong.extend(name for _ in range(10) if caches.get(name, content) != content)

    threads = [threading.Thread(target=want, args=(name,)) for name in "abcd" * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    caches.get("e")
    assert len(caches.entries()) <= 3
    assert not caches.rest()


def test_a_lock_whose_file_was_removed_meanwhile_is_none(caches: Caches) -> None:
    caches.get("a")
    lock = caches.directory / "locks" / key("a")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = threading.Thread(target=caches.get, args=("a",))
        waiting.start()
        while not _waits_for(lock):
            pass
        shutil.rmtree(caches.directory / "entries" / key("a"))
        lock.unlink()
    waiting.join(20)
    assert caches.built == ["a", "a"]
    assert lock.exists()


def _waits_for(lock: Path) -> bool:
    inode = f":{lock.stat().st_ino} "
    return any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


def test_a_directory_that_others_can_change_is_refused(caches: Caches, tmp_path: Path) -> None:
    caches.get("a")
    caches.directory.chmod(0o770)
    with pytest.raises(HostError, match="others can change the cache"):
        caches.get("a")
    caches.directory.chmod(0o700)
    (caches.directory / "building").rmdir()
    (caches.directory / "building").symlink_to(tmp_path)
    with pytest.raises(HostError, match="or it is no directory"):
        caches.get("a")
    caches.directory = tmp_path / "log/cache"
    with pytest.raises(HostError, match="cannot make the cache"):
        caches.get("a")


# --- trees ------------------------------------------------------------------------------------------------------------

names = st.text("ab.é\udcff", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
trees = st.recursive(
    st.binary(max_size=5) | st.text("ab/.", min_size=1, max_size=5),
    lambda inner: st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)


def make(path: Path, value: object) -> None:
    """Make a directory of a dict, a file of bytes, a link of a text."""
    if isinstance(value, dict):
        path.mkdir()
        for name, inner in value.items():
            make(path / name, inner)
    elif isinstance(value, bytes):
        path.write_bytes(value)
    else:
        path.symlink_to(str(value))


def digest(path: Path) -> tree.Digest:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return tree.digest(fd)
    finally:
        os.close(fd)


@given(st.dictionaries(names, trees, max_size=4), st.dictionaries(names, trees, max_size=4))
def test_a_copy_has_the_digest_of_its_original_and_another_tree_has_another(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, object], second: dict[str, object]
) -> None:
    place = tmp_path_factory.mktemp("trees")
    for name, value in (("first", first), ("second", second), ("copy", {})):
        make(place / name, value)
    source, target = (os.open(place / name, os.O_RDONLY | os.O_DIRECTORY) for name in ("first", "copy"))
    tree.copy(source, target)
    os.close(source)
    os.close(target)
    assert digest(place / "copy") == digest(place / "first")
    assert (digest(place / "second") == digest(place / "first")) is (first == second)
    shutil.rmtree(place)


def test_a_tree_without_end_is_refused(tmp_path: Path) -> None:
    fd = top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(300):
        os.mkdir("d", dir_fd=fd)
        fd = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    with pytest.raises(EnclaveError, match="more than 200 directories deep"):
        tree.digest(top)
