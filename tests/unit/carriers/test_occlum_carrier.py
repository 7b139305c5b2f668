"""The carrier `occlum`, with stand-ins for Occlum and Intel's sgx_sign that check how they are called."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inclavare.carriers.occlum_config import instance_id, occlum_json, signed_id
from inclavare.errors import EnclaveError, HostError, SpecError
from inclavare.sgx.sign import generate_key
from tests.unit.carriers.conftest import make_occlum
from tests.unit.signing.conftest import Running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.carriers.conftest import Bundle

CHECKOUT = Path(__file__).parents[3]
ALL_CALLS = ["occlum init", "occlum build", "sgx_sign gendata", "sgx_sign catsig"]
SIGNED = "build/lib/libocclum-libos.signed.so"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Return a folder like /opt/occlum, beside a folder of programs."""
    return make_occlum(tmp_path)


@pytest.fixture
def asking(bundle: Bundle, host: Path, tmp_path: Path) -> Bundle:
    bundle.env.extend(["RUNE_CARRIER=occlum", "PATH=/usr/bin"])
    bundle.settings.occlum_pal = f"{host}/build/lib/libocclum-pal.so"
    bundle.settings.occlum_libos = f"{host}/build/lib/libocclum-libos.so"
    bundle.settings.cache_directory = str(tmp_path / "cache")
    bundle.settings.cache_size = 1 << 30
    path = f"{tmp_path}/programs:{os.environ['PATH']}"
    bundle.environment = {"PATH": path, "OCCLUM_TEST_CALLS": str(tmp_path / "calls"), "RUNE_SECRET": "1"}
    (bundle.rootfs / "bin").mkdir()
    (bundle.rootfs / "bin/hello").write_text("a program")
    (bundle.rootfs / "bin/hello").chmod(0o4755)
    return bundle


def calls(bundle: Bundle) -> list[str]:
    """Return the calls since this was asked last."""
    path = Path(bundle.environment["OCCLUM_TEST_CALLS"])
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def inside(bundle: Bundle) -> list[str]:
    """Return the files of the image in the enclave."""
    return (bundle.place / "build/mount/__ROOT/metadata").read_text().splitlines()


def refuse(bundle: Bundle, message: str, kind: type[Exception] = EnclaveError) -> str:
    """Prepare a bundle, which must fail and leave nothing; give the error's hint."""
    bundle.write()
    before = bundle.files()
    with pytest.raises(kind, match=message) as caught:
        bundle.prepare()
    assert bundle.files() == before
    building = Path(bundle.settings.cache_directory, "building")
    assert not building.exists() or not list(building.iterdir())
    return str(getattr(caught.value, "hint", ""))


# --- Occlum.json, and names -------------------------------------------------------------------------------------------


def test_names_are_the_originals_with_its_mistake_corrected() -> None:
    name = instance_id("sha256:abc", b"libos", b"{}")
    assert name == "d780644352e9f94a3e33b05197d51527"
    assert signed_id(name, b"PEM") == "5fe265ecc61119aa5d38a8e5d8740c8c"


def test_the_configuration_has_the_originals_defaults() -> None:
    document = json.loads(occlum_json(["/bin/hello", "x"], {}))
    assert document["resource_limits"] == {
        "user_space_size": "300MB",
        "kernel_space_heap_size": "32MB",
        "kernel_space_stack_size": "1MB",
        "max_num_of_threads": 32,
    }
    assert document["process"] == {
        "default_stack_size": "4MB",
        "default_heap_size": "32MB",
        "default_mmap_size": "80MB",
    }
    assert document["entry_points"] == ["/bin/hello"]
    assert document["env"] == {"default": ["OCCLUM=yes"], "untrusted": ["EXAMPLE"]}
    assert document["metadata"] == {"product_id": 0, "version_number": 0, "debuggable": True}
    assert [mount["target"] for mount in document["mount"]] == ["/", "/host", "/tmp", "/proc", "/dev"]
    assert [layer["type"] for layer in document["mount"][0]["options"]["layers"]] == ["sefs", "sefs"]


