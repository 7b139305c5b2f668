"""Names, places and properties of a container's unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.errors import SpecError
from inclavare.linux.dbus import Variant, encode
from inclavare.linux.systemd_units import (
    INFINITY,
    annotated_properties,
    expand_slice,
    limit_properties,
    name_of,
    unit_properties,
)

NEW, OLD = 252, 239
NUMBERS = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n"


@pytest.mark.parametrize(
    ("cgroups_path", "unit", "place"),
    [
        (None, "rune-id.scope", "/system.slice/rune-id.scope"),
        ("", "rune-id.scope", "/system.slice/rune-id.scope"),
        ("system.slice:docker:1", "docker-1.scope", "/system.slice/docker-1.scope"),
        ("::1", "1.scope", "/system.slice/1.scope"),
        ("a-b.slice:cri:1", "cri-1.scope", "/a.slice/a-b.slice/cri-1.scope"),
        ("-.slice:cri:1", "cri-1.scope", "/cri-1.scope"),
        ("a.slice:cri:a-b.slice", "a-b.slice", "/a.slice/a-b.slice"),
    ],
)
def test_a_path_names_slice_and_unit(cgroups_path: str | None, unit: str, place: str) -> None:
    name = name_of(cgroups_path, "id", rootless=False)
    assert (name.unit, name.path) == (unit, place)


def test_without_root_a_unit_is_in_the_users_slice() -> None:
    assert name_of(None, "id", rootless=True).path == "/user.slice/rune-id.scope"


@pytest.mark.parametrize("cgroups_path", ["/a/b", "a", "a.slice:b", "a.slice:b:c:d", "a.slice:b:", "a.slice:b/c:d"])
def test_a_path_of_another_form_is_refused(cgroups_path: str) -> None:
    with pytest.raises(
        SpecError, match=r'linux\.cgroupsPath: expected cgroupsPath to be of format "slice:prefix:name"'
    ):
        name_of(cgroups_path, "id", rootless=False)


@pytest.mark.parametrize("name", ["a", ".slice", "-a.slice", "a-.slice", "a--b.slice", "a/b.slice", "--.slice"])
def test_a_name_that_is_no_slice_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="invalid slice name"):
        expand_slice(name)


def test_a_scope_has_processes_and_a_slice_wants_its_parent() -> None:
    scope = dict(unit_properties(name_of(None, "id", rootless=False), "id", 7, v2=True))
    assert scope["PIDs"] == Variant("au", [7])
    assert (scope["Delegate"], scope["DefaultDependencies"]) == (Variant("b", True), Variant("b", False))
    pod = dict(unit_properties(name_of("a.slice::a-b.slice", "id", rootless=False), "id", 0, v2=True))
    assert pod["Wants"] == Variant("as", ["a.slice"])
    assert not {"PIDs", "Slice", "Delegate"} & set(pod)


@pytest.mark.parametrize(
    ("settings", "properties"),
    [
        ([("memory", "memory.limit_in_bytes", "4096")], {"MemoryLimit": 4096}),
        ([("memory", "memory.limit_in_bytes", "-1")], {"MemoryLimit": INFINITY}),
        ([("memory", "memory.max", "max"), ("memory", "memory.low", "1")], {"MemoryMax": INFINITY, "MemoryLow": 1}),
        ([("memory", "memory.swap.max", "0")], {"MemorySwapMax": 0}),
        ([("cpu", "cpu.weight", "20")], {"CPUWeight": 20}),
        ([("cpu", "cpu.weight", "20"), ("cpu", "cpu.idle", "1")], {"CPUWeight": 0}),
        ([("pids", "pids.max", "max")], {"TasksMax": INFINITY}),
        ([("io", "io.weight", "default 50")], {"IOWeight": 50}),
        ([("cpu", "cpu.max", "20000 50000")], {"CPUQuotaPeriodUSec": 50000, "CPUQuotaPerSecUSec": 400_000}),
        ([("cpu", "cpu.max", "max 100000")], {"CPUQuotaPeriodUSec": 100000, "CPUQuotaPerSecUSec": INFINITY}),
        ([("cpu", "cpu.cfs_quota_us", "12345")], {"CPUQuotaPerSecUSec": 130_000}),
        ([("cpu", "cpu.cfs_quota_us", "-1")], {"CPUQuotaPerSecUSec": INFINITY}),
        ([("cpuset", "cpuset.cpus", "0-2,9")], {"AllowedCPUs": b"\x07\x02"}),
        ([("cpuset", "cpuset.mems", "0")], {"AllowedMemoryNodes": b"\x01"}),
        ([("cpuset", "cpuset.cpus", "4000000000"), ("cpuset", "cpuset.mems", "2-1")], {}),
        ([("memory", "memory.oom.group", "1")], {}),
    ],
)
def test_a_limit_is_a_property(settings: list[tuple[str, str, str]], properties: dict[str, object]) -> None:
    given_ = limit_properties(settings, NEW)
    assert {name: variant.value for name, variant in given_} == properties
    encode("a(sv)", (given_,))


def test_an_older_systemd_is_told_nothing_that_it_does_not_know() -> None:
    settings = [("cpu", "cpu.max", "20000 50000"), ("cpuset", "cpuset.cpus", "1"), ("cpu", "cpu.idle", "1")]
    assert limit_properties(settings, OLD) == [("CPUQuotaPerSecUSec", Variant("t", 400_000))]


@given(st.integers(1, 10**9), st.integers(1000, 10**6))
def test_a_quota_is_rounded_up_so_that_the_exact_one_fits(quota: int, period: int) -> None:
    found = dict(limit_properties([("cpu", "cpu.max", f"{quota} {period}")], NEW))["CPUQuotaPerSecUSec"].value
    assert found % 10_000 == 0
    assert 0 <= found - quota * 1_000_000 // period < 10_000


def test_devices_are_named_as_systemd_names_them() -> None:
    settings = [
        ("devices", "devices.deny", "a"),
        ("devices", "devices.allow", "c *:* m"),
        ("devices", "devices.allow", "b *:* m"),
        ("devices", "devices.allow", "c 1:3 rwm"),
        ("devices", "devices.allow", "c 136:* rwm"),
        ("devices", "devices.allow", "b 8:* r"),
        ("devices", "devices.allow", "c 77:* r"),
    ]
    allowed = [("char-*", "m"), ("block-*", "m"), ("/dev/char/1:3", "rwm"), ("char-pts", "rwm"), ("block-sd", "r")]
    assert limit_properties(settings, NEW, NUMBERS) == [
        ("DevicePolicy", Variant("s", "strict")),
        ("DeviceAllow", Variant("a(ss)", allowed)),
    ]


def test_denied_exceptions_leave_systemd_out() -> None:
    settings = [("devices", "devices.allow", "a"), ("devices", "devices.deny", "c 1:3 rwm")]
    assert limit_properties(settings, NEW, NUMBERS)[0] == ("DevicePolicy", Variant("s", "auto"))


def test_annotations_are_properties() -> None:
    annotations = {
        "org.systemd.property.TimeoutStopUSec": "uint64 5",
        "org.systemd.property.RuntimeMaxSec": "1.5",
        "org.systemd.property.CollectMode": "'inactive'",
        "other": "word",
    }
    assert annotated_properties(annotations) == [
        ("TimeoutStopUSec", Variant("t", 5)),
        ("RuntimeMaxUSec", Variant("t", 1_500_000)),
        ("CollectMode", Variant("s", "inactive")),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("A_b", "1"),
        ("", "1"),
        ("Ab", "1"),
        ("Name", "word"),
        ("TimeSec", "'a'"),
        ("TimeSec", "-1"),
        ("TimeSec", "true"),
    ],
)
def test_an_annotation_of_another_form_is_refused_by_its_name(name: str, text: str) -> None:
    with pytest.raises(SpecError, match=rf"annotations\.org\.systemd\.property\.{name}: "):
        annotated_properties({f"org.systemd.property.{name}": text})
