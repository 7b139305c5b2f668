"""The administrator's file: its settings, its faults, and who may write it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inclavare.enclave.hostconfig import INIT_TIMEOUT_S, HostConfig, read
from inclavare.errors import EnclaveError


def config_of(folder: Path, text: str | bytes) -> HostConfig:
    path = folder / "config.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o644)
    return read(str(path))


@pytest.mark.parametrize("text", [None, "", "# nothing\n", "[sgx]\n"])
def test_what_is_not_set_has_its_default(tmp_path: Path, text: str | None) -> None:
    config = read(str(tmp_path / "none")) if text is None else config_of(tmp_path, text)
    assert (config.platform, config.provision, config.init_timeout_s) == ("", False, INIT_TIMEOUT_S)


def test_every_setting_is_read(tmp_path: Path) -> None:
    config = config_of(tmp_path, '[sgx]\nplatform = "emulated"\nprovision = true\ninit_timeout = 0\n')
    assert (config.platform, config.provision, config.init_timeout_s) == ("emulated", True, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sgx", "is not valid TOML"),
        (b"\xff", "is not valid TOML"),
        ("a = " + "9" * 5000, "is not valid TOML"),
        ("a = " + "[" * 5000, "is not valid TOML"),
        ("[sxg]\n", "unknown table or key 'sxg'"),
        ('platform = "auto"\n', "unknown table or key 'platform'"),
        ("sgx = 1\n", "sgx is not a table"),
        ("[sgx]\nplatfrom = 1\n", "unknown key sgx.platfrom"),
        ('[sgx]\nplatform = "simulated"\n', "sgx.platform is 'simulated'"),
        ("[sgx]\nplatform = []\n", r"sgx.platform is \[\]"),
        ("[sgx]\nprovision = 1\n", "sgx.provision is 1"),
        ("[sgx]\ninit_timeout = -1\n", "sgx.init_timeout is -1"),
        ("[sgx]\ninit_timeout = true\n", "sgx.init_timeout is True"),
        ("[sgx]\ninit_timeout = 1.5\n", "sgx.init_timeout is 1.5"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(EnclaveError, match=words) as caught:
        config_of(tmp_path, text)
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_file_that_others_can_write_is_not_trusted(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[sgx]\nplatform = "emulated"\n')
    path.chmod(mode)
    with pytest.raises(EnclaveError, match=f"has mode {mode:o}: others than its owner can write it"):
        read(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_file_of_another_user_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[sgx]\nplatform = "emulated"\n')
    os.chown(path, 1000, 1000)
    with pytest.raises(EnclaveError, match="belongs to user 1000, not to root"):
        read(str(path))


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(EnclaveError, match="is not a regular file"):
        read(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EnclaveError, match="is not a regular file"):
        read(str(tmp_path / "pipe"))


def test_a_place_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnclaveError, match=r"cannot read .*/file/config.toml: Not a directory"):
        read(str(tmp_path / "file/config.toml"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary() | st.text(alphabet='[]sgx="platform.\n 0').map(str.encode))
def test_any_bytes_are_read_or_refused_by_our_error(tmp_path: Path, text: bytes) -> None:
    with contextlib.suppress(EnclaveError):
        config_of(tmp_path, text)
