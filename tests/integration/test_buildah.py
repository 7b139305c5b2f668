"""buildah with rune as its runtime: containers that are worked in, images that are built, in a store of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# No network: buildah would set one up on the host.
ALONE = "--network=none"
CONTAINERFILE = """
FROM localhost/base
ENV WHO=world
WORKDIR /work
RUN echo "hello $WHO" >word && chown 1000:1000 word
USER 1000:1000
RUN ["sh", "-c", "id -u >>word"]
"""


class Buildah:
    """buildah with its own places for everything. Its runtime is named by the environment."""

    def __init__(self, directory: Path, runtime: Path) -> None:
        self.directory = directory
        self._command = ["buildah", f"--root={directory}/root", f"--runroot={directory}/runroot"]
        self._command += ["--storage-driver=vfs"]
        self._environment = {**os.environ, "BUILDAH_RUNTIME": str(runtime), "BUILDAH_ISOLATION": "oci"}

    def __call__(self, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *words],
            env=self._environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def ok(self, *words: str | Path) -> str:
        done = self(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")


@pytest.fixture(scope="module")
def buildah(
    tmp_path_factory: pytest.TempPathFactory, rune_program: Path, busybox_rootfs: Path, as_root: None
) -> Iterator[Buildah]:
    del as_root
    if shutil.which("buildah") is None:
        pytest.skip("needs buildah (Debian package of that name)")
    directory = tmp_path_factory.mktemp("buildah")
    engine = Buildah(directory, rune_program)
    with tarfile.open(directory / "image.tar", "w") as archive:
        archive.add(busybox_rootfs, arcname=".")
    scratch = engine.ok("from", "scratch")
    engine.ok("add", scratch, directory / "image.tar", "/")
    engine.ok("config", "--env", "PATH=/bin", scratch)
    engine.ok("commit", "--quiet", "--rm", scratch, "localhost/base")
    yield engine
    engine("rm", "--all")
    engine("rmi", "--all", "--force")


@pytest.fixture
def container(buildah: Buildah) -> Iterator[str]:
    """Return a working container."""
    container = buildah.ok("from", "--pull-never", "localhost/base")
    yield container
    buildah.ok("rm", container)


def test_run_gives_the_programs_output_and_status(buildah: Buildah, container: str) -> None:
    done = buildah("run", ALONE, container, "sh", "-c", "echo out; echo error >&2; exit 7")
    assert done.stdout == "out\n"
    assert "error\n" in done.stderr
    assert done.returncode == 7


def test_the_runtime_of_the_command_line_goes_before_that_of_the_environment(
    buildah: Buildah, container: str, rune_program: Path
) -> None:
    words = ("echo", "ran")
    assert "/no/runtime" in buildah("run", ALONE, container, *words, BUILDAH_RUNTIME="/no/runtime").stderr
    done = buildah("run", f"--runtime={rune_program}", ALONE, container, *words, BUILDAH_RUNTIME="/no/runtime")
    assert (done.returncode, done.stdout) == (0, "ran\n")


def test_a_program_that_does_not_exist_is_named(buildah: Buildah, container: str) -> None:
    done = buildah("run", ALONE, container, "no-such-program")
    assert done.returncode != 0
    assert "executable file not found in $PATH" in done.stderr


def test_what_was_done_in_a_container_is_committed(buildah: Buildah, container: str) -> None:
    buildah.ok("run", ALONE, "--user=1000:1000", container, "sh", "-c", "id -u >/tmp/who")
    buildah.ok("commit", "--quiet", container, "localhost/changed")
    again = buildah.ok("from", "--pull-never", "localhost/changed")
    assert buildah.ok("run", ALONE, again, "cat", "/tmp/who") == "1000"
    buildah.ok("rm", again)


def test_the_steps_of_a_containerfile_are_run(buildah: Buildah) -> None:
    (buildah.directory / "Containerfile").write_text(CONTAINERFILE)
    buildah.ok("bud", "--pull-never", ALONE, "--layers", "--tag=localhost/built", buildah.directory)
    built = buildah.ok("from", "--pull-never", "localhost/built")
    assert buildah.ok("run", ALONE, built, "cat", "word") == "hello world\n1000"
    buildah.ok("rm", built)


def test_a_build_ends_where_a_step_fails(buildah: Buildah) -> None:
    (buildah.directory / "Containerfile").write_text("FROM localhost/base\nRUN exit 3\nRUN echo after\n")
    done = buildah("bud", "--pull-never", ALONE, "--tag=localhost/broken", buildah.directory)
    assert done.returncode == 3
    assert "after" not in done.stdout
