"""The hot commands import little: every module costs each container its time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kernel.conftest import SOURCE, Bundle, Rune

COSTLY = {
    "argparse",
    "collections",
    "contextlib",
    "ctypes",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "inspect",
    "json",
    "logging",
    "pathlib",
    "re",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "tomllib",
    "traceback",
    "typing",
}


def _imported(rune: Rune, *words: str) -> set[str]:
    _, *rest = rune.command(*words)
    done = subprocess.run(
        [sys.executable, "-IS", "-X", "importtime", str(SOURCE / "inclavare/__main__.py"), *rest],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("command", ["run", "state", "exec", "kill", "list"])
def test_a_hot_command_imports_nothing_costly(rune: Rune, bundle: Bundle, command: str) -> None:
    words = {
        "run": ["run", "--bundle", str(bundle.write()), "other"],
        "state": ["state", "c"],
        "exec": ["exec", "c", "true"],
        "kill": ["kill", "c", "CONT"],
        "list": ["list"],
    }[command]
    if command != "run":
        bundle.process["args"] = ["sleep", "60"]
        rune.create(bundle)
        assert rune("start", "c").status == 0
    imported = _imported(rune, *words)
    assert "inclavare.cli.rune" in imported
    assert not imported & COSTLY


def test_a_plain_container_imports_nothing_of_enclaves(rune: Rune, bundle: Bundle) -> None:
    imported = _imported(rune, "run", "--bundle", str(bundle.write()), "c")
    assert not {name for name in imported if name.startswith(("inclavare.enclave", "inclavare.sgx"))}


def test_a_plain_container_imports_nothing_of_systemd(rune: Rune, bundle: Bundle) -> None:
    imported = _imported(rune, "run", "--bundle", str(bundle.write()), "c")
    parts = ("scope", "systemd", "dbus", "bus", "gvariant")
    assert not {name for name in imported if name.rpartition(".")[2].startswith(parts)}
