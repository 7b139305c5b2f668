"""Real containers: a busybox bundle, the real rune, and a look at what is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inclavare.oci.template import template

CHECKOUT = Path(__file__).parents[2]
SOURCE = CHECKOUT / "src"
BUILT = CHECKOUT / "build/bin/rune"
APPLETS = (
    *("cat", "chmod", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "ip", "kill", "ls", "mkdir"),
    *("mount", "nproc", "ps", "pwd", "readlink", "rm", "sh", "sleep", "stat", "stty", "test", "touch", "true", "tty"),
    *("umask", "uname", "wc", "whoami"),
)


@pytest.fixture(scope="session", autouse=True)
def _up_to_date() -> None:
    # Modules are inside the program: an edited one is not tested before it is built again.
    ready = not BUILT.exists() or "INCLAVARE_VM" in os.environ  # machines are given what was built, and no make
    if not ready and subprocess.run(["make", "-q", "all"], cwd=CHECKOUT, check=False).returncode == 1:
        pytest.fail(f"{BUILT} is not up to date: run `make` first")


@pytest.fixture(scope="session", autouse=True)
def _as_root() -> None:
    if os.geteuid():
        pytest.skip("containers of the kernel tests need root")


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs busybox (Debian package busybox-static)")
    root = tmp_path_factory.mktemp("image") / "rootfs"
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "tmp").mkdir()
    shutil.copy(busybox, root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    return root


class Bundle:
    """A bundle whose configuration a test may change before it is used."""

    def __init__(self, path: Path, rootfs: Path) -> None:
        self.path = path
        shutil.copytree(rootfs, path / "rootfs", symlinks=True)
        self.config: dict[str, Any] = json.loads(json.dumps(template()))
        self.process["terminal"] = False
        self.process["args"] = ["true"]
        self.config["root"]["readonly"] = False
        self.linux["cgroupsPath"] = f"/inclavare-test/{path.name}-{os.getpid()}"  # two test runs may go at once

    @property
    def process(self) -> dict[str, Any]:
        process: dict[str, Any] = self.config["process"]
        return process

    @property
    def linux(self) -> dict[str, Any]:
        linux: dict[str, Any] = self.config["linux"]
        return linux

    def shell(self, script: str) -> None:
        self.process["args"] = ["sh", "-c", script]

    def write(self) -> Path:
        (self.path / "config.json").write_text(json.dumps(self.config))
        return self.path


class Result:
    """How a command ended."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.status = done.returncode
        self.out = done.stdout.decode("utf-8", "surrogateescape")
        self.error = done.stderr.decode("utf-8", "surrogateescape")


class Rune:
    """The program as it was built, with a state directory of its own.

    Where nothing was built, or with RUNE_TEST_PYTHON in the environment, the sources on the Python that runs the tests.
    """

    def __init__(self, directory: Path) -> None:
        self.root = directory / "state"
        self.directory = directory
        self.program = BUILT
        if "RUNE_TEST_PYTHON" in os.environ or not BUILT.exists():
            self.program = directory / "rune"
            self.program.write_text(
                f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(SOURCE)!r})\n"
                "from inclavare.cli.rune import main\nmain()\n"
            )
            self.program.chmod(0o755)

    def command(self, *words: str | Path) -> list[str]:
        return [str(self.program), "--root", str(self.root), *map(str, words)]

    def __call__(self, *words: str | Path, **options: Any) -> Result:
        options.setdefault("timeout", 60)
        options.setdefault("stdin", subprocess.DEVNULL)
        return Result(subprocess.run(self.command(*words), capture_output=True, check=False, **options))

    def run(self, bundle: Bundle, container: str = "c", **options: Any) -> Result:
        return self("run", "--bundle", bundle.write(), container, **options)

    def create(self, bundle: Bundle, container: str = "c", **options: Any) -> None:
        """Create with output to a file: a pipe would stay open as long as the container."""
        with (self.directory / "out").open("wb") as out, (self.directory / "error").open("wb") as error:
            done = subprocess.run(
                self.command("create", "--bundle", bundle.write(), container),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=error,
                check=False,
                timeout=60,
                **options,
            )
        assert done.returncode == 0, self.error

    @property
    def out(self) -> str:
        return (self.directory / "out").read_text()

    @property
    def error(self) -> str:
        return (self.directory / "error").read_text()

    def state(self, container: str = "c") -> dict[str, Any]:
        result = self("state", container)
        assert result.status == 0, result.error
        document: dict[str, Any] = json.loads(result.out)
        return document

    def wait_for(self, status: str, container: str = "c") -> None:
        deadline = time.monotonic() + 10
        while self.state(container)["status"] != status:
            assert time.monotonic() < deadline, f"{container} does not become {status}"
            time.sleep(0.02)

    def leftovers(self) -> list[str]:
        """What is on the machine that a container of ours could have left."""
        left = [str(path) for path in self.root.glob("[!.]*")] if self.root.exists() else []
        left += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.directory) in line]
        for directory, names, _ in os.walk("/sys/fs/cgroup"):
            if "inclavare-test" in names:
                mine = f"{self.directory.name}-{os.getpid()}*"
                left += [str(path) for path in Path(directory, "inclavare-test").glob(mine)]
                names.remove("inclavare-test")
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                where = f"{(entry / 'root').readlink()} {(entry / 'cwd').readlink()}"
            except OSError:
                continue
            if str(self.directory) in where:
                left.append(f"process {entry.name}: {where}")
        return left


@pytest.fixture
def rune(tmp_path: Path) -> Iterator[Rune]:
    program = Rune(tmp_path)
    yield program
    if program.root.exists():
        for state in list(program.root.iterdir()):
            if not state.name.startswith("."):
                program("delete", "--force", state.name)
    assert not program.leftovers()


@pytest.fixture
def bundle(tmp_path: Path, rootfs: Path) -> Bundle:
    path = tmp_path / tmp_path.name
    path.mkdir()
    return Bundle(path, rootfs)


@pytest.fixture(scope="session", autouse=True)
def _no_cgroup_left() -> Iterator[None]:
    yield
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        if "inclavare-test" in names:
            names.remove("inclavare-test")
            with contextlib.suppress(OSError):  # another test run may still be in it
                Path(directory, "inclavare-test").rmdir()
