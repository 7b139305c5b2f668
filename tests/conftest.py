"""What tests of the whole need: the program, a busybox bundle, and a rune that cleans up and proves it.

A folder may have its own `rune` and `bundle`; these are for folders that have none.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inclavare.oci.template import template

CHECKOUT = Path(__file__).parents[1]
CGROUP_PARENT = f"inclavare-test-{os.getpid()}"  # two runs of the tests may go at once


@pytest.fixture(scope="session")
def checkout() -> Path:
    return CHECKOUT


@pytest.fixture(scope="session")
def native(checkout: Path) -> Path:
    """Return the folder of the built native parts."""
    return checkout / "src/inclavare/_native"


@pytest.fixture(scope="session")
def rune_program(checkout: Path) -> Path:
    """Return the rune of this checkout."""
    program = checkout / "build/bin/rune"
    # Modules are inside the program: an edited one is not tested before it is built again.
    if subprocess.run(["make", "-q", "all"], cwd=checkout, check=False).returncode:
        pytest.fail(f"{program} is not up to date: run `make` first")
    return program


@pytest.fixture(scope="session")
def as_root() -> None:
    """Skip what needs root."""
    if os.geteuid():
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def busybox() -> Path:
    """Return the host's statically linked busybox."""
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("needs busybox (Debian package busybox-static)")
    return Path(found)


def make_rootfs(root: Path, busybox: Path) -> Path:
    """Fill `root` with busybox, a link for each of its applets, and the accounts root and user (1000)."""
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    return root


@pytest.fixture(scope="session")
def busybox_rootfs(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Path:
    """Return a root filesystem that tests share and must not change."""
    return make_rootfs(tmp_path_factory.mktemp("image") / "rootfs", busybox)


class Bundle:
    """A bundle whose configuration a test changes before it is used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rootfs = path / "rootfs"
        self.config: dict[str, Any] = dict(template())
        self.config["process"].update(terminal=False, args=["true"])
        self.config["linux"]["cgroupsPath"] = f"/{CGROUP_PARENT}/{path.parent.name}"

    def write(self) -> Path:
        """Write config.json and return the bundle's path."""
        (self.path / "config.json").write_text(json.dumps(self.config))
        return self.path


@pytest.fixture
def busybox_bundle(tmp_path: Path, busybox_rootfs: Path) -> Bundle:
    bundle = Bundle(tmp_path / "bundle")
    shutil.copytree(busybox_rootfs, bundle.rootfs, symlinks=True)
    return bundle


class Rune:
    """A rune with a state root of its own, which must leave nothing behind."""

    def __init__(self, program: Path, directory: Path, *options: str) -> None:
        self.program = program
        self.directory = directory
        self.root = directory / "state"
        self.options = options

    def command(self, *words: str | Path) -> list[str]:
        return [str(self.program), "--root", str(self.root), *self.options, *map(str, words)]

    def __call__(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command; the result has returncode, stdout and stderr, whatever the status."""
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 60} | options
        return subprocess.run(self.command(*words), check=False, text=True, errors="surrogateescape", **options)

    def create(self, bundle: Bundle, container: str) -> Path:
        """Create a container and return the file of its output (a pipe would stay open as long as it lives)."""
        output = self.directory / f"{container}.output"
        with output.open("wb") as file:
            done = subprocess.run(
                self.command("create", "--bundle", bundle.write(), container),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0, output.read_text()
        return output

    def state(self, container: str) -> dict[str, Any]:
        done = self("state", container)
        assert done.returncode == 0, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def wait_for(self, container: str, status: str, timeout_s: float = 10) -> None:
        deadline = time.monotonic() + timeout_s
        while self.state(container)["status"] != status:
            assert time.monotonic() < deadline, f"{container} does not become {status}"
            time.sleep(0.05)

    def clean(self) -> None:
        if self.root.exists():
            for entry in list(self.root.iterdir()):
                if not entry.name.startswith("."):  # caches are no containers
                    self("delete", "--force", entry.name)

    def leftovers(self) -> list[str]:
        """What is on the machine that a container of ours could have left: state, mounts, cgroups, processes."""
        left = [f"state {path}" for path in self.root.glob("[!.]*")]
        left += [
            f"mount {mount}" for mount in Path("/proc/self/mountinfo").read_text().splitlines() if self._ours(mount)
        ]
        group = f"{CGROUP_PARENT}/{self.directory.name}"  # not deeper: others' groups come and go meanwhile
        left += [f"cgroup {path}" for top in ("", "*/") for path in Path("/sys/fs/cgroup").glob(top + group)]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                places = [os.readlink(process / name) for name in ("root", "cwd")]
            except OSError:  # it ended
                continue
            left += [f"process {process.name} in {place}" for place in places if self._ours(place)]
        return left

    def _ours(self, text: str) -> bool:
        return any(str(self.directory / name) in text for name in ("bundle", "state"))


@pytest.fixture
def runtime_root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def rune(rune_program: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rune]:
    """A rune whose containers are deleted at the end of the test; then nothing may be left of them."""
    request.getfixturevalue("as_root")
    program = Rune(rune_program, tmp_path)
    yield program
    program.clean()
    assert not program.leftovers()


@pytest.fixture(scope="session", autouse=True)
def _remove_cgroup_parents() -> Iterator[None]:
    yield
    for parent in Path("/sys/fs/cgroup").glob(f"*/{CGROUP_PARENT}"):
        for directory, _, _ in os.walk(parent, topdown=False):
            try:
                Path(directory).rmdir()
            except OSError:  # a test has failed and said so
                break
