from __future__ import annotations

import pytest

from inclavare.errors import SpecError, UsageError
from inclavare.oci.ids import validate_id
from inclavare.oci.spec import parse
from inclavare.oci.validate import validate
from tests.unit.oci.conftest import Document, Edited, put


def namespaces(*kinds: str) -> list[dict[str, str]]:
    return [{"type": kind} for kind in ("mount", *kinds)]


def ids(start: int, size: int) -> list[dict[str, int]]:
    return [{"containerID": start, "hostID": 100000, "size": size}]


def refusal(document: Document, *, host_network: bool = False) -> str:
    with pytest.raises(SpecError) as caught:
        validate(parse(document), host_network=host_network)
    return caught.value.message


@pytest.mark.parametrize("name", ["hostname", "domainname"])
def test_a_name_needs_a_uts_namespace(edited_minimal: Edited, name: str) -> None:
    document = edited_minimal(name, "weather")
    assert refusal(document) == f"{name}: unable to set {name} without a private UTS namespace"
    validate(parse(put(document, "linux.namespaces", namespaces("uts"))))


@pytest.mark.parametrize("member", ["uidMappings", "gidMappings"])
def test_mappings_need_a_user_namespace(edited_minimal: Edited, member: str) -> None:
    assert refusal(edited_minimal(f"linux.{member}", ids(0, 1))) == (
        f"linux.{member}: user namespace mappings specified, but there is no user namespace in linux.namespaces"
    )


@pytest.mark.parametrize(("missing", "kind"), [("uidMappings", "uid"), ("gidMappings", "gid")])
def test_a_new_user_namespace_needs_mappings(edited_minimal: Edited, missing: str, kind: str) -> None:
    document = edited_minimal("linux.namespaces", namespaces("user"))
    for member in ("uidMappings", "gidMappings"):
        put(document, f"linux.{member}", ids(0, 1))
    validate(parse(document))
    assert refusal(put(document, f"linux.{missing}")) == (
        f"linux.{missing}: user namespaces enabled, but no {kind} mappings found"
    )


def test_a_joined_user_namespace_brings_its_mappings(edited_minimal: Edited) -> None:
    joined = {"type": "user", "path": "/proc/1/ns/user"}
    validate(parse(edited_minimal("linux.namespaces", [*namespaces(), joined])))


@pytest.mark.parametrize(
    ("user", "start", "path"),
    [
        ({"uid": 0, "gid": 0}, 1, "linux.uidMappings: uid 0"),
        ({"uid": 100, "gid": 0}, 0, "process.user.uid: uid 100"),
        ({"uid": 0, "gid": 100}, 0, "process.user.gid: gid 100"),
        ({"uid": 0, "gid": 0, "additionalGids": [5, 100]}, 0, "process.user.additionalGids[1]: gid 100"),
    ],
)
def test_ids_must_be_mapped(edited_minimal: Edited, user: dict[str, object], start: int, path: str) -> None:
    document = edited_minimal("linux.namespaces", namespaces("user"))
    put(document, "process.user", user)
    for member in ("uidMappings", "gidMappings"):
        put(document, f"linux.{member}", ids(start, 100))
    assert refusal(document) == f"{path} has no mapping in the user namespace"


def test_a_mapping_may_reach_the_last_id(edited_minimal: Edited) -> None:
    every = [{"containerID": 0, "hostID": 0, "size": 2**32 - 1}]
    assert parse(edited_minimal("linux.uidMappings", every)).linux.uid_mappings[0].size == 2**32 - 1
    too_far = [{"containerID": 0, "hostID": 1, "size": 2**32 - 1}]
    with pytest.raises(SpecError, match="4294967295 ids from hostID 1 on go beyond the last id 4294967294"):
        parse(edited_minimal("linux.uidMappings", too_far))


@pytest.mark.parametrize("path", ["../x", "/a/..", "a/../../b", ".."])
def test_a_cgroup_path_does_not_lead_up(edited_minimal: Edited, path: str) -> None:
    assert refusal(edited_minimal("linux.cgroupsPath", path)).startswith("linux.cgroupsPath: ")


@pytest.mark.parametrize("path", ["/docker/abc", "a..b", "system.slice:docker:abc"])
def test_other_cgroup_paths_are_accepted(edited_minimal: Edited, path: str) -> None:
    validate(parse(edited_minimal("linux.cgroupsPath", path)))


def test_memory_and_swap_are_not_less_than_memory(edited_minimal: Edited) -> None:
    assert refusal(edited_minimal("linux.resources.memory", {"limit": 100, "swap": 99})) == (
        "linux.resources.memory.swap: memory and swap together (99) cannot be less than the memory limit (100)"
    )


@pytest.mark.parametrize("swap", [-1, 0, 100])
def test_swap_may_be_unlimited_unset_or_none(edited_minimal: Edited, swap: int) -> None:
    validate(parse(edited_minimal("linux.resources.memory", {"limit": 100, "swap": swap})))


def test_a_burst_is_not_larger_than_the_quota(edited_minimal: Edited) -> None:
    assert refusal(edited_minimal("linux.resources.cpu", {"quota": 100, "burst": 101})).startswith(
        "linux.resources.cpu.burst: 101 must not be larger than the quota of 100"
    )
    validate(parse(edited_minimal("linux.resources.cpu", {"quota": -1, "burst": 101})))


def test_what_is_not_supported_breaks_a_rule_too(edited_minimal: Edited) -> None:
    document = edited_minimal("linux.intelRdt", {"closID": "x"})
    assert refusal(document) == "linux.intelRdt: is not supported yet"


@pytest.mark.parametrize("container_id", ["a", "A-9_b.c+d", "a..", "-", "x" * 255])
def test_ids_of_containers_are_accepted(container_id: str) -> None:
    validate_id(container_id)


@pytest.mark.parametrize(
    "container_id",
    ["", ".", "..", "a/b", "a b", "a\n", "é", "a\0", "\u0661", "a:b", "a,b", "/", "x" * 256, "\udc80", "...", ".a"],
)
def test_other_ids_are_refused(container_id: str) -> None:
    with pytest.raises(UsageError, match=r"^invalid container ID format: "):
        validate_id(container_id)


def test_a_personality_has_a_domain_and_no_flags(edited_minimal: Edited) -> None:
    assert refusal(edited_minimal("linux.personality", {"flags": []})) == (
        "linux.personality.domain: is required, one of LINUX, LINUX32"
    )
    assert refusal(edited_minimal("linux.personality", {"domain": "BSD"})) == (
        'linux.personality.domain: "BSD" is not one of LINUX, LINUX32'
    )
    assert refusal(edited_minimal("linux.personality", {"domain": "LINUX", "flags": ["x"]})) == (
        "linux.personality.flags: the runtime-spec has no flags yet"
    )
