"""rune as a user calls it, from the checkout."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Bundle, Rune


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_run_exits_with_the_programs_status(rune: Rune, busybox_bundle: Bundle, status: int) -> None:
    busybox_bundle.config["process"]["args"] = ["sh", "-c", f"exit {status}"]
    done = rune("run", "--bundle", busybox_bundle.write(), "status")
    assert done.returncode == status, done.stderr


def test_a_container_goes_through_its_life(rune: Rune, busybox_bundle: Bundle) -> None:
    busybox_bundle.config["process"]["args"] = ["sh", "-c", "echo alive; exec sleep 100"]
    output = rune.create(busybox_bundle, "life")
    assert rune.state("life")["status"] == "created"
    assert rune("start", "life").returncode == 0
    assert rune.state("life")["status"] == "running"
    assert rune("exec", "life", "sh", "-c", "exit 7").returncode == 7
    assert rune("kill", "life", "KILL").returncode == 0
    rune.wait_for("life", "stopped")
    assert rune("delete", "life").returncode == 0
    assert output.read_text() == "alive\n"
