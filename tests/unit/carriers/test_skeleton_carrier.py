"""The carrier `skeleton`: a signed enclave in an image that has none, and images that try to misuse it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from inclavare.errors import EnclaveError, HostError
from inclavare.sgx.arch import Sigstruct
from inclavare.sgx.sigstruct import require, verify, verify_enclave

if TYPE_CHECKING:
    from tests.unit.carriers.conftest import Bundle

MRENCLAVE = Path(__file__).parents[3] / "native/skeleton/MRENCLAVE"


@pytest.fixture
def asking(bundle: Bundle) -> Bundle:
    bundle.env.append("RUNE_CARRIER=skeleton")
    bundle.write()
    return bundle


def refuse(bundle: Bundle, message: str, kind: type[Exception] = EnclaveError) -> str:
    """Prepare a bundle, which must fail and leave nothing; give the error's hint."""
    bundle.write()
    before = bundle.files()
    with pytest.raises(kind, match=message) as caught:
        bundle.prepare()
    assert bundle.files() == before
    return str(getattr(caught.value, "hint", ""))


def test_the_enclave_and_its_signature_lie_in_the_working_directory(asking: Bundle, native: Path) -> None:
    log = asking.prepare()
    assert (asking.place / "encl.bin").read_bytes() == (native / "skeleton/encl.bin").read_bytes()
    sigstruct = Sigstruct.from_bytes((asking.place / "encl.ss").read_bytes())
    require(verify(sigstruct))
    require([verify_enclave(sigstruct, bytes.fromhex(MRENCLAVE.read_text().strip()))])
    assert "the enclave signed (" in log
    assert sorted(path.name for path in asking.path.iterdir()) == ["config.json", "rootfs"]


def test_two_enclaves_have_two_throw_away_keys(asking: Bundle) -> None:
    asking.prepare()
    first = (asking.place / "encl.ss").read_bytes()
    asking.prepare()
    assert (asking.place / "encl.ss").read_bytes() != first


def test_without_server_nobody_signs(asking: Bundle) -> None:
    asking.settings.signature_throw_away_key = False
    assert "server_address" in refuse(asking, "nobody signs enclaves on this host")


@pytest.mark.parametrize("platform", ["", "hardware", "auto"])
def test_a_throw_away_key_is_for_the_software_platform_only(asking: Bundle, platform: str) -> None:
    asking.settings.platform = platform
    refuse(asking, "a throw-away key signs for the software platform only")


def test_an_enclave_that_is_not_installed_is_named(asking: Bundle) -> None:
    asking.settings.skeleton_enclave = "/nowhere/encl.bin"
    refuse(asking, "cannot read the skeleton's enclave /nowhere/encl.bin", HostError)
    asking.settings.skeleton_pal = "/nowhere/pal.so"
    refuse(asking, "/nowhere/pal.so is missing", HostError)


def test_an_image_that_is_signed_elsewhere_is_checked_and_left_alone(asking: Bundle, native: Path) -> None:
    asking.settings.signature_method = "client"
    refuse(asking, "is no directory of the image")
    asking.place.mkdir(parents=True)
    refuse(asking, "the image holds no signed enclave: encl.bin")
    for name in ("encl.bin", "encl.ss"):
        (asking.place / name).write_bytes((native / "skeleton" / name).read_bytes())
    before = asking.files()
    asking.prepare()
    after = asking.files()
    assert after.pop("config.json") != before.pop("config.json")
    assert after == before
    image = bytearray((native / "skeleton/encl.bin").read_bytes())
    image[5000] ^= 1
    (asking.place / "encl.bin").write_bytes(image)
    refuse(asking, "the SIGSTRUCT fails at step enclave hash")
    (asking.place / "encl.ss").write_bytes(b"short")
    refuse(asking, "encl.ss of the image has 5 bytes")


def test_links_of_the_image_lead_to_places_in_the_image(asking: Bundle) -> None:
    asking.config["process"]["cwd"] = "/var/run/rune"
    (asking.rootfs / "var").mkdir()
    (asking.rootfs / "var/run").symlink_to("/etc/../../../run")
    (asking.rootfs / "run").mkdir()
    asking.prepare()
    assert (asking.place / "encl.bin").is_file()


