"""The administrator's file: its settings, its faults, and who may write it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inclavare.enclave.hostconfig import INIT_TIMEOUT_S, HostConfig, may_choose_carrier, read
from inclavare.enclave.settings import KEYS
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


EVERY_KEY = """
log_level = "warn"
sgx_tool_sign = "/opt/sgx_sign"
[sgx]
platform = "emulated"
provision = true
init_timeout = 0
[containerd]
socket = "/run/c.sock"
[epm]
socket = "/run/epm.sock"
[cache]
directory = "/var/cache/i"
size = "2MiB"
[signature]
server_address = "https://signer.example:9080/base/"
ca_file = "/etc/ca.pem"
token_file = "/etc/token"
throw_away_key = true
[enclave_runtime]
signature_method = "client"
carrier = "occlum"
build_timeout = 30
[enclave_runtime.occlum]
enclave_runtime_path = "/opt/pal.so"
enclave_libos_path = "/opt/libos.so"
build_image = "occlum:0.12"
[enclave_runtime.graphene]
[enclave_runtime.skeleton]
enclave_runtime_path = "/opt/skeleton.so"
enclave_path = "/opt/encl.bin"
"""


def test_every_setting_is_read(tmp_path: Path) -> None:
    config = config_of(tmp_path, EVERY_KEY)
    assert vars(config) == {
        "platform": "emulated",
        "provision": True,
        "init_timeout_s": 0,
        "log_level": "warning",
        "sgx_tool_sign": "/opt/sgx_sign",
        "containerd_socket": "/run/c.sock",
        "epm_socket": "/run/epm.sock",
        "cache_directory": "/var/cache/i",
        "cache_size": 2 << 20,
        "signature_server": "https://signer.example:9080/base",
        "signature_ca_file": "/etc/ca.pem",
        "signature_token_file": "/etc/token",
        "signature_throw_away_key": True,
        "signature_method": "client",
        "carrier": "occlum",
        "build_timeout_s": 30,
        "occlum_pal": "/opt/pal.so",
        "occlum_libos": "/opt/libos.so",
        "occlum_build_image": "occlum:0.12",
        "skeleton_pal": "/opt/skeleton.so",
        "skeleton_enclave": "/opt/encl.bin",
    }


@pytest.mark.parametrize(
    ("text", "may"),
    [
        (None, False),
        ('[sgx]\nplatform = "emulated"\n', False),
        ('[enclave_runtime]\ncarrier = "skeleton"\n', True),
        ('[enclave_runtime]\n"c\\u0061rrier" = "skeleton"\n', True),
        ("# no carrier\n", True),  # it may, one has to look
    ],
)
def test_whether_the_file_may_choose_a_carrier_is_known_without_reading_it_as_toml(
    tmp_path: Path, text: str | None, *, may: bool
) -> None:
    path = tmp_path / "config.toml"
    if text is not None:
        assert (config_of(tmp_path, text).carrier != "none") <= may
    assert may_choose_carrier(str(path)) is may
    assert may_choose_carrier(str(tmp_path))  # a directory: read() refuses it


def test_every_attribute_has_one_key() -> None:
    attributes = [attribute for attribute, _ in KEYS.values()]
    assert sorted(attributes) == sorted(name for name in vars(HostConfig) if not name.startswith("_"))


def test_the_file_of_the_original_is_read(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        """
log_level = "info" # "debug" "info" "warn" "error"
sgx_tool_sign = "/opt/intel/sgxsdk/bin/x64/sgx_sign"
[containerd]
    socket = "/run/containerd/containerd.sock"
[epm]
    socket = "/var/run/epm/epm.sock"
[enclave_runtime]
    signature_method = "server"
    [enclave_runtime.occlum]
        enclave_runtime_path = "/opt/occlum/build/lib/libocclum-pal.so"
        enclave_libos_path = "/opt/occlum/build/lib/libocclum-libos.so"
    [enclave_runtime.graphene]
