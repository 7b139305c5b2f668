"""Hosts that refuse: full disks, too few fds, no /proc, and a delete that fails or is killed at any of its calls.

A clear error, nothing left, `delete --force` works, and so does the same id again.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kernel.conftest import Bundle, Result, Rune

CALLS = "rmdir,unlink,kill,pidfd_open,pidfd_send_signal,poll"


def _recovers(rune: Rune, bundle: Bundle, when: str) -> None:
    done = rune("delete", "--force", "c")
    assert done.status == 0, f"{when}: {done.error}"
    assert rune.leftovers() == [], when
    rune.create(bundle)
    assert rune("delete", "--force", "c").status == 0, when
    assert rune.leftovers() == [], when


def _is_clear(result: Result, *words: str) -> None:
    lines = result.error.splitlines()
    assert lines[0].startswith("rune: "), result.error
    assert all(line.startswith("hint: ") for line in lines[1:]), result.error
    for word in words:
        assert word in lines[0], result.error


def _refused(rune: Rune, *before: str, command: list[str]) -> Result:
    """Run a command that may make a container: its output goes to files."""
    out, error = rune.directory / "out", rune.directory / "error"
    with out.open("wb") as out_file, error.open("wb") as error_file:
        done = subprocess.run(
            [*before, *command], stdin=subprocess.DEVNULL, stdout=out_file, stderr=error_file, check=False, timeout=60
        )
    return Result(subprocess.CompletedProcess([], done.returncode, out.read_bytes(), error.read_bytes()))


@pytest.mark.parametrize("options", ["size=4k", "nr_inodes=2", "nr_inodes=3", "nr_inodes=4", "nr_inodes=5", "ro"])
def test_a_state_directory_that_takes_nothing_more_is_named(rune: Rune, bundle: Bundle, options: str) -> None:
    rune.root.mkdir()
    bundle.config["annotations"] = {"filler": "x" * 8192}
    command = rune.command("create", "--bundle", bundle.write(), "c")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", rune.root], check=True)
    try:
        result = _refused(rune, command=command)
        assert result.status == 1
        _is_clear(result, "Read-only file system" if options == "ro" else "o space left on device", str(rune.root))
        assert rune("delete", "--force", "c").status == 0
        assert list(rune.root.iterdir()) == []
    finally:
        subprocess.run(["umount", rune.root], check=True)
    _recovers(rune, bundle, options)


def test_too_few_fds_are_told_and_undo_what_was_made(rune: Rune, bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "100"]
    bundle.write()
    create = rune.command("create", "--bundle", bundle.path, "c")
    for limit in range(4, 40):
        result = _refused(rune, "sh", "-c", f'ulimit -S -n {limit}; exec "$@"', "sh", command=create)
        if result.status == 0:
            break
        _is_clear(result, "Too many open files")
        assert rune.leftovers() == [], f"{limit} fds"
    assert result.status == 0, result.error
    assert rune("start", "c").status == 0
    command = rune.command("exec", "c", "true")
    for limit in range(4, 40):
        result = _refused(rune, "sh", "-c", f'ulimit -S -n {limit}; exec "$@"', "sh", command=command)
        if result.status == 0:
            break
        assert result.status == 255
        _is_clear(result, "Too many open files")
    assert result.status == 0, result.error
    _recovers(rune, bundle, "few fds")


def test_a_host_without_proc_is_told(rune: Rune, bundle: Bundle) -> None:
    command = rune.command("create", "--bundle", bundle.write(), "c")
    script = 'umount -l /proc; exec "$@"'
    result = _refused(rune, "unshare", "--mount", "sh", "-c", script, "sh", command=command)
    assert result.status == 1
    _is_clear(result, "/proc")
    _recovers(rune, bundle, "without /proc")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace (Debian package of that name)")
@pytest.mark.parametrize("fault", ["error=EIO", "error=EBUSY", "signal=KILL"])
def test_a_delete_that_fails_or_is_killed_at_any_call_can_be_repeated(
    rune: Rune, bundle: Bundle, tmp_path: Path, fault: str
) -> None:
    bundle.process["args"] = ["sleep", "100"]
    trace = tmp_path / "trace"
    command = rune.command("delete", "--force", "c")
    for number in range(1, 60):
        rune.create(bundle)
        assert rune("start", "c").status == 0
        inject = f"inject={CALLS}:{fault}:when={number}"
        result = _refused(
            rune, "strace", "-qq", "-o", str(trace), "-e", f"trace={CALLS}", "-e", inject, command=command
        )
        met = "INJECTED" in trace.read_text() or "killed by SIGKILL" in trace.read_text()
        if result.status == 1:
            _is_clear(result)
        else:
            assert result.status in (0, -9, 137), result.error
        _recovers(rune, bundle, f"{fault} at call {number}")
        if not met:
            break
    assert not met
    assert number >= 4  # on cgroup v2, which has one hierarchy
