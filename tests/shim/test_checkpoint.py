"""Checkpoint and restore through the shim: what happens with CRIU, and without."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.containerd_kit import schema
from tests.shim.conftest import Engine
from tests.shim.test_life import UNKNOWN, refused

COUNT = "n=0; while :; do n=$((n+1)); echo $n >/count/now; sleep 0.02; done"


def criu() -> Path | None:
    found = os.environ.get("RUNE_TEST_CRIU") or shutil.which("criu")
    return Path(found) if found else None


@pytest.fixture
def working_engine(rune_engine: Engine) -> Engine:
    """Give an engine whose shims find a CRIU that knows this kernel."""
    program = criu()
    if program is None:
        pytest.skip("needs CRIU (Debian package criu)")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    if int(version.split(".")[0]) < 4:
        pytest.skip(f"needs a CRIU that knows this kernel, not {version}")
    place = rune_engine.directory / "path"
    place.mkdir()
    (place / "criu").symlink_to(program)
    rune_engine.containerd.environment = {"PATH": f"{place}:{os.environ['PATH']}"}
    return rune_engine


def counting(engine: Engine, name: str) -> tuple[Path, list[dict[str, object]]]:
    shared = engine.directory / name
    shared.mkdir(exist_ok=True)
    mount: dict[str, object] = {"destination": "/count", "type": "bind", "source": str(shared), "options": ["bind"]}
    return shared / "now", [mount]


def test_without_criu_a_checkpoint_fails_and_the_task_goes_on(rune_engine: Engine) -> None:
    rune_engine.containerd.environment = {"PATH": str(rune_engine.directory)}
    task = rune_engine.run()
    with refused(UNKNOWN, "[Cc][Rr][Ii][Uu]"):
        task.rpc.call("Checkpoint", id=task.id, path=str(rune_engine.directory / "image"))
    assert task.status() == "running"
    task.kill()
    task.wait()


def test_a_task_goes_on_where_its_checkpoint_was(working_engine: Engine) -> None:
    bundle = working_engine.bundle(["sh", "-c", COUNT])
    bundle.config["root"] = {"path": "rootfs"}
    upper = [bundle.path / name for name in ("upper", "work")]
    for each in upper:
        each.mkdir()
    options = [f"lowerdir={working_engine.rootfs}", f"upperdir={upper[0]}", f"workdir={upper[1]}"]
    mounts = [{"type": "overlay", "source": "overlay", "options": options}]
    now, more = counting(working_engine, "shared")
    bundle.config["mounts"] += more
    task = working_engine.run(bundle, rootfs=mounts)
    while not now.exists() or int(now.read_text() or 0) < 5:
        time.sleep(0.02)
    image = working_engine.directory / "image"
    chosen = schema.pack("containerd.runc.v1.CheckpointOptions", exit=True)
    task.rpc.call("Checkpoint", id=task.id, path=str(image), options=chosen)
    working_engine.events.wait("TaskCheckpointed", task.id, checkpoint=str(image))
    assert task.wait() == 137
    task.delete()
    before = int(now.read_text())
    task.begin()
    assert task.create(rootfs=mounts, checkpoint=str(image)) == 0
    assert task.start() > 0
    while int(now.read_text() or 0) <= before:
        time.sleep(0.02)
    assert int(now.read_text()) < before + 500
    task.kill()
    assert task.wait() == 137
    task.delete()


def test_a_task_may_go_on_after_its_checkpoint(working_engine: Engine) -> None:
    task = working_engine.run()
    task.rpc.call("Checkpoint", id=task.id, path=str(working_engine.directory / "image"))
    assert task.status() == "running"
    assert list((working_engine.directory / "image").glob("*.img"))