@pytest.mark.parametrize(
    ("variable", "value", "keys", "expected"),
    [
        ("USER_SPACE_SIZE", "1GB", "resource_limits.user_space_size", "1GB"),
        ("KERNEL_SPACE_HEAP_SIZE", "64MB", "resource_limits.kernel_space_heap_size", "64MB"),
        ("KERNEL_SPACE_STACK_SIZE", "2MB", "resource_limits.kernel_space_stack_size", "2MB"),
        ("MAX_NUM_OF_THREADS", "64", "resource_limits.max_num_of_threads", 64),
        ("PROCESS_DEFAULT_STACK_SIZE", "8MB", "process.default_stack_size", "8MB"),
        ("PROCESS_DEFAULT_HEAP_SIZE", "16MB", "process.default_heap_size", "16MB"),
        ("PROCESS_DEFAULT_MMAP_SIZE", "100MB", "process.default_mmap_size", "100MB"),
        ("DEFAULT_ENV", "A=1, B=2,", "env.default", ["A=1", "B=2"]),
        ("UNTRUSTED_ENV", "C", "env.untrusted", ["C"]),
        ("PRODUCT_ID", "7", "metadata.product_id", 7),
        ("VERSION_NUMBER", "3", "metadata.version_number", 3),
        ("DEBUGGABLE", "False", "metadata.debuggable", False),
    ],
)
def test_variables_change_the_configuration(variable: str, value: str, keys: str, expected: object) -> None:
    found: Any = json.loads(occlum_json(["/a"], {f"OCCLUM_{variable}": value}))
    for key in keys.split("."):
        found = found[key]
    assert found == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [("USER_SPACE_SIZE", "300"), ("MAX_NUM_OF_THREADS", "many"), ("PRODUCT_ID", "65536"), ("DEBUGGABLE", "no")],
)
def test_a_variable_that_cannot_be_understood_is_named(variable: str, value: str) -> None:
    with pytest.raises(EnclaveError, match=f"OCCLUM_{variable} is '{value}'"):
        occlum_json(["/a"], {f"OCCLUM_{variable}": value})


def test_a_program_is_named_by_its_path_in_the_enclave() -> None:
    with pytest.raises(SpecError, match=r"process\.args"):
        occlum_json(["hello"], {})


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_an_instance_is_built_and_signed_in_the_working_directory(asking: Bundle) -> None:
    log = asking.prepare()
    assert calls(asking) == ALL_CALLS
    assert sorted(path.name for path in asking.place.iterdir()) == [
        ".__occlum_status",
        "Occlum.json",
        "build",
        "initfs",
        "run",
    ]
    library, key = (asking.place / SIGNED).read_text().split("\n", 1)
    assert library == (asking.place / "build/lib/libocclum-libos.so").read_text()
    assert key.startswith("-----BEGIN PUBLIC KEY-----")
    assert json.loads((asking.place / "Occlum.json").read_text())["entry_points"] == ["/bin/hello"]
    assert {"bin/hello", "etc/hosts"} < set(inside(asking))
    assert asking.written()["process"]["env"][-3:] == [
        "ENCLAVE_TYPE=intelSgx",
        f"ENCLAVE_RUNTIME_PATH={asking.settings.occlum_pal}",
        "ENCLAVE_RUNTIME_ARGS=./",
    ]
    assert "carrier occlum: instance " in log
    assert sorted(path.name for path in asking.path.iterdir()) == ["config.json", "rootfs"]


def test_occlum_of_its_own_tree_is_preferred_to_that_of_path(asking: Bundle, host: Path, tmp_path: Path) -> None:
    (host / "build/bin").mkdir()
    (tmp_path / "programs/occlum").rename(host / "build/bin/occlum")
    asking.settings.sgx_tool_sign = str(tmp_path / "programs/sgx_sign")
    asking.environment["PATH"] = os.environ["PATH"]
    asking.prepare()
    assert calls(asking) == ALL_CALLS
    asking.settings.sgx_tool_sign = "/nowhere/sgx_sign"
    asking.environment["PATH"] = f"{tmp_path}/programs:{os.environ['PATH']}"
    refuse(asking, "sgx_sign is not on this host: neither at /nowhere/sgx_sign", HostError)  # as the file says


