"""What runectl doctor says of device nodes, which only root can make."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from inclavare.doctor.devices import examine_devices
from inclavare.doctor.host import Host


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    folder = tmp_path / "dev"
    folder.mkdir()
    return folder


def node(path: Path, mode: int = 0o660) -> None:
    path.parent.mkdir(exist_ok=True)
    os.mknod(path, stat.S_IFCHR | mode, os.makedev(1, 3))
    path.chmod(mode)


@pytest.mark.parametrize(
    ("name", "driver"),
    [("sgx_enclave", "Linux's own driver"), ("sgx/enclave", "the DCAP driver"), ("isgx", "the legacy driver")],
)
def test_each_drivers_device_is_known(tmp_path: Path, dev: Path, name: str, driver: str) -> None:
    node(dev / name)
    (finding,) = examine_devices(Host(str(tmp_path)), needed=True)
    assert (finding.subject, finding.state) == (f"/dev/{name}", "ok")
    assert finding.found == f"{driver}{', with launch tokens' if name == 'isgx' else ''} (mode 0660, group root)"


def test_the_provisioning_device_does_not_stand_in_for_the_enclave_device(tmp_path: Path, dev: Path) -> None:
    node(dev / "sgx_provision")
    states = {finding.subject: finding.state for finding in examine_devices(Host(str(tmp_path)), needed=True)}
    assert states == {"enclave device": "lack", "/dev/sgx_provision": "ok"}


def test_a_dev_mounted_noexec_takes_enclaves_away(tmp_path: Path, dev: Path) -> None:
    node(dev / "sgx_enclave")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/mounts").write_text("udev /dev devtmpfs rw,nosuid,noexec 0 0\n")
    last = examine_devices(Host(str(tmp_path)), needed=True)[-1]
    assert (last.subject, last.state, last.needed_for) == ("/dev", "lack", ("enclaves",))


def test_a_device_for_others_only_says_which_group_to_join() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are for root only
        os.chmod(folder, 0o755)
        node(Path(folder) / "dev" / "sgx_enclave", 0o600)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                findings = examine_devices(Host(folder), needed=True)
                os.write(writing, repr([(item.subject, item.state, item.advice) for item in findings]).encode())
            finally:
                os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        said = os.read(reading, 65536).decode()
        os.close(reading)
    assert "('/dev/sgx_enclave', 'warning', 'Become root, or join the group: usermod -a -G root USER')" in said
    assert "('enclave device', 'lack'" in said
