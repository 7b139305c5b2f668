"""Programs under a real AppArmor profile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.conftest import Bundle, Rune

APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
PROFILE = f"inclavare-test-{os.getpid()}"


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[str]:
    """Load a profile under which all is allowed but to write to /tmp."""
    parser = shutil.which("apparmor_parser")
    if not APPARMOR.exists() or not APPARMOR.read_text().startswith("Y") or parser is None:
        pytest.skip("needs a kernel that uses AppArmor, and apparmor_parser")
    text = tmp_path / "profile"
    rules = "capability, network, mount, signal, ptrace, unix, file, deny /tmp/** w,"
    text.write_text(f"profile {PROFILE} flags=(attach_disconnected) {{ {rules} }}\n")
    subprocess.run([parser, "--replace", "--skip-cache", text], check=True)
    yield PROFILE
    subprocess.run([parser, "--remove", "--skip-cache", text], check=True)


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_profile_confines_the_program_and_that_of_exec(
    rune: Rune, bundle: Bundle, profile: str, tmp_path: Path, *, no_new_privileges: bool
) -> None:
    bundle.process["apparmorProfile"] = profile
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.shell("cat /proc/self/attr/current; touch /tmp/x; touch /x; sleep 60")
    rune.create(bundle)
    assert rune("start", "c").status == 0
    args = ["sh", "-c", "cat /proc/self/attr/current; touch /tmp/y; ls /x"]
    (tmp_path / "process.json").write_text(json.dumps({"args": args, "cwd": "/", "env": ["PATH=/bin"]}))
    for words in (["c", *args], ["--process", tmp_path / "process.json", "c"]):
        inside = rune("exec", *words)
        assert inside.out == f"{profile} (enforce)\n/x\n", inside.error
        assert "/tmp/y: Permission denied" in inside.error
    assert rune.out == f"{profile} (enforce)\n"
    assert "/tmp/x: Permission denied" in rune.error


def test_a_profile_confines_in_a_user_namespace(rune: Rune, bundle: Bundle, profile: str) -> None:
    bundle.linux["namespaces"].append({"type": "user"})
    for member in ("uidMappings", "gidMappings"):
        bundle.linux[member] = [{"containerID": 0, "hostID": 0, "size": 65536}]
    bundle.process["apparmorProfile"] = profile
    bundle.process["args"] = ["cat", "/proc/self/attr/current"]
    result = rune.run(bundle)
    assert result.out == f"{profile} (enforce)\n", result.error


def test_exec_confines_and_a_start_hook_is_confined(rune: Rune, bundle: Bundle, profile: str) -> None:
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    assert rune("start", "c").status == 0
    assert rune("exec", "c", "cat", "/proc/self/attr/current").out == "unconfined\n"
    assert rune("exec", "--apparmor", profile, "c", "cat", "/proc/self/attr/current").out == f"{profile} (enforce)\n"
    assert rune("delete", "--force", "c").status == 0
    script = "cat /proc/self/attr/current >/hook"
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    bundle.process["apparmorProfile"] = profile
    bundle.process["args"] = ["cat", "/hook"]
    assert rune.run(bundle).out == f"{profile} (enforce)\n"


@pytest.mark.usefixtures("profile")
def test_a_profile_that_is_not_loaded_is_named(rune: Rune, bundle: Bundle) -> None:
    bundle.process["apparmorProfile"] = "inclavare-absent"
    result = rune.run(bundle)
    assert result.status == 1
    assert (
        "cannot take the AppArmor profile inclavare-absent (process.apparmorProfile): no such profile" in result.error
    )
    assert rune.leftovers() == []
