from __future__ import annotations

import pytest

from inclavare.errors import SpecError
from inclavare.oci.spec import parse
from inclavare.oci.sysctl import sysctl_file
from inclavare.oci.validate import validate
from tests.unit.oci.conftest import Document, Edited, put

OWN = [{"type": kind} for kind in ("mount", "ipc", "uts", "network")]


def with_sysctl(document: Document, name: str, *kinds: str) -> Document:
    put(document, "linux.namespaces", [entry for entry in OWN if entry["type"] in ("mount", *kinds)])
    document["linux"]["sysctl"] = {name: "1"}
    return document


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("kernel", "kernel"),
    ],
)
def test_a_parameter_has_its_file(name: str, file: str) -> None:
    assert sysctl_file(name) == file


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "/",
        "/net/x",
        ".net.x",
        "net..x",
        "net.x.",
        "net//x",
        "net/../kernel/core_pattern",
        "net.//.kernel.core_pattern",
        "net/./x",
        "net/x/",
    ],
)
def test_a_parameter_does_not_lead_elsewhere(edited_minimal: Edited, name: str) -> None:
    with pytest.raises(SpecError, match="is not the name of a kernel parameter"):
        validate(parse(with_sysctl(edited_minimal("hostname", None), name, "ipc", "uts", "network")))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("kernel.shmmax", "ipc"),
        ("kernel.sem", "ipc"),
        ("kernel/shm_rmid_forced", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("fs/mqueue/msg_max", "ipc"),
        ("net.core.somaxconn", "network"),
        ("net/ipv4/conf/eth0.1/forwarding", "network"),
    ],
)
def test_a_parameter_needs_its_namespace(minimal: Document, name: str, kind: str) -> None:
    validate(parse(with_sysctl(minimal, name, kind)))
    others = {"ipc", "uts", "network"} - {kind}
    with pytest.raises(SpecError, match=f"is not allowed in the host's {kind} namespace"):
        validate(parse(with_sysctl(minimal, name, *others)))


@pytest.mark.parametrize("name", ["kernel.core_pattern", "vm.swappiness", "kernel", "network.x", "kernel.shmmax.x"])
def test_a_parameter_of_the_host_is_refused(minimal: Document, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        validate(parse(with_sysctl(minimal, name, "ipc", "uts", "network")))
    assert caught.value.message.endswith(f'sysctl "{name}" is not in a separate kernel namespace')


def test_a_joined_network_namespace_may_be_the_host_s(minimal: Document) -> None:
    spec = parse(with_sysctl(minimal, "net.core.somaxconn", "network"))
    validate(spec)
    with pytest.raises(SpecError, match="is not allowed in the host's network namespace"):
        validate(spec, host_network=True)


def test_the_hostname_has_a_field_of_its_own(minimal: Document) -> None:
    with pytest.raises(SpecError, match='conflicts with the field "hostname"'):
        validate(parse(with_sysctl(minimal, "kernel.hostname", "uts")))
    with pytest.raises(SpecError, match="is not in a separate kernel namespace"):
        validate(parse(with_sysctl(minimal, "kernel.hostname")))


def test_a_domainname_is_set_in_one_place_only(minimal: Document) -> None:
    document = with_sysctl(minimal, "kernel.domainname", "uts")
    validate(parse(document))
    with pytest.raises(SpecError, match='conflicts with the field "domainname"'):
        validate(parse(put(document, "domainname", "station.test")))
