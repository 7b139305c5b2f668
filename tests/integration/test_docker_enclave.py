"""Enclave containers under Docker, as docs/guides/docker.md tells: the skeleton, on the software platform."""

from __future__ import annotations

import json
import re
import shutil
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Docker

GREETING = "Hello Inclavare Containers!"
SUCCESS = "Enclave runtime skeleton initialization succeeded"
VERSIONS = (1, 2, 3)


@pytest.fixture(scope="module")
def image(docker: Docker, checkout: Path, native: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the skeleton image as the guide does: an enclave, its signature, and nothing else."""
    context = tmp_path_factory.mktemp("skeleton")
    for name in ("encl.bin", "encl.ss"):
        shutil.copy(native / "skeleton" / name, context)
    (dockerfile,) = guide_blocks(checkout, "dockerfile")
    (context / "Dockerfile").write_text(dockerfile)
    docker.ok("build", "--tag=skeleton-enclave", context)
    return "skeleton-enclave"


def guide_blocks(checkout: Path, language: str) -> list[str]:
    """Return the guide's examples in a language, without the indentation of lists."""
    text = (checkout / "docs/guides/docker.md").read_text()
    return [
        textwrap.dedent(block)
        for block in re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    ]


@pytest.fixture
def options(native: Path) -> list[str]:
    return enclave_options(native, 2)


def enclave_options(native: Path, version: int) -> list[str]:
    """Return the options of `docker run` for an enclave container."""
    return [
        "--runtime=rune-emulated",
        "--env=ENCLAVE_TYPE=intelSgx",
        f"--env=ENCLAVE_RUNTIME_PATH={native}/liberpal-skeleton-v{version}.so",
        "--env=ENCLAVE_RUNTIME_ARGS=debug",
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_run_prints_what_the_enclave_and_its_runtime_say(
    docker: Docker, image: str, native: Path, version: int
) -> None:
    done = docker("run", "--rm", *enclave_options(native, version), image)
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).splitlines()
    assert GREETING in lines
    assert SUCCESS in lines
    assert "platform: emulated" in lines


def test_run_on_a_terminal(docker: Docker, image: str, options: list[str]) -> None:
    status, shown = docker.terminal("run", "-it", "--rm", *options, image)
    assert status == 0, shown
    assert GREETING in shown
    assert SUCCESS in shown


def test_exec_into_an_enclave_container(docker: Docker, image: str, options: list[str]) -> None:
    container = docker.ok("run", "--detach", *options, image, "skeleton", "wait_timeout", "100")
    done = docker("exec", container, "skeleton")
    assert done.returncode == 0, done.stderr
    assert SUCCESS in done.stdout + done.stderr
    assert GREETING not in done.stdout + done.stderr, "there is one enclave, and it greeted already"
    status, shown = docker.terminal("exec", "-it", container, "skeleton")
    assert status == 0, shown
    assert SUCCESS in shown


def test_stop_and_kill_reach_the_enclaves_process(docker: Docker, image: str, options: list[str]) -> None:
    for command, status in (["stop"], "143"), (["kill", "--signal=INT"], "130"), (["kill"], "137"):
        container = docker.ok("run", "--detach", *options, image, "skeleton", "wait_timeout", "100")
        docker.ok(*command, container)
        assert docker.ok("wait", container) == status, command


def test_a_container_restarts_with_a_new_enclave(docker: Docker, image: str, options: list[str]) -> None:
    container = docker.ok("create", *options, image)
    for run in (1, 2):
        docker.ok("start", container)
        assert docker.ok("wait", container) == "0"
        assert _logs(docker, container).count(GREETING) == run


def test_several_enclave_containers_run_at_once(docker: Docker, image: str, options: list[str]) -> None:
    containers = [docker.ok("run", "--detach", *options, image, "skeleton", "wait_timeout", "1") for _ in range(3)]
    assert [docker.ok("wait", container) for container in containers] == ["0"] * 3


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (["--runtime=rune"], "--sgx-platform"),
        (["--env=ENCLAVE_TYPE=Jailhouse"], "Enclave hardware type (Jailhouse) is not supported"),
        (["--env=ENCLAVE_RUNTIME_PATH="], "enclave runtime path is not configured"),
        (["--env=ENCLAVE_RUNTIME_PATH=/no/such.so"], "stat /no/such.so: no such file or directory"),
        (["--workdir=/"], "(ENOENT: No such file or directory) (pal_init"),
    ],
)
def test_what_cannot_be_is_said_to_dockers_user(
    docker: Docker, image: str, options: list[str], changed: list[str], sentence: str
) -> None:
    done = docker("run", "--rm", *options, *changed, image)
    assert done.returncode in (125, 126, 127, 128)
    assert sentence in done.stdout + done.stderr


def test_the_hosts_administrator_can_allow_emulation(docker: Docker, image: str, options: list[str]) -> None:
    folder = "/etc/inclavare-containers"  # the engine's own /etc
    docker.on_host(f"mkdir -p {folder}; printf '[sgx]\nplatform = \"emulated\"\n' >{folder}/config.toml")
    try:
        done = docker("run", "--rm", *options, "--runtime=rune", image)
    finally:
        docker.on_host(f"rm -r {folder}")
    assert done.returncode == 0, done.stderr
    assert GREETING in done.stdout + done.stderr


def test_it_is_paused_and_its_limits_are_changed(docker: Docker, image: str, options: list[str]) -> None:
    container = docker.ok("run", "--detach", *options, image, "skeleton", "wait_timeout", "100")
    docker.ok("pause", container)
    assert docker.ok("inspect", "--format", "{{.State.Status}}", container) == "paused"
    docker.ok("unpause", container)
    docker.ok("update", "--memory=96m", "--memory-swap=96m", container)
    assert docker.ok("inspect", "--format", "{{.State.Status}}", container) == "running"


def test_the_guides_configuration_of_dockerd_is_the_one_tested(
    docker: Docker, checkout: Path, rune_program: Path
) -> None:
    tested = (docker.directory / "daemon.json").read_text().replace(str(rune_program), "/usr/local/bin/rune")
    only_rune, both = map(json.loads, guide_blocks(checkout, "json"))
    assert both == json.loads(tested)
    assert only_rune["runtimes"]["rune"] == both["runtimes"]["rune"]


def test_without_enclave_configuration_it_is_an_ordinary_container(docker: Docker) -> None:
    assert docker.ok("run", "--rm", "--runtime=rune-emulated", "busybox", "echo", "plain") == "plain"


def _logs(docker: Docker, container: str) -> str:
    time.sleep(0.2)  # until dockerd has copied what was written at the end
    done = docker("logs", container)
    return done.stdout + done.stderr
