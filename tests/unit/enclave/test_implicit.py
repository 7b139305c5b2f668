"""What an enclave container gets unasked: the host's devices and the AESM directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from inclavare.enclave.implicit import (
    FORWARDED_SIGNALS,
    WAIT_STATUS_LIBRARIES,
    sgx_devices,
    wants_aesm_mount,
)

needs_mknod = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make device nodes")


def make_node(root: Path, path: str, *, major: int = 10, minor: int = 58, mode: int = 0o660) -> None:
    node = Path(f"{root}{path}")
    node.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(node, stat.S_IFCHR | mode, os.makedev(major, minor))
    node.chmod(mode)


def devices(root: Path, *, provision: bool = False) -> list[tuple[str, int, int]]:
    return [(device.path, device.minor, device.mode) for device in sgx_devices(provision=provision, root=str(root))]


def test_a_host_without_nodes_has_no_devices(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/isgx").touch()
    assert devices(tmp_path) == []


@needs_mknod
def test_nodes_are_found_with_minor_and_mode(tmp_path: Path) -> None:
    for minor, name in enumerate(("sgx_enclave", "sgx/enclave", "isgx", "gsgx"), 50):
        make_node(tmp_path, f"/dev/{name}", minor=minor, mode=0o600 + minor)
    assert devices(tmp_path) == [
        ("/dev/sgx_enclave", 50, 0o600 + 50),
        ("/dev/sgx/enclave", 51, 0o600 + 51),
        ("/dev/isgx", 52, 0o600 + 52),
        ("/dev/gsgx", 53, 0o600 + 53),
    ]


@needs_mknod
def test_a_node_behind_a_link_has_the_name_of_the_link(tmp_path: Path) -> None:
    make_node(tmp_path, "/dev/sgx_enclave", minor=125)
    (tmp_path / "dev/sgx").mkdir()
    (tmp_path / "dev/sgx/enclave").symlink_to("../sgx_enclave")
    assert [device[:2] for device in devices(tmp_path)] == [("/dev/sgx_enclave", 125), ("/dev/sgx/enclave", 125)]


@needs_mknod
@pytest.mark.parametrize("name", ["link", "block", "other major"])
def test_what_is_no_device_of_the_misc_major_is_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "dev").mkdir()
    if name == "link":
        (tmp_path / "dev/sgx_enclave").symlink_to("nowhere")
    elif name == "block":
        os.mknod(tmp_path / "dev/sgx_enclave", stat.S_IFBLK | 0o600, os.makedev(10, 58))
    else:
        make_node(tmp_path, "/dev/sgx_enclave", major=1, minor=3)
    assert devices(tmp_path) == []


@needs_mknod
def test_the_provisioning_device_is_given_only_when_allowed(tmp_path: Path) -> None:
    make_node(tmp_path, "/dev/sgx_enclave", minor=125)
    make_node(tmp_path, "/dev/sgx_provision", minor=126)
    assert [device[0] for device in devices(tmp_path)] == ["/dev/sgx_enclave"]
    assert [device[0] for device in devices(tmp_path, provision=True)] == ["/dev/sgx_enclave", "/dev/sgx_provision"]


@needs_mknod
def test_a_provisioning_device_alone_makes_no_host_for_enclaves(tmp_path: Path) -> None:
    make_node(tmp_path, "/dev/sgx_provision", minor=126)
    assert devices(tmp_path, provision=True) == []


@pytest.mark.parametrize(
    ("destinations", "wanted"),
    [
        ([], True),
        (["/var/run", "/var/run/aesmd2"], True),
        (["/var/run/aesmd"], False),
        (["/proc", "/run/aesmd"], False),
        (["/RUN/Aesmd/"], False),
    ],
)
def test_the_aesm_directory_is_mounted_unless_something_is_there(destinations: list[str], *, wanted: bool) -> None:
    assert wants_aesm_mount(destinations, has_aesm=True) is wanted
    assert not wants_aesm_mount(destinations, has_aesm=False)


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "ALRM", "CONT"])
def test_what_users_send_is_forwarded(name: str) -> None:
    numbers = {"HUP": 1, "INT": 2, "QUIT": 3, "USR1": 10, "USR2": 12, "ALRM": 14, "TERM": 15, "CONT": 18}
    assert numbers[name] in FORWARDED_SIGNALS


@pytest.mark.parametrize(
    "signal",
    [
        pytest.param(number, id=name)
        for name, number in {
            "ILL": 4,
            "TRAP": 5,
            "ABRT": 6,
            "BUS": 7,
            "FPE": 8,
            "KILL": 9,
            "SEGV": 11,
            "PIPE": 13,
            "CHLD": 17,
            "STOP": 19,
            "URG": 23,
            "WINCH": 28,
            "SYS": 31,
            "libc 32": 32,
            "libc 33": 33,
        }.items()
    ],
)
def test_faults_and_the_runelets_own_affairs_are_not_forwarded(signal: int) -> None:
    assert signal not in FORWARDED_SIGNALS


def test_the_libraries_of_occlum_return_wait_statuses() -> None:
    assert set(WAIT_STATUS_LIBRARIES) == {"libocclum-pal.so", "liberpal-occlum.so"}
