"""What `make install`, `make uninstall` and `pip install` put where, and that it works there.

All is built in a copy of the checkout, so the copy's build from nothing is tested too.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

import pytest

from inclavare import __version__
from tests.conftest import Rune

if TYPE_CHECKING:
    from tests.conftest import Bundle

PYTHON = "/usr/bin/python3"  # what installed programs are run by
PALS = tuple(f"liberpal-skeleton-v{version}.so" for version in (1, 2, 3))
UNCHECKED_HASH = 1  # PEP 552: flags of a .pyc whose source is never looked at
PYC_HEADER_SIZE = 16


@pytest.fixture(scope="module")
def copy(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources, built."""
    copy = tmp_path_factory.mktemp("sources") / "inclavare"
    copy.mkdir()
    for name in ("Makefile", "README.md", "pyproject.toml", "setup.py"):
        shutil.copy(checkout / name, copy)
    for name in ("native", "src", "tools"):
        shutil.copytree(checkout / name, copy / name, ignore=shutil.ignore_patterns("_native", "__pycache__", "*.pyc"))
    _make(copy, "all")
    return copy


@pytest.fixture(scope="module")
def prefix(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a PREFIX with an installation."""
    prefix = tmp_path_factory.mktemp("installed") / "prefix"
    _make(copy, "install", f"PREFIX={prefix}")
    return prefix


@pytest.fixture
def installed_rune(prefix: Path, tmp_path: Path, as_root: None) -> Iterator[Rune]:
    del as_root
    program = Rune(prefix / "bin/rune", tmp_path, "--sgx-platform", "emulated")
    yield program
    program.clean()
    assert not program.leftovers()


def test_a_copy_of_the_sources_builds_the_enclave_with_the_golden_mrenclave(checkout: Path, copy: Path) -> None:
    image = copy / "src/inclavare/_native/skeleton/encl.bin"
    shown = _run(copy / "build/bin/runectl", "measure", image)
    assert shown == (checkout / "native/skeleton/MRENCLAVE").read_text()


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("bin/rune", rf"rune version {__version__}\n(commit: [0-9a-f]{{40}}(-dirty)?\n)?spec: 1\.3\.0\n"),
        ("sbin/rune", rf"rune version {__version__}\n(commit: [0-9a-f]{{40}}(-dirty)?\n)?spec: 1\.3\.0\n"),
        ("bin/runectl", rf"runectl version {__version__}\n"),
    ],
)
def test_the_installed_programs_say_their_version(prefix: Path, program: str, shown: str) -> None:
    assert re.fullmatch(shown, _run(prefix / program, "--version"))


def test_the_installed_programs_fail_with_a_status(prefix: Path) -> None:
    for program, words in (("rune", ["state", "no-such-container"]), ("runectl", ["measure", "/no/such/image"])):
        done = subprocess.run([prefix / "bin" / program, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{program}: ")


def test_every_module_is_compiled_for_good(prefix: Path) -> None:
    for source in (prefix / "lib/inclavare").rglob("*.py"):
        content = _compiled(source).read_bytes()
        assert content[:4] == importlib.util.MAGIC_NUMBER
        assert int.from_bytes(content[4:8], "little") == UNCHECKED_HASH


def test_systemds_units_start_the_installed_program(prefix: Path) -> None:
    service = (prefix / "lib/systemd/system/inclavare-aesmd.service").read_text()
    assert f"ExecStart={prefix}/bin/runectl aesmd\n" in service
    assert (prefix / "lib/systemd/system/inclavare-aesmd.socket").is_file()
    service = (prefix / "lib/systemd/system/inclavare-signature-server.service").read_text()
    assert f"ExecStart={prefix}/bin/runectl signature-server " in service


def test_use_writes_nothing_into_the_installation(prefix: Path) -> None:
    before = _files(prefix)
    _run(prefix / "bin/rune", "list")
    _run(prefix / "bin/runectl", "measure", prefix / "share/inclavare/skeleton/encl.bin")
    assert _files(prefix) == before


def test_a_plain_container_runs(installed_rune: Rune, busybox_bundle: Bundle) -> None:
    busybox_bundle.config["process"]["args"] = ["sh", "-c", "echo plain; exit 42"]
    done = installed_rune("run", "--bundle", busybox_bundle.write(), "plain")
    assert (done.returncode, done.stdout, done.stderr) == (42, "plain\n", "")


@pytest.mark.parametrize("pal", PALS)
def test_an_enclave_container_runs(prefix: Path, installed_rune: Rune, busybox_bundle: Bundle, pal: str) -> None:
    shutil.copytree(prefix / "share/inclavare/skeleton", busybox_bundle.rootfs / "run/rune")
    busybox_bundle.config["process"].update(args=["skeleton"], cwd="/run/rune")
    busybox_bundle.config["annotations"] = {
        "enclave.type": "intelSgx",
        "enclave.runtime.path": str(prefix / "lib" / pal),
    }
    done = installed_rune("run", "--bundle", busybox_bundle.write(), "enclave")
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown
    assert "Hello Inclavare Containers!\n" in shown
    assert "Enclave runtime skeleton initialization succeeded\n" in shown


def test_the_template_of_an_enclave_container_runs_as_it_is(
    prefix: Path, installed_rune: Rune, busybox_bundle: Bundle
) -> None:
    shutil.copytree(prefix / "share/inclavare/skeleton", busybox_bundle.rootfs / "run/rune")
    assert installed_rune("spec", "--bundle", busybox_bundle.path, "--enclave", "skeleton").returncode == 0
    done = installed_rune("run", "--bundle", busybox_bundle.path, "template")
    assert "platform: emulated\n" in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


def test_a_package_does_not_know_where_it_was_staged(copy: Path, tmp_path: Path) -> None:
    _make(copy, "install", "PREFIX=/opt/enclaves", f"DESTDIR={tmp_path}")
    staged = tmp_path / "opt/enclaves"
    library = staged / "lib/inclavare"
    for source in library.rglob("*.py"):
        code = marshal.loads(_compiled(source).read_bytes()[PYC_HEADER_SIZE:])  # noqa: S302  # just made
        assert isinstance(code, CodeType)
        assert code.co_filename == f"/opt/enclaves/lib/inclavare/{source.relative_to(library)}"
    for path in _files(tmp_path):
        assert str(tmp_path).encode() not in (tmp_path / path).read_bytes()
    assert _run(staged / "sbin/rune", "--version").startswith("rune version")


def test_installing_again_takes_away_what_is_no_longer_part_of_it(copy: Path, tmp_path: Path) -> None:
    _make(copy, "install", f"PREFIX={tmp_path}")
    expected = _files(tmp_path)
    (tmp_path / "lib/inclavare/inclavare/gone.py").write_text("raise ImportError\n")
    _make(copy, "install", f"PREFIX={tmp_path}")
    assert _files(tmp_path) == expected


def test_uninstall_leaves_nothing_but_what_is_of_others(copy: Path, tmp_path: Path) -> None:
    others = {"bin/other", "lib/libother.so"}
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    _make(copy, "install", f"PREFIX={tmp_path}")
    assert len(_files(tmp_path)) > len(others)
    _make(copy, "uninstall", f"PREFIX={tmp_path}")
    assert _files(tmp_path) == others
    assert not list(tmp_path.glob("*/inclavare"))


def test_the_shim_is_the_installed_rune_by_another_name(prefix: Path) -> None:
    shim, rune = prefix / "bin/containerd-shim-rune-v2", prefix / "bin/rune"
    if rune.read_bytes().startswith(b"#!"):
        assert shim.read_text() == rune.read_text().replace("inclavare.cli.rune ", "inclavare.cli.shim ")
        assert os.access(shim, os.X_OK)
    else:
        assert os.readlink(shim) == "rune"


@pytest.mark.parametrize(
    ("engine", "path"), [("containerd", "etc/containerd/config.toml"), ("docker", "etc/docker/daemon.json")]
)
def test_an_engine_is_told_of_the_shim_and_forgets_it(copy: Path, tmp_path: Path, engine: str, path: str) -> None:
    _make(copy, f"install-{engine}", f"DESTDIR={tmp_path}", "PREFIX=/opt/enclaves")
    assert _files(tmp_path) == {path}
    assert "/opt/enclaves/bin/containerd-shim-rune-v2" in (tmp_path / path).read_text()
    _make(copy, f"install-{engine}", f"DESTDIR={tmp_path}")
    assert "/bin/containerd-shim-rune-v2" not in (tmp_path / path).read_text()  # it is where services look for it
    assert "io.containerd.rune.v2" in (tmp_path / path).read_text()
    _make(copy, f"uninstall-{engine}", f"DESTDIR={tmp_path}")
    assert not _files(tmp_path)


def test_the_manifests_for_kubernetes_are_installed(prefix: Path) -> None:
    manifests = {path.name for path in (prefix / "share/inclavare/kubernetes").iterdir()}
    assert manifests == {"runtimeclass.yaml", "pod-annotations.yaml", "pod-environment.yaml"}


@pytest.fixture(scope="module")
def wheel(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Not isolated, so that no network is needed.
    target = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    _run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", target, copy)
    (wheel,) = target.iterdir()
    return wheel


def test_the_wheel_is_for_any_python_3_on_this_platform(wheel: Path) -> None:
    platform = sysconfig.get_platform().replace("-", "_")
    assert wheel.name == f"inclavare-{__version__}-py3-none-{platform}.whl"


def test_the_wheel_works_in_a_fresh_environment(wheel: Path, checkout: Path, tmp_path: Path) -> None:
    # The system's packages stand in for an index: python3-cryptography is what the wheel depends on.
    _run(PYTHON, "-m", "venv", "--system-site-packages", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", wheel)
    runectl = tmp_path / "venv/bin/runectl"
    assert _run(runectl, "--version") == f"runectl version {__version__}\n"
    native = Path(_run(python, "-c", "import inclavare; print(inclavare.__path__[0], end='')")) / "_native"
    assert native.is_relative_to(tmp_path)
    assert (
        _run(runectl, "measure", native / "skeleton/encl.bin") == (checkout / "native/skeleton/MRENCLAVE").read_text()
    )
    assert {path.name for path in native.iterdir()} >= {"executor", "runelet", "libsgxemu.so", *PALS}
    assert os.access(native / "runelet", os.X_OK)


def _make(directory: Path, *words: str) -> None:
    _run("make", "--silent", "--directory", directory, *words)


def _run(*words: str | Path) -> str:
    """Run a program away from the checkout, which must not help it; return its output."""
    environment = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    done = subprocess.run(words, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


def _compiled(source: Path) -> Path:
    version = _run(PYTHON, "-c", "import sys; print(sys.implementation.cache_tag, end='')")
    return source.parent / "__pycache__" / f"{source.stem}.{version}.pyc"
