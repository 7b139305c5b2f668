"""What a shim is configured with, in each of the ways that containerd has."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from inclavare.shim.actions import _names_a_slice
from tests.containerd_kit import schema
from tests.containerd_kit.containerd import VERSIONS, StartError, Task, runc_options, wait_until_gone
from tests.shim.conftest import Engine
from tests.shim.test_life import INVALID_ARGUMENT, UNKNOWN, refused


def toml(text: str) -> Any:
    """Give options as containerd 1.7 and newer send a runtime's table."""
    return schema.pack("runtimeoptions.v1.Options", type_url="rune", config_body=text.encode())


def in_file(path: Path) -> Any:
    """Give options as containerd 1.6 sends them: where they are."""
    return schema.pack("runtimeoptions.v1.Options", config_path=str(path))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["runc", "body", "path"])
def test_each_kind_is_understood(rune_engine: Engine, kind: str, version: str) -> None:
    root = rune_engine.directory / "other"
    text = f'Root = "{root}"\nNoNewKeyring = true\n'
    (rune_engine.directory / "options.toml").write_text(text)
    rune_engine.options = {
        "runc": runc_options(root=str(root), no_new_keyring=True),
        "body": toml(text),
        "path": in_file(rune_engine.directory / "options.toml"),
    }[kind]
    rune_engine.become(version)
    task = rune_engine.run(["true"])
    assert (root / "kit" / task.id).is_dir()
    assert json.loads((task.bundle / "options.json").read_text())["no_new_keyring"] is True
    assert task.wait() == 0
    task.delete()
    assert not (root / "kit" / task.id).exists()


def test_without_any_the_state_is_where_runcs_is(rune_engine: Engine) -> None:
    namespace = f"inclavare-{os.getpid()}"
    rune_engine.containerd.namespace = namespace
    bundle = rune_engine.bundle()
    task = Task(rune_engine.containerd, rune_engine.program, bundle.path.name, bundle.write(), None)
    rune_engine.tasks.append(task)
    task.begin()
    task.create()
    state = Path("/run/containerd/runc", namespace)
    assert (state / task.id).is_dir()
    task.kill()
    task.wait()
    task.delete()
    assert not (state / task.id).exists()
    wait_until_gone(task.shim_pid)
    for each in (*state.iterdir(), state, state.parent):  # its caches, and what was made for it
        with contextlib.suppress(OSError):
            each.rmdir() if each.is_dir() else each.unlink()


def test_a_runtime_that_the_options_name_is_not_executed(rune_engine: Engine) -> None:
    # The other shim is nothing without one.
    rune_engine.options = runc_options(root=str(rune_engine.state), binary_name="/no/such/runtime")
    task = rune_engine.run(["true"])
    assert task.wait() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (toml("NoSuchKey = 1"), "unknown key 'NoSuchKey'"),
        (toml("SystemdCgroup = 1"), "SystemdCgroup is 1"),
        (toml("= ="), "not valid TOML"),
        (in_file(Path("/no/such/options.toml")), "/no/such/options.toml"),
        (schema.make("google.protobuf.Any", type_url="a.b.C", value=b"x"), "options of type 'a.b.C' are not known"),
        (schema.make("google.protobuf.Any", type_url="containerd.runc.v1.Options", value=b"\xff"), "cut off"),
    ],
    ids=["unknown key", "wrong type", "no TOML", "no file", "unknown type", "malformed"],
)
def test_options_that_are_none_are_refused_with_what_is_wrong(rune_engine: Engine, options: Any, words: str) -> None:
    # The other shim knows runc's alone, and passes over what it cannot read.
    task = rune_engine.task(options=options)
    with pytest.raises(StartError, match=words):
        task.begin()
    good = rune_engine.task()
    good.begin()
    with refused(INVALID_ARGUMENT, words):
        good.create(options=options)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("kubepods-burstable-pod1.slice:cri-containerd:abc", True),
        ("system.slice:docker:abc", True),
        ("/kubepods/burstable/pod1/abc", False),
        ("/a.slice:b:c", False),
        ("a:b:c", False),
        ("a.slice:b", False),
        ("a.slice:b:c:d", False),
        ("", False),
        (None, False),
        (7, False),
    ],
)
def test_a_path_for_systemd_is_known_by_its_form(path: object, *, expected: bool) -> None:
    assert _names_a_slice({"linux": {"cgroupsPath": path}}) is expected


@pytest.mark.parametrize("document", [None, [], {}, {"linux": None}, {"linux": {}}])
def test_a_configuration_without_a_path_names_no_slice(document: object) -> None:
    assert not _names_a_slice(document)


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd would make the group")
def test_a_slice_is_systemds_to_make(rune_engine: Engine) -> None:
    # The other shim needs an option for it.
    bundle = rune_engine.bundle()
    bundle.config["linux"]["cgroupsPath"] = "inclavare.slice:cri-containerd:c"
    task = rune_engine.task(bundle)
    task.begin()
    with refused(UNKNOWN, "systemd"):
        task.create()
