from __future__ import annotations

import json
from typing import Any

import pytest

from inclavare.container import features
from inclavare.linux import mountflags
from inclavare.oci.spec import Hooks
from tests.kernel.conftest import Bundle, Rune


@pytest.fixture
def told(rune: Rune) -> dict[str, Any]:
    result = rune("features")
    assert result.status == 0, result.error
    document: dict[str, Any] = json.loads(result.out)
    return document


def test_features_name_every_hook_that_is_run(told: dict[str, Any]) -> None:
    assert len(features.HOOKS) == len(Hooks.__slots__)
    assert told["hooks"] == list(features.HOOKS)


def test_features_name_mount_options_that_are_understood(told: dict[str, Any]) -> None:
    assert {"bind", "rro", "rslave", "noatime"} <= set(told["mountOptions"])
    mountflags.parse(told["mountOptions"], bind=True, path="mounts[0].options")  # unknown ones are errors on a bind


def test_every_seccomp_action_named_makes_a_container(told: dict[str, Any], rune: Rune, bundle: Bundle) -> None:
    actions = told["linux"]["seccomp"]["actions"]
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": told["linux"]["seccomp"]["archs"],
        "syscalls": [{"names": ["kexec_load"], "action": action} for action in actions if action != "SCMP_ACT_NOTIFY"],
    }
    result = rune.run(bundle)
    assert result.status == 0, result.error


def test_what_features_denies_is_refused_by_name(told: dict[str, Any], rune: Rune, bundle: Bundle) -> None:
    bundle.linux["intelRdt"] = {"closID": "x"}
    assert ("linux.intelRdt" in rune.run(bundle).error) == (not told["linux"]["intelRdt"]["enabled"])
