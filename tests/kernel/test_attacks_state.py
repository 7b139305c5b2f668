"""Attacks on what rune keeps and writes outside of containers, tried for real; docs/security.md says what they were."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.kernel.conftest import Bundle, Rune

OTHER = 54_321
COMMANDS = [["state"], ["start"], ["kill"], ["delete"], ["delete", "--force"], ["exec"], ["ps"], ["pause"], ["update"]]


def _kept(rune: Rune, bundle: Bundle) -> Path:
    """Make a container and give its directory."""
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    return rune.root / "c"


def _on(rune: Rune, command: list[str]) -> tuple[int, str]:
    result = rune(*command, "c", *(["true"] if command == ["exec"] else []))
    return result.status, result.error


@pytest.mark.parametrize("umask", ["000", "022"])
def test_the_state_of_a_container_is_for_its_owner_only(rune: Rune, bundle: Bundle, umask: str) -> None:
    bundle.process["args"] = ["sleep", "60"]
    create = rune.command("create", "--bundle", bundle.write(), "c")
    with (rune.directory / "out").open("wb") as out:
        done = subprocess.run(
            ["sh", "-c", f'umask {umask}; exec "$@"', "sh", *create],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            check=False,
        )
    assert done.returncode == 0
    modes = {str(path.relative_to(rune.root)): path.lstat() for path in [rune.root, *rune.root.rglob("*")]}
    assert {status.st_uid for status in modes.values()} == {0}
    assert {name: oct(stat.S_IMODE(status.st_mode)) for name, status in modes.items() if "bpf" not in name} == {
        ".": "0o711",
        "c": "0o700",
        "c/state.json": "0o600",
        "c/config.json": "0o600",
        "c/exec.fifo": "0o600",
    }
    look = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "ls", str(rune.root)]
    assert subprocess.run(look, capture_output=True, check=False).returncode != 0


def _strange(rune: Rune, how: str) -> None:
    directory = rune.root / "c"
    if how == "owner":
        os.chown(directory, OTHER, OTHER)
    elif how == "writable":
        directory.chmod(0o777)
    else:
        directory.rename(rune.directory / "elsewhere")
        directory.symlink_to(rune.directory / "elsewhere")


def _familiar(rune: Rune, how: str) -> None:
    directory = rune.root / "c"
    if how == "link":
        directory.unlink()
        (rune.directory / "elsewhere").rename(directory)
    os.chown(directory, 0, 0)
    directory.chmod(0o700)


@pytest.mark.parametrize("how", ["owner", "writable", "link"])
def test_a_state_directory_that_others_could_have_made_is_not_used(rune: Rune, bundle: Bundle, how: str) -> None:
    """Who plants one decides what root signals, removes and executes."""
    trap = bundle.path / "trapped"
    bundle.config["hooks"] = {"poststop": [{"path": "/bin/touch", "args": ["touch", str(trap)]}]}
    _kept(rune, bundle)
    pid = rune.state()["pid"]
    _strange(rune, how)
    for command in COMMANDS:
        status, error = _on(rune, command)
        assert status != 0
        assert "is not used: it is no directory that only user 0 could have made" in error
    assert "is not used" in rune.run(bundle).error
    assert rune("list", "--format", "json").out == "[]\n"
    assert Path(f"/proc/{pid}").exists()
    assert not trap.exists()
    _familiar(rune, how)


def test_an_old_container_of_somebody_else_is_not_cleared_away(rune: Rune, bundle: Bundle) -> None:
    """A planted record whose creator is dead would have its control groups emptied by the next create."""
    victim = subprocess.Popen(["sleep", "60"])
    group = Path("/sys/fs/cgroup/devices/inclavare-test") / f"{rune.directory.name}-{os.getpid()}-victim"
    if not group.parents[1].is_dir():
        pytest.skip("needs the cgroup v1 controller devices")
    group.mkdir(parents=True)
    try:
        (group / "cgroup.procs").write_text(str(victim.pid))
        planted = rune.root / "c"
        planted.mkdir(parents=True)
        record = {"id": "c", "creator_pid": 1 << 22, "creator_start": 1, "cgroup_paths": {"devices": str(group)}}
        (planted / "state.json").write_text(json.dumps(record))
        os.chown(planted, OTHER, OTHER)
        assert "is not used" in rune.run(bundle).error
        assert "is not used" in rune("delete", "--force", "c").error
        assert victim.poll() is None
        shutil.rmtree(planted)
    finally:
        victim.kill()
        victim.wait()
        time.sleep(0.05)
        group.rmdir()


def test_a_state_root_that_others_can_write_to_is_refused(rune: Rune, bundle: Bundle) -> None:
    rune.root.mkdir()
    rune.root.chmod(0o777)
    result = rune.run(bundle)
    assert result.status == 1
    assert "users other than you can change what is in it" in result.error
    rune.root.chmod(0o1777)
    assert rune.run(bundle).status == 0
    os.chown(rune.root, OTHER, OTHER)
    assert "users other than you can change what is in it" in rune.run(bundle).error
    os.chown(rune.root, 0, 0)


@pytest.mark.parametrize("name", ["..", "a/b", ".x", "/", "a\nb", "x" * 1025, "c/../c", "%s%n", "a\tb", "\x7f"])
def test_ids_that_are_more_than_a_name_are_refused_everywhere(rune: Rune, bundle: Bundle, name: str) -> None:
    bundle.write()
    victim = rune.directory / "victim"
    victim.mkdir()
    for command in (
        [*["create"], "--bundle", str(bundle.path)],
        ["state"],
        ["kill"],
        ["delete"],
        ["delete", "--force"],
    ):
        result = rune(*command, "--", name)
        assert result.status == 1
        assert "invalid container ID format" in result.error
        assert "\n" not in result.error.splitlines()[0]
    assert victim.exists()
    assert not rune.root.exists()


def test_an_id_is_never_an_option(rune: Rune, bundle: Bundle) -> None:
    assert rune("run", "--bundle", bundle.write(), "-x").status == 1
    assert rune("run", "--bundle", bundle.write(), "--", "-x").status == 0
    assert rune.leftovers() == []


def test_a_bundle_behind_a_link_is_what_it_was_when_it_was_read(rune: Rune, bundle: Bundle) -> None:
    """Whoever can change the link afterwards changes neither rootfs nor configuration of the container."""
    bundle.process["args"] = ["sleep", "60"]
    link = rune.directory / "link"
    link.symlink_to(bundle.write())
    with (rune.directory / "out").open("wb") as out:
        done = subprocess.run(rune.command("create", "--bundle", link, "c"), stdout=out, stderr=out, check=False)
    assert done.returncode == 0
    link.unlink()
    other = rune.directory / "other"
    other.mkdir()
    link.symlink_to(other)
    assert rune.state()["bundle"] == str(bundle.path)
    assert rune("start", "c").status == 0
    assert rune("exec", "c", "pwd").out == "/\n"


@pytest.mark.parametrize("place", ["pid", ".pid"])
def test_a_pid_file_is_not_written_through_a_link(rune: Rune, bundle: Bundle, place: str) -> None:
    precious = rune.directory / "precious"
    precious.write_text("precious")
    public = rune.directory / "public"
    public.mkdir()
    (public / place).symlink_to(precious)
    assert rune("run", "--pid-file", public / "pid", "--bundle", bundle.write(), "c").status == 0
    assert precious.read_text() == "precious"
    assert (public / "pid").read_text().isdigit()
    assert not (public / "pid").is_symlink()
    assert [path.name for path in public.iterdir()] == ["pid"]


@pytest.mark.parametrize("what", ["file", "directory", "fifo", "nothing", "datagram"])
def test_a_console_socket_that_is_none_ends_the_container(rune: Rune, bundle: Bundle, what: str) -> None:
    place, link = rune.directory / "s", rune.directory / "l"
    link.symlink_to(place)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if what == "file":
        place.touch()
    elif what == "directory":
        place.mkdir()
    elif what == "fifo":
        os.mkfifo(place)
    elif what == "datagram":
        server.bind(str(place))
    bundle.process["terminal"] = True
    result = rune("create", "--console-socket", link, "--bundle", bundle.write(), "c")
    server.close()
    assert result.status == 1
    assert f"cannot connect to the console socket {link}" in result.error
    assert rune.leftovers() == []


DAMAGES = ["", "{", "[]", "{}", "null", '{"id": "other"}', '{"id": "c"', "\x00" * 100, "[" * 100_000]


@pytest.mark.parametrize("content", DAMAGES)
def test_a_damaged_record_is_said_to_be_and_force_removes_its_container(
    rune: Rune, bundle: Bundle, content: str
) -> None:
    directory = _kept(rune, bundle)
    pid = rune.state()["pid"]
    (directory / "state.json").write_text(content)
    for command in COMMANDS:
        if "--force" not in command:
            status, error = _on(rune, command)
            assert status in (1, 255)
            assert f"{directory}/state.json" in error
            assert "rune delete --force" in error
    removed = rune("delete", "--force", "c")
    assert removed.status == 0
    assert "the record of container c is damaged; its control groups are removed" in removed.error
    assert not Path(f"/proc/{pid}/exe").exists()
    assert rune.leftovers() == []


def test_a_damaged_record_does_not_have_rune_end_itself(rune: Rune, bundle: Bundle) -> None:
    """The group that the configuration names may be one that holds more than the container."""
    directory = _kept(rune, bundle)
    pid = rune.state()["pid"]
    (directory / "state.json").write_text("")
    group = Path(f"/sys/fs/cgroup/devices{bundle.linux['cgroupsPath']}/cgroup.procs")
    if not group.exists():
        pytest.skip("needs the cgroup v1 controller devices")
    command = rune.command("delete", "--force", "c")
    script = f'echo $$ > {group}; exec "$@"'
    done = subprocess.run(["sh", "-c", script, "sh", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "processes of it may still be there" in done.stderr
    assert Path(f"/proc/{pid}/exe").exists()
    os.kill(pid, 9)
    deadline = time.monotonic() + 10
    while group.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for path in Path("/sys/fs/cgroup").glob(f"*{bundle.linux['cgroupsPath']}"):
        path.rmdir()


@pytest.mark.parametrize("pid", [-1, 0, 1, 10**30, "1", None, True, 1.5])
def test_a_record_that_names_another_process_signals_nobody(rune: Rune, bundle: Bundle, pid: object) -> None:
    directory = _kept(rune, bundle)
    record = json.loads((directory / "state.json").read_text())
    (directory / "state.json").write_text(json.dumps({**record, "init_process_pid": pid}))
    assert rune("kill", "c", "KILL").status == 1
    assert "Traceback" not in rune("state", "c").error
    (directory / "state.json").write_text(json.dumps(record))
    assert rune.state()["status"] == "created"
