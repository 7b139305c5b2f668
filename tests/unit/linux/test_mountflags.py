"""Mount options: what the kernel gets for the runtime-spec's words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.errors import SpecError
from inclavare.linux import headers as k
from inclavare.linux.mountflags import PROPAGATION, MountFlags, attributes, parse

# config-linux.md "Linux mount options", but for those that are refused.
OF_THE_SPEC = (
    *("async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec", "iversion", "lazytime", "loud"),
    *("mand", "noatime", "nodev", "nodiratime", "noexec", "noiversion", "nolazytime", "nomand", "norelatime"),
    *("nostrictatime", "nosuid", "nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime", "relatime", "rexec"),
    *("rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnorelatime", "rnostrictatime", "rnosuid", "rnosymfollow"),
    *("ro", "rprivate", "rrelatime", "rro", "rrw", "rshared", "rslave", "rstrictatime", "rsuid", "rsymfollow"),
    *("runbindable", "rw", "shared", "silent", "slave", "strictatime", "suid", "symfollow", "sync", "unbindable"),
)
RECURSIVE = [word for word in OF_THE_SPEC if word[0] == "r" and word[1:] in OF_THE_SPEC and word not in PROPAGATION]
RECURSIVE.remove("rbind")


def read(*options: str, bind: bool = False) -> MountFlags:
    return parse(list(options), bind=bind, path="mounts[0].options")


@pytest.mark.parametrize("option", OF_THE_SPEC)
def test_every_option_of_the_spec_is_one_of_the_kernel(option: str) -> None:
    for bind in (True, False):
        assert read(option, bind=bind).data == ""


@pytest.mark.parametrize(
    ("option", "flag", "attribute"),
    [
        ("ro", k.MS_RDONLY, k.MOUNT_ATTR_RDONLY),
        ("nosuid", k.MS_NOSUID, k.MOUNT_ATTR_NOSUID),
        ("nodev", k.MS_NODEV, k.MOUNT_ATTR_NODEV),
        ("noexec", k.MS_NOEXEC, k.MOUNT_ATTR_NOEXEC),
        ("nodiratime", k.MS_NODIRATIME, k.MOUNT_ATTR_NODIRATIME),
        ("nosymfollow", k.MS_NOSYMFOLLOW, k.MOUNT_ATTR_NOSYMFOLLOW),
        ("noatime", k.MS_NOATIME, k.MOUNT_ATTR_NOATIME),
        ("strictatime", k.MS_STRICTATIME, k.MOUNT_ATTR_STRICTATIME),
        ("relatime", k.MS_RELATIME, k.MOUNT_ATTR_RELATIME),
        ("sync", k.MS_SYNCHRONOUS, 0),  # of the filesystem, not of a mount
        ("dirsync", k.MS_DIRSYNC, 0),
        ("mand", k.MS_MANDLOCK, 0),
        ("lazytime", k.MS_LAZYTIME, 0),
        ("iversion", k.MS_I_VERSION, 0),
        ("silent", k.MS_SILENT, 0),
    ],
)
def test_an_option_sets_its_flag(option: str, flag: int, attribute: int) -> None:
    found = read(option)
    assert found.set == flag
    assert not found.clear & flag
    assert attributes(found.set) == attribute


@pytest.mark.parametrize(
    ("option", "opposite"),
    [
        ("ro", "rw"),
        ("nosuid", "suid"),
        ("nodev", "dev"),
        ("noexec", "exec"),
        ("nodiratime", "diratime"),
        ("nosymfollow", "symfollow"),
        ("noatime", "atime"),
        ("strictatime", "nostrictatime"),
        ("relatime", "norelatime"),
        ("sync", "async"),
        ("mand", "nomand"),
        ("lazytime", "nolazytime"),
        ("iversion", "noiversion"),
        ("silent", "loud"),
    ],
)
def test_of_two_opposites_the_later_wins(option: str, opposite: str) -> None:
    flag = read(option).set
    assert (read(option, opposite).set, read(option, opposite).clear & flag) == (0, flag)
    assert (read(opposite, option).set, read(opposite, option).clear & flag) == (flag, 0)


@pytest.mark.parametrize("first", ["noatime", "relatime", "strictatime"])
@pytest.mark.parametrize("last", ["noatime", "relatime", "strictatime"])
def test_of_the_ways_to_keep_access_times_the_last_stays_alone(first: str, last: str) -> None:
    assert read(first, last).set == read(last).set
    assert read(f"r{first}", f"r{last}").recursive_set == read(f"r{last}").recursive_set


def test_recursive_options_are_about_the_whole_tree_and_nothing_else() -> None:
    assert len(RECURSIVE) == 18
    for option in RECURSIVE:
        found = read(option, bind=True)
        assert (found.set, found.clear, found.propagation) == (0, 0, [])


@pytest.mark.parametrize(
    ("options", "set_", "clear"),
    [
        (["rro"], k.MOUNT_ATTR_RDONLY, 0),
        (["rro", "rrw"], 0, k.MOUNT_ATTR_RDONLY),
        (["rnosuid", "rnodev", "rnoexec"], k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC, 0),
        (["rnoatime"], k.MOUNT_ATTR_NOATIME, k.MOUNT_ATTR__ATIME),
        (["rstrictatime", "ratime"], 0, k.MOUNT_ATTR__ATIME),
        (["rnorelatime"], 0, 0),
    ],
)
def test_recursive_options_set_and_clear_attributes(options: list[str], set_: int, clear: int) -> None:
    found = read(*options, bind=True)
    assert (found.recursive_set, found.recursive_clear) == (set_, clear)


@given(options=st.lists(st.sampled_from(OF_THE_SPEC)))
def test_any_options_give_what_mount_setattr_takes(options: list[str]) -> None:
    """Of the choice of atime it takes the whole mask to clear, and to set one of three values (mount_setattr(2))."""
    found = read(*options, bind=True)
    cleared = found.recursive_clear & k.MOUNT_ATTR__ATIME
    assert cleared in (0, k.MOUNT_ATTR__ATIME)
    assert not found.recursive_set & ~cleared & k.MOUNT_ATTR__ATIME
    for value in (found.recursive_set, attributes(found.set)):
        assert value & k.MOUNT_ATTR__ATIME in (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR_NOATIME, k.MOUNT_ATTR_STRICTATIME)
    assert not found.set & found.clear


def test_propagation_is_applied_in_its_order() -> None:
    assert read("rslave", "shared").propagation == [k.MS_SLAVE | k.MS_REC, k.MS_SHARED]


def test_other_words_are_the_filesystems() -> None:
    assert read("nosuid", "size=64k", "mode=755", "", "ro").data == "size=64k,mode=755"


def test_a_bind_mount_has_no_filesystem_to_take_them() -> None:
    with pytest.raises(SpecError, match="a bind mount has no option 'size=64k'") as caught:
        read("rbind", "size=64k", bind=True)
    assert caught.value.path == "mounts[0].options[1]"


def test_a_tmpfs_may_begin_with_what_it_hides() -> None:
    assert read("tmpcopyup").copy_up
    assert not read("ro").copy_up


@given(options=st.lists(st.text()), bind=st.booleans())
def test_any_words_are_read_or_refused(options: list[str], bind: bool) -> None:
    try:
        read(*options, bind=bind)
    except SpecError:
        return
