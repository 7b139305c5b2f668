"""runectl doctor on what the administrator's file says of carriers, signatures and the cache."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from inclavare.doctor.carriers import examine_carriers
from inclavare.doctor.host import Host
from inclavare.enclave.hostconfig import HostConfig
from tests.unit.doctor.conftest import HostTree

CONFIG = "etc/inclavare-containers/config.toml"
PAL = "enclave_runtime.occlum.enclave_runtime_path"
LIBOS = "enclave_runtime.occlum.enclave_libos_path"
OCCLUM = "[enclave_runtime]\ncarrier = 'occlum'\n"


def carriers(host: HostTree) -> dict[str, dict[str, Any]]:
    findings = host.doctor("--platform", "emulated")[1]["findings"]
    return {entry["subject"]: entry for entry in findings if entry["area"] == "carriers"}


def test_without_a_carrier_nothing_is_needed(host: HostTree) -> None:
    found = carriers(host)
    assert list(found) == ["carrier"]
    assert (found["carrier"]["state"], found["carrier"]["found"]) == (
        "ok",
        "none, unless a container asks for one by RUNE_CARRIER",
    )


def test_what_the_default_carrier_needs_is_a_lack(host: HostTree) -> None:
    host.write(CONFIG, OCCLUM)
    found = carriers(host)
    for subject in (PAL, LIBOS, "occlum", "sgx_tool_sign", "signature"):
        assert found[subject]["state"] == "lack", subject
        assert found[subject]["needed_for"] == ["enclaves"]
        assert found[subject]["advice"]
    assert found["signature"]["found"] == "nobody signs enclaves"
    assert host.doctor("--platform", "emulated")[0] == 3


@pytest.mark.parametrize("occlum", ["opt/occlum/build/bin/occlum", "usr/bin/occlum"])
def test_what_is_there_is_well(host: HostTree, occlum: str) -> None:
    host.write(CONFIG, '[sgx]\nplatform = "emulated"\n[signature]\nthrow_away_key = true\n' + OCCLUM)
    for path in (HostConfig.occlum_pal, HostConfig.occlum_libos, HostConfig.sgx_tool_sign):
        host.write(path.lstrip("/"), "")
    host.write(occlum, "")
    found = carriers(host)
    assert found["occlum"]["found"] == f"/{occlum}"
    assert {entry["state"] for entry in found.values()} == {"ok", "note"}
    assert found["carrier"]["found"] == "occlum, unless a container asks for another"
    assert found["signature"]["found"] == "a key that is thrown away: for the software platform alone"
    assert host.doctor("--platform", "emulated")[0] == 0


def test_images_that_are_signed_need_no_signer(host: HostTree) -> None:
    host.write(CONFIG, OCCLUM + "signature_method = 'client'\n")
    assert not {"occlum", "signature", "sgx_tool_sign"} & set(carriers(host))


def test_a_library_that_others_can_change_is_not_loaded(host: HostTree) -> None:
    host.write(CONFIG, OCCLUM)
    host.write(HostConfig.occlum_pal.lstrip("/"), "").chmod(0o666)
    assert "others than its owner can write it" in carriers(host)[PAL]["found"]


def test_a_path_for_a_carrier_that_is_not_the_default_is_looked_at_when_it_is_set(host: HostTree) -> None:
    host.write(CONFIG, "[enclave_runtime.skeleton]\nenclave_path = '/opt/encl.bin'\n")
    found = carriers(host)
    assert list(found) == ["carrier", "enclave_runtime.skeleton.enclave_path"]
    assert found["enclave_runtime.skeleton.enclave_path"]["state"] == "warning"
    host.write("opt/encl.bin", "")
    assert carriers(host)["enclave_runtime.skeleton.enclave_path"]["state"] == "ok"


def test_a_throw_away_key_on_hardware_is_refused_with_the_file(host: HostTree) -> None:
    host.write(CONFIG, "[signature]\nthrow_away_key = true\n")
    finding = host.finding(f"/{CONFIG}")
    assert finding["state"] == "lack"
    assert "line 2: signature.throw_away_key" in finding["found"]


def test_files_for_the_server_are_looked_at(host: HostTree) -> None:
    host.write(
        CONFIG, "[signature]\nserver_address = 'https://signer.example'\nca_file = '/ca.pem'\ntoken_file = '/token'\n"
    )
    found = carriers(host)
    assert found["signature.ca_file"]["found"] == "/ca.pem is not there"
    assert found["signature.token_file"]["found"] == "/token is not there"
    assert found["signature server"]["state"] == "note"  # another host's network is not ours
    host.write("ca.pem", "")
    host.write("token", "").chmod(0o644)
    found = carriers(host)
    assert found["signature.token_file"]["found"] == "others can read it"
    assert "signature.ca_file" not in found
    (host.root / "token").chmod(0o600)
    assert "signature.token_file" not in carriers(host)


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_server_is_asked_whether_it_listens(port: int) -> None:
    config = HostConfig()
    config.signature_server = f"http://127.0.0.1:{port}/base"
    (finding,) = [entry for entry in examine_carriers(Host(), config) if entry.subject == "signature server"]
    assert (finding.state, finding.found) == ("ok", f"{config.signature_server} listens")


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://127.0.0.1:99999", "http://no.such.host.invalid"])
def test_a_server_that_does_not_listen_is_a_warning(address: str) -> None:
    config = HostConfig()
    config.signature_server = address
    (finding,) = [entry for entry in examine_carriers(Host(), config) if entry.subject == "signature server"]
    assert finding.state == "warning"
    assert f"{address} cannot be reached: " in finding.found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to whom the cache belongs")
def test_the_cache_must_be_roots_alone(host: HostTree) -> None:
    cache = host.root / "var/cache/inclavare"
    cache.mkdir(parents=True)
    assert carriers(host)["cache"]["state"] == "ok"
    cache.chmod(0o777)
    assert carriers(host)["cache"]["advice"] == "chown root /var/cache/inclavare; chmod go-w /var/cache/inclavare"
    cache.rmdir()
    cache.touch()
    assert carriers(host)["cache"]["found"] == "/var/cache/inclavare is not a directory"
    host.write(CONFIG, "[cache]\nsize = 0\n")
    assert "cache" not in carriers(host)
