"""An ordinary image becomes an enclave container: prepared by a carrier, run by rune on the software platform."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from inclavare import carriers
from inclavare.log import Log
from tests.conftest import Rune
from tests.unit.carriers.conftest import emulated_settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Bundle


@pytest.fixture
def emulated(rune: Rune) -> Rune:
    rune.options = ("--sgx-platform", "emulated")
    return rune


@pytest.mark.parametrize("cwd", ["/", "/run/rune"])
def test_a_busybox_image_runs_in_the_skeletons_enclave(emulated: Rune, busybox_bundle: Bundle, cwd: str) -> None:
    busybox_bundle.config["process"]["env"].append("RUNE_CARRIER=skeleton")
    busybox_bundle.config["process"]["cwd"] = cwd
    bundle = busybox_bundle.write()
    carriers.prepare(str(bundle), emulated_settings(), Log(sys.stderr.fileno()), {})
    done = emulated("run", "--bundle", bundle, "skeleton")
    assert done.returncode == 0, done.stderr
    assert "Hello Inclavare Containers!\n" in done.stdout
    assert "Enclave runtime skeleton initialization succeeded" in done.stdout + done.stderr


def test_the_same_image_without_a_carrier_is_an_ordinary_container(emulated: Rune, busybox_bundle: Bundle) -> None:
    busybox_bundle.config["process"]["args"] = ["echo", "plain"]
    bundle: Path = busybox_bundle.write()
    carriers.prepare(str(bundle), emulated_settings(), Log(sys.stderr.fileno()), {})
    done = emulated("run", "--bundle", bundle, "plain")
    assert (done.returncode, done.stdout) == (0, "plain\n"), done.stderr
