"""The shim in the files of containerd and Docker; containerd itself says what it understands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inclavare.doctor.registration import (
    register_containerd,
    register_docker,
    table,
    unregister_containerd,
    unregister_docker,
)
from inclavare.errors import HostError

SHIM = "/usr/local/bin/containerd-shim-rune-v2"
ELSEWHERE = "/opt/enclaves/bin/containerd-shim-rune-v2"
ENTRY = {
    "runtime_type": "io.containerd.rune.v2",
    "pod_annotations": ["enclave.*"],
    "container_annotations": ["enclave.*"],
    "privileged_without_host_devices": True,
}
VERSION_1 = 'disabled_plugins = ["cri"] # as Docker\'s packages have it\n'
VERSION_2 = """version = 2 # of Debian

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "pause:own"
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
"""
WITH_RUNTIMES = """version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "mine"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.mine]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.mine.options]
      SystemdCgroup = true"""
VERSION_3 = """version = 3
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'native'
"""
FILES = ["", VERSION_1, VERSION_2, WITH_RUNTIMES, VERSION_3]
PLUGINS = {
    "": "io.containerd.grpc.v1.cri",
    VERSION_1: "cri",
    VERSION_2: "io.containerd.grpc.v1.cri",
    WITH_RUNTIMES: "io.containerd.grpc.v1.cri",
    VERSION_3: "io.containerd.cri.v1.runtime",
}
needs_containerd = pytest.mark.skipif(not shutil.which("containerd"), reason="containerd is not installed")


def runtimes(text: str, plugin: str = "io.containerd.grpc.v1.cri") -> dict[str, Any]:
    return table(tomllib.loads(text), "plugins", plugin, "containerd", "runtimes")


@pytest.mark.parametrize("before", FILES)
def test_containerds_file_gets_the_runtime_and_nothing_else_changes(before: str) -> None:
    after = register_containerd(before, "f", SHIM)
    assert after.startswith(before)
    assert runtimes(after, PLUGINS[before])["rune"] == ENTRY
    assert unregister_containerd(after, "f").rstrip("\n") == before.rstrip("\n")


@pytest.mark.parametrize("before", FILES)
def test_registering_twice_is_registering_once(before: str) -> None:
    once = register_containerd(before, "f", SHIM)
    assert register_containerd(once, "f", SHIM) == once


def test_a_shim_that_services_do_not_find_is_named_by_its_path() -> None:
    assert runtimes(register_containerd("", "f", ELSEWHERE))["rune"]["runtime_path"] == ELSEWHERE
    document = json.loads(register_docker("", "f", ELSEWHERE))
    assert document == {"runtimes": {"rune": {"runtimeType": ELSEWHERE}}}


def test_a_shim_that_has_moved_is_named_anew() -> None:
    moved = register_containerd(register_containerd(VERSION_2, "f", ELSEWHERE), "f", SHIM)
    assert moved == register_containerd(VERSION_2, "f", SHIM)
    assert json.loads(register_docker(register_docker("", "f", ELSEWHERE), "f", SHIM)) == {
        "runtimes": {"rune": {"runtimeType": "io.containerd.rune.v2"}}
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[plugins", "f is no TOML"),
        ('version = "2"\n', "version is '2'"),
        (
            'version = 2\n\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.rune]\n',
            "f, line 3: there is a runtime rune already",
        ),
        ("version = 2\nplugins = {}\n", "f cannot have another runtime"),
    ],
)
def test_a_file_of_containerd_that_cannot_have_the_runtime_is_refused(text: str, words: str) -> None:
    with pytest.raises(HostError, match=words):
        register_containerd(text, "f", SHIM)


def test_damaged_marks_are_left_to_the_administrator() -> None:
    after = register_containerd("", "f", SHIM)
    for damaged in (after.replace("# --- end of rune\n", ""), after + after):
        with pytest.raises(HostError, match="are damaged"):
            unregister_containerd(damaged, "f")


DOCKER_FILE = """{
  "data-root": "/srv/döcker",
  "runtimes": {
    "crun": {
      "path": "/usr/bin/crun"
    }
  },
  "debug": true
}
"""


@pytest.mark.parametrize("before", ["", DOCKER_FILE, '{\n\t"debug": true\n}\n'])
def test_dockers_file_gets_the_runtime_and_keeps_the_rest(before: str) -> None:
    after = register_docker(before, "f", SHIM)
    document = json.loads(after)
    assert document["runtimes"].pop("rune") == {"runtimeType": "io.containerd.rune.v2"}
    assert register_docker(after, "f", SHIM) == after
    assert unregister_docker(after, "f") == before
    assert unregister_docker(before, "f") == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "f is no JSON"),
        ("[" * 100000, "f is no JSON"),
        ('{"a": 1, "a": 2}', "f is no JSON: a member is there twice"),
        ("[]", "f is no JSON object"),
        ('{"runtimes": []}', r"runtimes is \[\]"),
        ('{"runtimes": {"rune": {"path": "/usr/bin/rune"}}}', "there is a runtime rune already"),
        ('{"runtimes": {"rune": null}}', "there is a runtime rune already"),
    ],
)
def test_a_file_of_docker_that_cannot_have_the_runtime_is_refused(text: str, words: str) -> None:
    with pytest.raises(HostError, match=words):
        register_docker(text, "f", SHIM)


def test_a_runtime_that_is_the_default_stays() -> None:
    text = json.dumps({"default-runtime": "rune", **json.loads(register_docker("", "f", SHIM))})
    with pytest.raises(HostError, match="default-runtime is rune"):
        unregister_docker(text, "f")


def test_what_somebody_else_has_registered_stays() -> None:
    text = '{"runtimes": {"rune": {"path": "/usr/bin/rune"}}}'
    assert unregister_docker(text, "f") == text
    assert unregister_containerd(VERSION_2, "f") == VERSION_2


@given(st.text() | st.text(alphabet='{}[]":,\n rune#-').map(lambda text: register_containerd("", "f", SHIM) + text))
def test_any_text_is_changed_or_refused_by_our_error(text: str) -> None:
    for change in (register_containerd, register_docker):
        try:
            after = change(text, "f", SHIM)
        except HostError:
            continue
        assert change(after, "f", SHIM) == after


def dumped(text: str, folder: Path) -> str:
    """Return what containerd makes of a configuration file."""
    (folder / "config.toml").write_text(text)
    words = ["containerd", "--config", str(folder / "config.toml"), "config", "dump"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout


@needs_containerd
@pytest.mark.parametrize("before", ["", 'root = "/srv"\n', VERSION_2, WITH_RUNTIMES])
def test_containerd_knows_the_runtime_and_keeps_the_others(tmp_path: Path, before: str) -> None:
    whole = tomllib.loads(dumped(register_containerd(before, "f", SHIM), tmp_path))
    (plugin,) = [plugin for name, plugin in whole["plugins"].items() if "containerd" in plugin and "cri" in name]
    known = plugin["containerd"]["runtimes"]
    assert {name: known["rune"][name] for name in ENTRY} == ENTRY
    assert plugin["containerd"]["default_runtime_name"] in known
    if before == VERSION_2:
        assert (plugin["sandbox_image"], plugin["cni"]["bin_dir"]) == ("pause:own", "/usr/lib/cni")
    if before == WITH_RUNTIMES:
        assert known["mine"]["options"] == {"SystemdCgroup": True}


def runectl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; sys.argv[0] = '/usr/local/bin/runectl'; from inclavare.cli.runectl import main; sys.exit(main())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    command = [sys.executable, "-c", program, "register", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("engine", "path"), [("containerd", "etc/containerd/config.toml"), ("docker", "etc/docker/daemon.json")]
)
def test_the_command_writes_the_file_and_takes_it_away(tmp_path: Path, engine: str, path: str) -> None:
    done = runectl(engine, "--root", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"{tmp_path / path}: with runtime rune; restart {engine}\n",
        "",
    )
    assert "rune" in (tmp_path / path).read_text()
    assert runectl(engine, "--root", tmp_path).stdout == f"{tmp_path / path}: nothing to change\n"
    assert runectl(engine, "--root", tmp_path, "--undo").returncode == 0
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_the_command_keeps_link_and_mode(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "daemon.json"
    real.write_text("{}")
    real.chmod(0o600)
    link.symlink_to(real)
    assert runectl("docker", "--config", link).returncode == 0
    assert link.is_symlink()
    assert (real.stat().st_mode & 0o777, "runtimes" in json.loads(real.read_text())) == (0o600, True)


def test_a_dry_run_prints_and_changes_nothing(tmp_path: Path) -> None:
    done = runectl("containerd", "--root", tmp_path, "--shim", SHIM, "--dry-run")
    assert done.stdout == register_containerd("", "f", SHIM)
    told = json.loads(runectl("containerd", "--root", tmp_path, "--shim", SHIM, "--dry-run", "--json").stdout)
    assert (told["changed"], told["content"]) == (True, done.stdout)
    assert not list(tmp_path.iterdir())


def test_what_was_changed_is_told_to_programs(tmp_path: Path) -> None:
    file = str(tmp_path / "etc/docker/daemon.json")
    for changed in (True, False):
        told = json.loads(runectl("docker", "--root", tmp_path, "--json").stdout)
        assert told == {"engine": "docker", "config": file, "changed": changed}
    assert "rune" in json.loads(Path(file).read_text())["runtimes"]


def test_a_file_that_containerd_would_prefer_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "etc/containerd"
    (folder / "conf.d").mkdir(parents=True)
    (folder / "conf.d/other.toml").write_text(VERSION_2)
    (folder / "config.toml").write_text('version = 2\nimports = ["/etc/containerd/conf.d/*.toml", "conf.d/none"]\n')
    done = runectl("containerd", "--root", tmp_path)
    assert done.returncode == 0
    assert "/etc/containerd/conf.d/other.toml speaks of io.containerd.grpc.v1.cri, too" in done.stderr


def test_a_containerd_without_kubernetes_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(VERSION_1)
    done = runectl("containerd", "--config", tmp_path / "c.toml")
    assert done.returncode == 0
    assert "disables cri: Kubernetes cannot use this containerd" in done.stderr
    assert "is of version 1: containerd 2 ignores its runtimes" in done.stderr


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff")
    for place, words in (
        (tmp_path, "Is a directory"),
        (tmp_path / "file", "is not UTF-8"),
        (tmp_path / "file/x", "cannot read"),
    ):
        done = runectl("docker", "--config", place)
        assert done.returncode == 1
        assert words in done.stderr
