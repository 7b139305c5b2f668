"""Where a container's control groups are, from what /proc says of a host."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.errors import HostError, InclavareError
from inclavare.linux import cgroups
from inclavare.linux.cgroups import Layout, parse_layout, paths_for

HYBRID_MOUNTS = """\
23 1 8:1 / / rw,relatime - ext4 /dev/vda1 rw
31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
HYBRID_OWN = "4:memory:/daemon\n2:cpu,cpuacct:/\n1:name=systemd:/session\n0::/session\n"
V2_MOUNTS = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V2_OWN = "0::/user.slice/session.scope\n"


def directories(layout: Layout) -> dict[str, tuple[str, str]]:
    return {name: (one.mount_point, one.own) for name, one in layout.hierarchies.items()}


def test_a_hybrid_host_has_its_v1_hierarchies() -> None:
    layout = parse_layout(HYBRID_MOUNTS, HYBRID_OWN)
    assert not layout.is_v2
    assert directories(layout) == {
        "cpu,cpuacct": ("/sys/fs/cgroup/cpu,cpuacct", "/"),
        "memory": ("/sys/fs/cgroup/memory", "/daemon"),
        "name=systemd": ("/sys/fs/cgroup/systemd", "/session"),
    }


def test_a_unified_host_has_one_hierarchy() -> None:
    layout = parse_layout(V2_MOUNTS, V2_OWN)
    assert layout.is_v2
    assert directories(layout) == {"unified": ("/sys/fs/cgroup", "/user.slice/session.scope")}


def test_a_v1_hierarchy_without_controllers_beside_the_unified_one_does_not_count() -> None:
    mounts = V2_MOUNTS + "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
    assert parse_layout(mounts, V2_OWN + "1:name=systemd:/\n").is_v2


def test_controllers_in_another_order_are_the_same_hierarchy() -> None:
    mounts = "32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpuacct,cpu\n"
    assert directories(parse_layout(mounts, "2:cpu,cpuacct:/a\n")) == {"cpu,cpuacct": ("/cg/cpu", "/a")}


def test_the_first_of_several_mounts_counts() -> None:
    mounts = V2_MOUNTS + "60 23 0:28 / /mnt/again rw - cgroup2 none rw\n"
    assert directories(parse_layout(mounts, "0::/\n")) == {"unified": ("/sys/fs/cgroup", "/")}


@pytest.mark.parametrize(
    ("root", "own", "inside"),
    [
        ("/", "/docker/abc", "/docker/abc"),
        ("/docker/abc", "/docker/abc", "/"),
        ("/docker/abc", "/docker/abc/inner", "/inner"),
        ("/docker/abc", "/elsewhere", "/"),
        ("/docker/abc", "/docker/abcdef", "/"),
        ("/docker/a\\040b", "/docker/a b/inner", "/inner"),
        ("/../..", "/", "/"),
        ("/", "/../neighbour", "/"),
    ],
)
def test_our_own_group_is_seen_from_the_mounts_root(root: str, own: str, inside: str) -> None:
    """In a container whose cgroup mount shows only its own part of the hierarchy."""
    mounts = f"31 23 0:28 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    assert directories(parse_layout(mounts, f"0::{own}\n"))["unified"] == ("/sys/fs/cgroup", inside)


@pytest.mark.parametrize("kind", ["a b", "a\tb", "a\nb", "a\\b"])
def test_escaped_mount_points_are_read(kind: str) -> None:
    escaped = kind.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    mounts = f"31 23 0:28 / /{escaped} rw - cgroup2 cgroup2 rw\n"
    assert directories(parse_layout(mounts, "0::/\n"))["unified"] == (f"/{kind}", "/")


def test_a_host_without_a_hierarchy_is_an_error() -> None:
    with pytest.raises(HostError, match="no cgroup hierarchy is mounted") as caught:
        parse_layout("23 1 8:1 / / rw - ext4 /dev/vda1 rw\n", "0::/\n")
    assert "mount -t cgroup2" in caught.value.hint