def test_a_working_directory_that_leads_to_the_host_does_not(asking: Bundle, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (asking.rootfs / "run").symlink_to("/etc")
    (asking.rootfs / "etc/rune").symlink_to(outside)
    refuse(asking, r"process.cwd /run/rune is no directory of the image.*a link to nowhere")
    assert not list(outside.iterdir())


@pytest.mark.parametrize(
    ("cwd", "destination"),
    [
        ("/run/rune", "/run"),
        ("/run/rune", "/run/rune/"),
        ("/var/run/rune", "/run"),
        ("/data/a", "/data"),
        ("/x", "/link"),
    ],
)
def test_a_working_directory_that_a_mount_will_hide_is_refused(asking: Bundle, cwd: str, destination: str) -> None:
    for name in ("run", "var", "x"):
        (asking.rootfs / name).mkdir()
    (asking.rootfs / "var/run").symlink_to("/run")
    (asking.rootfs / "link").symlink_to("x")
    asking.config["process"]["cwd"] = cwd
    asking.config["mounts"] = [{"destination": "/proc"}, {"destination": destination}, {"destination": "/runx"}]
    refuse(asking, f"process.cwd {cwd} is below {destination}, where the container has something else mounted")
    asking.config["process"]["cwd"] = "/opt/rune"
    asking.prepare()


@pytest.mark.parametrize("kind", ["fifo", "file", "device", "loop"])
def test_a_working_directory_of_another_kind_is_refused(asking: Bundle, kind: str) -> None:
    (asking.rootfs / "run").mkdir()
    path = asking.rootfs / "run/rune"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "file":
        path.write_text("")
    elif kind == "loop":
        path.symlink_to("rune")
    elif os.geteuid():
        pytest.skip("devices need root")
    else:
        os.mknod(path, 0o20600, os.makedev(1, 3))
    refuse(asking, "process.cwd /run/rune is no directory of the image")


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "read-only file"])
def test_what_lies_in_the_place_of_the_enclave_is_replaced_not_followed(
    asking: Bundle, tmp_path: Path, kind: str
) -> None:
    asking.place.mkdir(parents=True)
    path = asking.place / "encl.bin"
    outside = tmp_path / "outside"
    outside.write_text("the host's")
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        (path / "deep\nname").mkdir(parents=True)
        (path / "deep\nname" / "link").symlink_to(outside)
    else:
        path.write_text("x")
        path.chmod(0o400)
    asking.prepare()
    assert path.is_file()
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o644
    assert outside.read_text() == "the host's"


def test_a_signed_enclave_of_the_image_that_is_no_file_does_not_block(asking: Bundle) -> None:
    asking.settings.signature_method = "client"
    asking.place.mkdir(parents=True)
    os.mkfifo(asking.place / "encl.bin")
    refuse(asking, "encl.bin in the working directory is not a regular file")


def test_files_belong_to_who_has_the_image(asking: Bundle) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    os.chown(asking.rootfs, 1234, 1235)
    asking.prepare()
    for path in (asking.rootfs / "run", asking.place, asking.place / "encl.ss"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


def test_a_failure_at_the_last_moment_undoes_everything(asking: Bundle) -> None:
    (asking.path / "rootfs/run").mkdir()
    asking.write()
    before = asking.files()
    config = asking.path / "config.json"
    # It cannot be renamed over a mount point.
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("needs mounts")
    script = 'mount --bind "$0/config.json" "$0/config.json"; exec "$@"'
    program = (
        "import sys; sys.path[:0] = ['src', '.']\n"
        "from tests.unit.carriers.conftest import *\n"
        "bundle = Bundle(Path(sys.argv[1]), emulated_settings())\n"
        "carriers.prepare(sys.argv[1], bundle.settings, Log(2), {})\n"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, asking.path, ".venv/bin/python", "-c", program, asking.path],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "HostError" in done.stderr
    assert config.is_file()
    assert asking.files() == before


def test_the_time_limit_ends_a_carrier(asking: Bundle, tmp_path: Path) -> None:
    waiting = tmp_path / "encl.bin"
    os.mkfifo(waiting)  # nobody writes it
    asking.settings.skeleton_enclave = str(waiting)
    asking.settings.build_timeout_s = 1
    begin = time.monotonic()
    assert "build_timeout" in refuse(asking, "preparing the enclave took more than 1 s")
    assert time.monotonic() - begin < 5