@pytest.mark.parametrize("missing", ["libocclum-pal.so", "libocclum-libos.so"])
def test_a_host_without_occlum_is_told_so(asking: Bundle, host: Path, missing: str) -> None:
    path = host / "build/lib" / missing
    path.unlink()
    assert "Install Occlum" in refuse(asking, f"Occlum is not on this host: {path} is missing", HostError)


@pytest.mark.parametrize(("missing", "hint"), [("occlum", "Install Occlum"), ("sgx_sign", "Install Intel's SGX SDK")])
def test_a_program_that_is_missing_is_named_before_anything_is_built(
    asking: Bundle, tmp_path: Path, missing: str, hint: str
) -> None:
    (tmp_path / "programs" / missing).unlink()
    assert hint in refuse(asking, f"{missing} is not on this host", HostError)
    assert not calls(asking)


def test_a_program_that_others_can_change_is_not_started(asking: Bundle, tmp_path: Path) -> None:
    (tmp_path / "programs/occlum").chmod(0o777)
    refuse(asking, "others than its owner can write it")
    assert not calls(asking)


def test_a_runtime_of_the_image_is_refused(asking: Bundle) -> None:
    asking.settings.occlum_pal = ""
    assert "enclave_runtime_path" in refuse(asking, "rune loads the host's only")


def test_without_a_signer_nothing_is_built(asking: Bundle) -> None:
    asking.settings.signature_throw_away_key = False
    refuse(asking, "nobody signs enclaves on this host")
    assert not calls(asking)


def test_a_build_that_fails_tells_what_occlum_said_and_leaves_nothing(asking: Bundle) -> None:
    asking.environment["OCCLUM_TEST_FAILS"] = "1"
    refuse(asking, r"occlum build failed with status 7: error: out of .*enclave.* memory")
    assert calls(asking) == ALL_CALLS[:2]


def test_an_enclave_that_will_not_start_is_warned_of(asking: Bundle) -> None:
    asking.env.append("OCCLUM_DEBUGGABLE=false")
    assert "the enclave will not start" in asking.prepare()
    asking.env.append("OCCLUM_RELEASE_ENCLAVE=1")
    assert "the enclave will not start" not in asking.prepare()


# --- images -----------------------------------------------------------------------------------------------------------


def test_occlums_own_files_stay_and_links_to_directories_are_filled_in(asking: Bundle) -> None:
    (asking.rootfs / "etc/hosts").write_text("the image's")
    (asking.rootfs / "usr/lib64").mkdir(parents=True)
    (asking.rootfs / "usr/lib64/libc.so").write_text("libc")
    (asking.rootfs / "lib64").symlink_to("usr/lib64")
    (asking.rootfs / "sbin").symlink_to("bin")
    (asking.rootfs / "proc").symlink_to("/nowhere")
    os.mkfifo(asking.rootfs / "usr/fifo")
    asking.prepare()
    found = set(inside(asking))
    assert {"lib64/libc.so", "usr/lib64/libc.so", "sbin", "etc/hosts"} < found
    assert "usr/fifo" not in found
    other = asking.place / "build/lib/libocclum-libos.so"
    first = other.read_text()
    (asking.rootfs / "etc/hosts").write_text("changed")
    asking.prepare()
    assert other.read_text() == first  # what Occlum has in its place does not count