""",
    )
    assert vars(config) | {"epm_socket": ""} == {name: getattr(HostConfig, name) for name in vars(config)}


@pytest.mark.parametrize(
    ("written", "size"),
    [("0", 0), ("4096", 4096), ('"7"', 7), ('"3KiB"', 3 << 10), ('"10GiB"', 10 << 30), ('"1TiB"', 1 << 40)],
)
def test_a_size_is_bytes_or_has_a_unit(tmp_path: Path, written: str, size: int) -> None:
    assert config_of(tmp_path, f"[cache]\nsize = {written}\n").cache_size == size


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9080", "127.0.0.1:9080/base", "127.1.2.3", "[::1]", "[::1]:80"]
)
def test_a_server_on_this_machine_may_speak_plain_http(tmp_path: Path, host: str) -> None:
    text = f'[signature]\nserver_address = "http://{host}"\ntoken_file = "/t"\n'
    assert config_of(tmp_path, text).signature_server == f"http://{host}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n[sgx\n", r"is not valid TOML: .*line 2"),
        (b"a = 1\n\xff", "is not valid TOML: line 2 is not UTF-8"),
        ("a = " + "9" * 5000, "is not valid TOML"),
        ("a = " + "[" * 5000, "is not valid TOML"),
        ("[sxg]\n", "line 1: unknown table or key 'sxg'"),
        ('platform = "auto"\n', "line 1: unknown table or key 'platform'"),
        ("sgx = 1\n", "line 1: sgx is not a table"),
        ("[[sgx]]\n", "line 1: sgx is not a table"),
        ("[sgx]\nplatfrom = 1\n", "line 2: unknown key sgx.platfrom"),
        ("[enclave_runtime]\n[enclave_runtime.oclum]\n", "line 2: unknown key enclave_runtime.oclum"),
        ("[enclave_runtime.graphene]\npath = 1\n", "line 2: unknown key enclave_runtime.graphene.path"),
        ("[signature]\nzygote = 1\n", "line 2: unknown key signature.zygote"),
        ('[sgx]\nplatform = "simulated"\n', "line 2: sgx.platform is 'simulated'"),
        ("[sgx]\nplatform = []\n", r"line 2: sgx.platform is \[\]"),
        ("[sgx]\nprovision = 1\n", "sgx.provision is 1"),
        ("[sgx]\ninit_timeout = -1\n", "sgx.init_timeout is -1"),
        ("[sgx]\ninit_timeout = true\n", "sgx.init_timeout is True"),
        ("[sgx]\ninit_timeout = 1.5\n", "sgx.init_timeout is 1.5"),
        ('log_level = "loud"\n', "log_level is 'loud'"),
        ("log_level = []\n", r"log_level is \[\]"),
        ('sgx_tool_sign = "sgx_sign"\n', "sgx_tool_sign is 'sgx_sign'"),
        ('sgx_tool_sign = "/a\\u0000"\n', "sgx_tool_sign is "),
        ('[cache]\ndirectory = ""\n', "cache.directory is ''"),
        ('[cache]\nsize = "10GB"\n', "cache.size is '10GB'"),
        ('[cache]\nsize = "-1GiB"\n', "cache.size is '-1GiB'"),
        ('[cache]\nsize = "\u0661GiB"\n', "cache.size is "),
        ('[cache]\nsize = ""\n', "cache.size is ''"),
        (f"[cache]\nsize = {1 << 62}\n", "cache.size is 4611686018427387904"),
        ("[cache]\nsize = -1\n", "cache.size is -1"),
        ("[cache]\nsize = false\n", "cache.size is False"),
        ('[epm]\nsocket = "epm.sock"\n', "epm.socket is 'epm.sock'"),
        ('[signature]\nserver_address = "signer:9080"\n', "signature.server_address is 'signer:9080'"),
        ('[signature]\nserver_address = "ftp://signer"\n', "signature.server_address is 'ftp://signer'"),
        ('[signature]\nserver_address = "https:///x"\n', "signature.server_address is 'https:///x'"),
        ('[signature]\nserver_address = "https://a b"\n', "signature.server_address is 'https://a b'"),
        ("[signature]\nserver_address = 1\n", "signature.server_address is 1"),
        (
            '[signature]\nca_file = "/c"\nserver_address = "http://a"\n',
            "line 3: signature.server_address is 'http://a'",
        ),
        ('[signature]\nserver_address = "http://127.0.0.1.a:80/x"\n', "plain http is for this machine only"),
        ('[signature]\nserver_address = "http://localhost.a"\n', "plain http is for this machine only"),
        ('[signature]\nserver_address = "http://[::1]"\nca_file = "/c"\n', "line 3: signature.ca_file with the server"),
        ("\n[signature]\nthrow_away_key = true\n", "line 3: signature.throw_away_key with sgx.platform 'hardware'"),
        (
            'signature.throw_away_key = true\nsgx.platform = "auto"\n',
            "signature.throw_away_key with sgx.platform 'auto'",
        ),
        ('[enclave_runtime]\ncarrier = "graphene"\n', "enclave_runtime.carrier is 'graphene'"),
        ('[enclave_runtime]\nsignature_method = "both"\n', "enclave_runtime.signature_method is 'both'"),
        ("[enclave_runtime.occlum]\nbuild_image = 1\n", "enclave_runtime.occlum.build_image is 1"),
        ("[enclave_runtime]\nocclum = 1\n", "enclave_runtime.occlum is not a table"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(EnclaveError, match=words) as caught:
        config_of(tmp_path, text)
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[sgx]\nx = 1\n", "Known here: platform, provision, init_timeout."),
        (
            "x = 1\n",
            "Known: log_level, sgx_tool_sign, [sgx], [containerd], [epm], [cache], [signature], [enclave_runtime].",
        ),
        (
            "[enclave_runtime]\nx = 1\n",
            (
                "Known here: signature_method, carrier, build_timeout, "
                "[enclave_runtime.occlum], [enclave_runtime.skeleton], [enclave_runtime.graphene]."
            ),
        ),
        ("[enclave_runtime.graphene]\nx = 1\n", "Known here: nothing."),
        ('[enclave_runtime]\ncarrier = "x"\n', "It is none, empty, occlum or skeleton."),
    ],
)
def test_what_would_have_been_right_is_said(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(EnclaveError) as caught:
        config_of(tmp_path, text)
    assert caught.value.hint == hint


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


LINES = st.sampled_from([line for line in EVERY_KEY.split("\n") if line]) | st.text(
    alphabet="[]{}=\"'#.,\\ \r1a", max_size=6
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary()
    | st.text(alphabet='[]sgx="platform.\n 0').map(str.encode)
    | st.lists(LINES).map("\n".join).map(str.encode)
)
def test_any_bytes_are_read_or_refused_by_our_error(tmp_path: Path, text: bytes) -> None:
    with contextlib.suppress(EnclaveError):
        config_of(tmp_path, text)