WORDS = st.text("ab/.-\\\\040é", min_size=1)
OPTIONS = st.lists(st.sampled_from(["rw", "xattr", "cpu", "cpuacct", "memory", "name=systemd", "name=a"])).map(",".join)
MOUNTS = st.lists(st.tuples(WORDS, WORDS, st.sampled_from(["cgroup", "cgroup2", "tmpfs", "ext4"]), OPTIONS))
OWN = st.lists(st.tuples(st.sampled_from(["", "cpu,cpuacct", "memory", "name=systemd", "name=a"]), WORDS))


@given(mounts=MOUNTS, own=OWN)
def test_whatever_the_kernel_lists_gives_a_layout_or_our_error(
    mounts: list[tuple[str, str, str, str]], own: list[tuple[str, str]]
) -> None:
    mountinfo = [f"1 2 0:3 {root} /{at} rw shared:1 - {kind} none rw,{options}" for root, at, kind, options in mounts]
    lines = [f"{number}:{names}:/{path}" for number, (names, path) in enumerate(own)]
    try:
        layout = parse_layout("\n".join(mountinfo), "\n".join(lines))
    except InclavareError:
        return
    assert layout.hierarchies
    paths = paths_for(layout, "/x", "id")
    assert all(path.endswith("/x") for path in paths.values())


@given(mounts=st.text(), own=st.text())
def test_any_text_gives_a_layout_or_our_error(mounts: str, own: str) -> None:
    for mountinfo in (mounts, f"{mounts} - cgroup2 cgroup2 rw", f"{mounts} - cgroup {own} rw,cpu\n{mounts}"):
        try:
            assert parse_layout(mountinfo, own).hierarchies
        except HostError:
            continue


@pytest.mark.parametrize(
    ("cgroups_path", "memory", "systemd"),
    [
        ("/a/b", "/a/b", "/a/b"),
        ("a/b", "/daemon/a/b", "/session/a/b"),
        (None, "/daemon/id", "/session/id"),
        ("", "/daemon/id", "/session/id"),
        ("/a//b/", "/a/b", "/a/b"),
        ("/../../../etc", "/etc", "/etc"),
        ("../../../../etc", "/etc", "/etc"),
        ("/", "", ""),
    ],
)
def test_absolute_paths_begin_at_the_mount_and_others_at_our_group_and_none_leaves_it(
    cgroups_path: str | None, memory: str, systemd: str
) -> None:
    paths = paths_for(parse_layout(HYBRID_MOUNTS, HYBRID_OWN), cgroups_path, "id")
    assert paths["memory"] == f"/sys/fs/cgroup/memory{memory}"
    assert paths["name=systemd"] == f"/sys/fs/cgroup/systemd{systemd}"


def test_hierarchies_have_the_names_that_a_container_sees() -> None:
    layout = parse_layout(HYBRID_MOUNTS, HYBRID_OWN)
    names = [name for name, _ in cgroups.hierarchies(layout, paths_for(layout, "/c", "id"))]
    assert names == ["cpu,cpuacct", "memory", "systemd"]


def test_a_limit_without_its_controller_is_an_error() -> None:
    with pytest.raises(HostError, match=r"cannot set pids.max: the host has no pids cgroup controller"):
        cgroups.apply({"memory": "/sys/fs/cgroup/memory/c"}, [("pids", "pids.max", "5")])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cannot write '5' to .*/pids.max: No such file or directory"):
        cgroups.apply({"cpu,pids": str(tmp_path)}, [("pids", "pids.max", "5")])


def test_removing_what_is_gone_is_fine(tmp_path: Path) -> None:
    cgroups.remove({"memory": str(tmp_path / "gone")})


def test_a_container_without_a_freezer_is_not_frozen(tmp_path: Path) -> None:
    assert not cgroups.is_frozen({"memory": str(tmp_path)})
