from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.kernel.conftest import Bundle, Rune


def hook(script: str, **more: object) -> dict[str, object]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


def test_a_create_container_hook_sees_the_host_and_the_mounts_at_the_rootfs(rune: Rune, bundle: Bundle) -> None:
    notes = bundle.path / "notes"
    script = f"(cat; echo; pwd; readlink /proc/self/ns/mnt; ls -d {bundle.path}/rootfs/proc/1; env) > {notes}"
    bundle.config["hooks"] = {"createContainer": [hook(script, env=["ONLY=this"])]}
    bundle.shell("readlink /proc/self/ns/mnt")
    result = rune.run(bundle)
    assert result.status == 0, result.error
    state, cwd, mount_namespace, process, *env = notes.read_text().splitlines()
    told = json.loads(state)
    assert (told["status"], told["pid"], told["bundle"]) == ("creating", 1, str(bundle.path))
    assert cwd == str(bundle.path / "rootfs")
    assert mount_namespace == result.out.strip()
    assert process == f"{bundle.path}/rootfs/proc/1"
    assert {entry.partition("=")[0] for entry in env} <= {"ONLY", "PWD", "OLDPWD", "SHLVL", "_"}


def test_what_a_create_container_hook_mounts_is_in_the_container(rune: Rune, bundle: Bundle) -> None:
    bundle.config["hooks"] = {
        "createContainer": [hook(f"mount -t tmpfs -o size=12k mine {bundle.path}/rootfs/tmp", env=["PATH=/bin:/sbin"])]
    }
    bundle.shell("cat /proc/mounts; ls /")
    result = rune.run(bundle)
    assert "mine /tmp tmpfs" in result.out, result.error
    assert str(bundle.path) not in result.out


def test_a_failed_create_container_hook_undoes_the_container(rune: Rune, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"createContainer": [hook("true"), hook("echo no >&2; exit 4")]}
    result = rune.run(bundle)
    assert result.status == 1
    assert "error running createContainer hook #1 (/bin/sh): exit status 4, stdout: , stderr: no" in result.error
    assert rune.leftovers() == []


def test_a_create_container_hook_that_takes_too_long_is_killed(rune: Rune, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"createContainer": [hook("exec sleep 60", env=["PATH=/bin"], timeout=1)]}
    assert "hook ran past specified timeout of 1.0s" in rune.run(bundle).error


def test_a_start_container_hook_is_the_images_with_the_rights_of_the_process(rune: Rune, bundle: Bundle) -> None:
    (bundle.path / "rootfs/tmp").chmod(0o777)
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["cwd"] = "/tmp"
    bundle.config["hooks"] = {
        "startContainer": [hook("(cat; echo; /bin/id -u; pwd; /bin/cat /proc/self/status)>/tmp/n")]
    }
    bundle.config["hooks"]["startContainer"][0]["env"] = ["PATH=/bin"]
    bundle.shell("cat /tmp/n; echo ---; cat /proc/self/status")
    result = rune.run(bundle)
    assert result.status == 0, result.error
    hooked, _, program = result.out.partition("---")
    state, uid, cwd, *_ = hooked.splitlines()
    assert (json.loads(state)["status"], json.loads(state)["pid"], uid, cwd) == ("created", 1, "1000", "/tmp")
    rights = ("CapEff", "CapBnd", "CapPrm", "NoNewPrivs", "Seccomp:")
    assert [line for line in hooked.splitlines() if line.startswith(rights)] == [
        line for line in program.splitlines() if line.startswith(rights)
    ]


def test_start_container_hooks_run_at_start_and_not_at_create(rune: Rune, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"startContainer": [hook("echo hooked > /tmp/n")]}
    bundle.shell("cat /tmp/n")
    rune.create(bundle)
    assert not (bundle.path / "rootfs/tmp/n").exists()
    assert rune("start", "c").status == 0
    rune.wait_for("stopped")
    assert rune.out == "hooked\n"


def test_a_failed_start_container_hook_stops_the_container(rune: Rune, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"startContainer": [hook("exit 5")]}
    bundle.shell("echo ran")
    rune.create(bundle)
    result = rune("start", "c")
    assert "error running startContainer hook #0 (/bin/sh): exit status 5" in result.error
    assert rune.state()["status"] == "stopped"
    assert rune.out == ""


@pytest.mark.parametrize("way", ["run", "start"])
def test_a_failed_poststart_hook_ends_the_container(rune: Rune, bundle: Bundle, way: str) -> None:
    bundle.config["hooks"] = {"poststart": [hook("exit 6"), hook("pwd > notes")], "poststop": [hook("pwd > end")]}
    bundle.shell("sleep 100")
    if way == "run":
        result = rune.run(bundle)
    else:
        rune.create(bundle)
        result = rune("start", "c")
    assert result.status == 1
    assert "error running poststart hook #0 (/bin/sh): exit status 6" in result.error
    assert not (bundle.path / "notes").exists()
    assert (bundle.path / "end").exists()
    assert "does not exist" in rune("state", "c").error


def test_a_hook_has_its_own_environment_or_that_of_rune(rune: Rune, bundle: Bundle) -> None:
    bundle.config["hooks"] = {
        "prestart": [hook("echo $RUNE_TEST > ours"), hook("echo $RUNE_TEST$A > own", env=["A=b=c"])]
    }
    assert rune.run(bundle, env={**os.environ, "RUNE_TEST": "inherited"}).status == 0
    assert (bundle.path / "ours").read_text() == "inherited\n"
    assert (bundle.path / "own").read_text() == "b=c\n"


def test_who_starts_a_container_that_is_being_made_waits_for_that(rune: Rune, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"createRuntime": [hook("sleep 0.2", env=["PATH=/bin"])]}
    bundle.shell("exit 0")
    with subprocess.Popen(
        rune.command("create", "--bundle", bundle.write(), "c"), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as create:
        while "does not exist" in (started := rune("start", "c")).error:
            pass
        assert started.status == 0, started.error
        assert create.wait() == 0
    assert rune("exec", "c", "/bin/true").error.startswith("rune: cannot exec in a stopped container")


def test_a_hook_that_asks_for_its_container_is_not_kept(rune: Rune, bundle: Bundle) -> None:
    words = " ".join(rune.command("state", "c"))
    bundle.config["hooks"] = {"createRuntime": [hook(f"{words} >{bundle.path}/told")]}
    bundle.shell("exit 0")
    assert rune.run(bundle).status == 0
    assert json.loads((bundle.path / "told").read_text())["status"] == "creating"
