"""Containers of a user who is not root: a copy of the built rune, run as a uid that nobody has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.conftest import BUILT, SOURCE

UID = 54_321
SUBORDINATE = 300_000
Document = dict[str, Any]


class User:
    """A user with a bundle, a state directory and rune."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bundle = directory / "bundle"
        self.environment = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(directory / "run")}
        self.prefix: list[str] = []

    def __call__(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        become = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        command = [*self.prefix, *become, str(self.directory / "bin/rune"), *map(str, words)]
        given: dict[str, Any] = {"env": self.environment, "stdin": subprocess.DEVNULL, "capture_output": True}
        return subprocess.run(command, text=True, check=False, timeout=60, cwd=self.bundle, **given | options)

    def edit(self, change: Callable[[Document], object]) -> None:
        path = self.bundle / "config.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    def program(self, script: str) -> None:
        self.edit(lambda document: document["process"].update(args=["sh", "-c", script], terminal=False))


@pytest.fixture
def user(rootfs: Path) -> Iterator[User]:
    """A directory that others can enter, unlike those of pytest."""
    directory = Path(tempfile.mkdtemp(prefix="rune-rootless-"))
    directory.chmod(0o755)
    try:
        if BUILT.exists() and not BUILT.read_bytes().startswith(b"#!"):
            (directory / "bin").mkdir()
            shutil.copy(BUILT, directory / "bin/rune")
            shutil.copytree(SOURCE / "inclavare", directory / "lib/inclavare/inclavare")
        else:
            pytest.skip("needs the built launcher, which finds its library beside it")
        shutil.copytree(rootfs, directory / "bundle/rootfs", symlinks=True)
        (directory / "run").mkdir(mode=0o700)
        subprocess.run(["chown", "-R", f"{UID}:{UID}", directory / "bundle", directory / "run"], check=True)
        user = User(directory)
        made = user("spec", "--rootless")
        assert made.returncode == 0, made.stderr
        yield user
        for state in json.loads(user("list", "--format", "json").stdout or "[]"):
            user("delete", "--force", state["id"])
        assert not list((directory / "run").glob("rune/[!.]*"))
    finally:
        shutil.rmtree(directory)


def test_a_container_of_the_template_runs(user: User) -> None:
    user.program("id -u; cat /proc/self/uid_map /proc/self/setgroups; echo $$; head -c 2 /dev/zero | wc -c; exit 5")
    done = user("run", "c")
    assert (done.returncode, done.stderr) == (5, "")
    assert done.stdout.split() == ["0", "0", str(UID), "1", "deny", "1", "2"]


def test_the_life_of_a_container(user: User) -> None:
    user.program("sleep 100")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "capture_output": False}
    assert user("create", "c", **quiet).returncode == 0
    assert user("start", "c").returncode == 0
    (listed,) = json.loads(user("list", "--format", "json").stdout)
    assert (listed["id"], listed["status"], listed["owner"]) == ("c", "running", str(UID))
    assert listed["pid"] in json.loads(user("ps", "--format", "json", "c").stdout)
    inside = user("exec", "c", "sh", "-c", "id -u; readlink /proc/1/exe; exit 7")
    assert (inside.returncode, inside.stdout.split()) == (7, ["0", "/bin/busybox"])
    assert user("kill", "c", "KILL").returncode == 0
    assert user("delete", "--force", "c").returncode == 0
    assert "does not exist" in user("state", "c").stderr


def test_limits_without_a_cgroup_to_set_them_in_are_an_error(user: User) -> None:
    user.program("true")
    user.edit(lambda document: document["linux"].update(resources={"memory": {"limit": 1 << 26}}))
    done = user("run", "c")
    assert done.returncode == 1
    assert "cannot be made without root" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda document: document["linux"].update(
                namespaces=document["linux"]["namespaces"][1:], uidMappings=[], gidMappings=[]
            ),
            "linux.namespaces: rootless containers need a user namespace of their own",
        ),
        (
            lambda document: document["process"]["user"].update(additionalGids=[0]),
            "process.user.additionalGids: cannot set additional groups in a rootless container",
        ),
        (
            lambda document: document["mounts"][2]["options"].append("gid=5"),
            "mounts[2].options: cannot use gid=5: the id is not mapped",
        ),
        (lambda document: document["linux"].update(cgroupsPath="/x"), "cannot use linux.cgroupsPath /x"),
    ],
)
def test_what_only_root_can_have_is_refused_by_name(
    user: User, change: Callable[[Document], object], message: str
) -> None:
    user.program("true")
    user.edit(change)
    done = user("run", "c")
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.skipif(shutil.which("newuidmap") is None, reason="needs newuidmap (Debian package uidmap)")
def test_more_ids_are_mapped_with_the_helpers(user: User) -> None:
    """/etc is the user's own for the time of the test."""
    etc = user.directory / "etc"
    etc.mkdir()
    (etc / "passwd").write_text(f"root:x:0:0::/root:/bin/sh\ntester:x:{UID}:{UID}::/:/bin/sh\n")
    (etc / "group").write_text(f"root:x:0:\ntester:x:{UID}:\n")
    for name in ("subuid", "subgid"):
        (etc / name).write_text(f"tester:{SUBORDINATE}:100\n")
    layers = f"lowerdir={etc}:/etc,upperdir={etc}/up,workdir={etc}/work"
    overlay = f"mkdir -p {etc}/up {etc}/work; mount -t overlay -o {layers} overlay /etc"
    user.prefix = ["unshare", "--mount", "sh", "-ec", f'{overlay}; exec "$@"', "sh"]
    mappings = [
        {"containerID": 0, "hostID": UID, "size": 1},
        {"containerID": 1, "hostID": SUBORDINATE, "size": 100},
    ]
    user.program("cat /proc/self/uid_map; touch /tmp/x; chown 5:6 /tmp/x; stat -c %u:%g /tmp/x; id -u")
    user.edit(lambda document: document["linux"].update(uidMappings=mappings, gidMappings=mappings))
    user.edit(lambda document: document["process"]["user"].update(additionalGids=[7]))
    user.edit(lambda document: [names.append("CAP_CHOWN") for names in document["process"]["capabilities"].values()])
    user.edit(lambda document: document["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}))
    done = user("run", "c")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["0", str(UID), "1", "1", str(SUBORDINATE), "100", "5:6", "0"]
    user.edit(lambda document: document["linux"]["uidMappings"][1].update(hostID=1))
    refused = user("run", "c")
    assert refused.returncode == 1
    assert "cannot map ids with `newuidmap" in refused.stderr


def test_without_a_place_for_the_state_rune_asks_for_one(user: User) -> None:
    done = user("list", env={"PATH": os.environ["PATH"]})
    assert done.returncode == 1
    assert "XDG_RUNTIME_DIR is not set" in done.stderr
