"""AppArmor and SELinux: what the host does not have is refused; where it has it, the program is under its rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from inclavare.container.plan import Plan, describe
from inclavare.container.steps import add_labels
from inclavare.oci.spec import parse_process
from tests.kernel.conftest import Bundle, Rune

APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
MODULES = [
    ("apparmorProfile", "AppArmor", APPARMOR.exists() and APPARMOR.read_text().startswith("Y")),
    ("selinuxLabel", "SELinux", Path("/sys/fs/selinux/enforce").exists()),
]


@pytest.mark.parametrize(("name", "module", "there"), MODULES)
def test_a_label_that_the_host_cannot_give_is_refused(
    rune: Rune, bundle: Bundle, name: str, module: str, *, there: bool
) -> None:
    if there:
        pytest.skip(f"this host has {module}")
    bundle.process[name] = "some-label"
    result = rune.run(bundle)
    assert result.status == 1
    assert f"process.{name}: this host has no {module}" in result.error


def test_unconfined_is_what_a_host_without_apparmor_gives(rune: Rune, bundle: Bundle) -> None:
    bundle.process["apparmorProfile"] = "unconfined"
    bundle.shell("true")
    assert rune.run(bundle).status == 0


@pytest.mark.skipif(not MODULES[0][2], reason="needs a kernel with AppArmor")
def test_the_program_is_under_its_profile(rune: Rune, bundle: Bundle) -> None:
    bundle.process["apparmorProfile"] = "unconfined"
    bundle.shell("cat /proc/self/attr/apparmor/current")
    assert rune.run(bundle).out.startswith("unconfined")


def test_labels_are_taken_through_the_files_of_the_host() -> None:
    document = {"args": ["x"], "cwd": "/", "apparmorProfile": "docker-default", "selinuxLabel": "a:b:c:d"}
    plan = Plan()
    add_labels(plan, parse_process(document))
    text = describe(plan)
    assert "take the AppArmor profile docker-default" in text
    assert "take the SELinux label a:b:c:d" in text


@pytest.mark.parametrize(("option", "member"), [("--apparmor", 0), ("--process-label", 1)])
def test_exec_refuses_a_label_that_the_host_cannot_give(rune: Rune, bundle: Bundle, option: str, member: int) -> None:
    name, module, there = MODULES[member]
    if there:
        pytest.skip(f"this host has {module}")
    rune.create(bundle)
    refused = rune("exec", option, "some-label", "c", "true")
    assert refused.status == 255
    assert f"process.{name}: this host has no {module}" in refused.error


def test_mounts_have_no_labels_where_there_is_no_selinux(rune: Rune, bundle: Bundle) -> None:
    if MODULES[1][2]:
        pytest.skip("this host has SELinux")
    bundle.linux["mountLabel"] = "system_u:object_r:container_file_t:s0:c1,c2"
    result = rune.run(bundle)
    assert result.status == 1
    assert "linux.mountLabel: this host has no SELinux" in result.error