def test_links_of_the_image_do_not_lead_to_the_host(asking: Bundle, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("the host's")
    (asking.rootfs / "lib64").symlink_to(tmp_path / "secret")
    (asking.rootfs / "tmp").symlink_to("../../../../../../../.." + str(tmp_path / "secret"))
    asking.prepare()
    assert not [name for name in inside(asking) if name.endswith("key")]


def test_an_instance_of_before_is_replaced_and_not_taken_for_the_image(asking: Bundle) -> None:
    asking.prepare()
    (asking.place / "stale").write_text("x")
    (asking.place / "run/state").write_text("x")
    calls(asking)
    asking.prepare()
    assert "run/rune/stale" not in inside(asking)
    assert not (asking.place / "run/state").exists()
    assert calls(asking) == ALL_CALLS[2:]


def test_the_root_as_working_directory_is_not_left_out(asking: Bundle) -> None:
    asking.config["process"]["cwd"] = "/"
    asking.prepare()
    assert "bin/hello" in (asking.rootfs / "build/mount/__ROOT/metadata").read_text().splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_files_belong_to_who_has_the_image(asking: Bundle) -> None:
    os.chown(asking.rootfs, 1234, 1235)
    asking.prepare()
    for name in (".", "build", "run", SIGNED, "build/lib/libocclum-libos.so.0"):
        status = (asking.place / name).lstat()
        assert (status.st_uid, status.st_gid) == (1234, 1235)


# --- images that are signed elsewhere ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [".", "occlum_instance"])
def test_an_image_with_a_signed_instance_is_left_alone(asking: Bundle, where: str) -> None:
    asking.settings.signature_method = "client"
    if where != ".":
        asking.config["annotations"] = {"enclave.runtime.args": f"{where},debug"}
    (asking.place / where / "build/lib").mkdir(parents=True)
    refuse(asking, r"the image holds no signed Occlum instance: .*No such file")
    os.mkfifo(asking.place / where / SIGNED)
    refuse(asking, "is not a regular file")
    (asking.place / where / SIGNED).unlink()
    (asking.place / where / SIGNED).write_text("signed")
    before = asking.files()
    asking.prepare()
    after = asking.files()
    assert after.pop("config.json") != before.pop("config.json")
    assert after == before
    assert not calls(asking)


# --- cache, and who signs ---------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """Return a signature server that runs."""
    key = tmp_path / "privatekey.pem"
    key.write_bytes(generate_key())
    key.chmod(0o600)
    words = ["signature-server", "--listen", "127.0.0.1:0", "--private-key", key, "--audit", tmp_path / "audit"]
    code = "import sys; from inclavare.cli.runectl import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(CHECKOUT / "src")},
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Running(process, tmp_path / "audit")
    yield running
    process.terminate()
    process.wait(20)
    running._reader.join(20)


def test_the_server_signs_once_what_is_built_once(asking: Bundle, server: Running) -> None:
    asking.settings.signature_throw_away_key = False
    asking.settings.signature_server = server.url
    asking.prepare()
    assert calls(asking) == ALL_CALLS
    first = (asking.place / SIGNED).read_text()
    assert "the instance is in the cache" in (log := asking.prepare())
    assert "the signed enclave is in the cache" in log
    assert not calls(asking)
    assert (asking.place / SIGNED).read_text() == first
    assert len(server.audit.read_text().splitlines()) == 1


def test_another_signer_needs_no_other_build(asking: Bundle, server: Running) -> None:
    asking.prepare()
    calls(asking)
    asking.settings.signature_server = server.url
    asking.prepare()
    assert calls(asking) == ALL_CALLS[2:]
    assert not list(Path(asking.settings.cache_directory, "building").iterdir())


def test_the_skeletons_signature_is_asked_for_once(bundle: Bundle, server: Running, tmp_path: Path) -> None:
    bundle.env.append("RUNE_CARRIER=skeleton")
    bundle.settings.signature_server = server.url
    bundle.settings.cache_directory, bundle.settings.cache_size = str(tmp_path / "cache"), 1 << 20
    bundle.prepare()
    first = (bundle.place / "encl.ss").read_bytes()
    assert "the signature is in the cache" in bundle.prepare()
    assert (bundle.place / "encl.ss").read_bytes() == first
    assert len(server.audit.read_text().splitlines()) == 1


@pytest.mark.parametrize("what", ["image", "configuration", "libos", "occlum"])
def test_another_input_is_another_instance(asking: Bundle, host: Path, tmp_path: Path, what: str) -> None:
    asking.env.append("IMAGE_DIGEST=sha256:the-same")  # what a pod says of itself must not decide alone
    asking.prepare()
    calls(asking)
    if what == "image":
        (asking.rootfs / "bin/other").write_text("")
    elif what == "configuration":
        asking.env.append("OCCLUM_USER_SPACE_SIZE=1GB")
    elif what == "libos":
        (host / "build/lib/libocclum-libos.so").write_text("another")
    else:
        with (tmp_path / "programs/occlum").open("a") as file:
            file.write("\n# another version")
    asking.prepare()
    assert calls(asking) == ALL_CALLS


def test_two_that_want_the_same_build_it_once(asking: Bundle, tmp_path: Path) -> None:
    asking.write()
    other = replace(asking, path=tmp_path / "other/bundle")
    shutil.copytree(asking.path, other.path)
    processes = [begin(bundle, tmp_path, OCCLUM_TEST_SLOW="1") for bundle in (asking, other)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert sorted(calls(asking)) == sorted([*ALL_CALLS, *ALL_CALLS[2:]])
    assert inside(asking) == inside(other)


# Prepares the bundle argv[1] with the host of the folder argv[2].
PREPARE = """
import os, sys; sys.path[:0] = ["src", "."]
from tests.unit.carriers.conftest import *
bundle, place = sys.argv[1:]
settings = emulated_settings()
settings.occlum_pal = f"{place}/opt/build/lib/libocclum-pal.so"
settings.occlum_libos = f"{place}/opt/build/lib/libocclum-libos.so"
settings.cache_directory, settings.cache_size = f"{place}/cache", 1 << 30
environment = {"PATH": f"{place}/programs:{os.environ['PATH']}", "OCCLUM_TEST_CALLS": f"{place}/calls"}
environment |= {name: value for name, value in os.environ.items() if name.startswith("OCCLUM_TEST_")}
carriers.prepare(bundle, settings, Log(2), environment)
"""


def begin(bundle: Bundle, place: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Prepare a bundle in a process of its own."""
    words = [sys.executable, "-c", PREPARE, str(bundle.path), str(place)]
    return subprocess.Popen(words, cwd=CHECKOUT, env=os.environ | variables, stderr=subprocess.DEVNULL)


def begin_what_hangs(bundle: Bundle, place: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Prepare a bundle with an Occlum that never ends; give the pid of that, too."""
    hangs = place / "hangs"
    process = begin(bundle, place, OCCLUM_TEST_HANGS=str(hangs))
    deadline = time.monotonic() + 30
    while not (hangs.exists() and hangs.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, int(hangs.read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_that_is_told_to_end_ends_with_all_that_it_has_started(
    asking: Bundle, tmp_path: Path, number: signal.Signals
) -> None:
    asking.write()
    before = asking.files()
    process, occlum = begin_what_hangs(asking, tmp_path)
    process.send_signal(number)
    assert process.wait(20) != 0
    deadline = time.monotonic() + 20
    while Path(f"/proc/{occlum}/cmdline").exists() or asking.files() != before:
        assert time.monotonic() < deadline, "something goes on, or is left"
        time.sleep(0.02)
    assert not list(Path(asking.settings.cache_directory, "building").iterdir())
    asking.prepare()  # no lock is left
    assert calls(asking)[-4:] == ALL_CALLS


def test_one_who_waits_for_anothers_build_can_be_told_to_end(asking: Bundle, tmp_path: Path) -> None:
    asking.write()
    before = asking.files()
    first, _ = begin_what_hangs(asking, tmp_path)
    other = replace(asking, path=tmp_path / "other/bundle")
    shutil.copytree(asking.path, other.path)
    second = begin(other, tmp_path)
    while second.poll() is None and not list((tmp_path / "other/bundle/rootfs").glob("run/rune")):
        time.sleep(0.02)  # from now on it waits
    building = list(Path(asking.settings.cache_directory, "building").iterdir())
    time.sleep(0.5)
    assert second.poll() is None
    second.terminate()
    assert second.wait(20) != 0
    assert building == list(Path(asking.settings.cache_directory, "building").iterdir())  # the first one's
    assert first.poll() is None
    first.terminate()
    assert first.wait(20) != 0
    assert asking.files() == before
