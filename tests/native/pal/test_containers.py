"""Real containers with runtimes that record and that fail: what `rune` does and says, and that nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inclavare.enclave import implicit
from tests.conftest import Bundle, Rune
from tests.native.pal.runelet import text, texts

Recorder = Callable[..., Path]
Edit = Callable[..., Bundle]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for containers")


@pytest.fixture
def rune(rune_program: Path, tmp_path: Path) -> Iterator[Rune]:
    """A rune that may emulate; nothing may be left of its containers."""
    program = Rune(rune_program, tmp_path, "--sgx-platform", "emulated")
    yield program
    program.clean()
    assert not program.leftovers()


@pytest.fixture
def enclave(busybox_bundle: Bundle, recorder: Recorder) -> Edit:
    """Return a function that makes an enclave container of the bundle: version, runtime arguments, program."""

    def edit(version: int = 2, args: str = "", program: list[str] | None = None, pal: Path | None = None) -> Bundle:
        bundle = busybox_bundle
        (bundle.rootfs / "record").touch()
        (bundle.rootfs / "record").chmod(0o666)
        (bundle.rootfs / "work").mkdir(exist_ok=True)
        process = bundle.config["process"]
        process.update(args=program or ["program"], cwd="/work")
        process["env"] += ["RECORD_PATH=/record"]
        bundle.config["annotations"] = {
            "enclave.type": "intelSgx",
            "enclave.runtime.path": str(pal or recorder(version)),
            "enclave.runtime.args": args,
        }
        bundle.config["root"]["readonly"] = False
        return bundle

    return edit


def events(bundle: Bundle) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bundle.rootfs / "record").read_text().splitlines()]


def start(rune: Rune, bundle: Bundle) -> Path:
    output = rune.create(bundle, "c")
    assert rune("start", "c").returncode == 0
    await_words(output, "waiting")
    return output


def await_words(output: Path, words: str) -> None:
    deadline = time.monotonic() + 10
    while words not in output.read_text():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.02)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_container_runs_its_program_in_the_runtime(rune: Rune, enclave: Edit, version: int) -> None:
    bundle = enclave(version, "a,b c", ["program", "exit", "7"])
    done = rune("run", "--bundle", bundle.write(), "c")
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr.count("\n") == 1
    assert "this enclave runs on the software SGX platform, which protects nothing" in done.stderr
    calls = [event["call"] for event in events(bundle)]
    assert calls == ["get_version", "init", *(["create_process"] if version > 1 else []), "exec", "destroy"]
    assert text(events(bundle)[1]["args"]) == "a b c"
    assert all(event["pid"] == 1 and text(event["cwd"]) == "/work" for event in events(bundle))


def test_the_program_has_the_user_and_environment_of_the_container_and_no_parameters(rune: Rune, enclave: Edit) -> None:
    bundle = enclave(2, program=["sh", "-c", "exit"])
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    bundle.config["process"]["env"] += ["ENCLAVE_RUNTIME_LOGLEVEL=off", "X=y z"]
    assert rune("run", "--bundle", bundle.write(), "c").returncode == 0
    (process,) = [event for event in events(bundle) if event["call"] == "create_process"]
    assert process["uid"] == 1000
    env = texts(process["env"])
    assert not [entry for entry in env if entry.startswith("ENCLAVE_")]
    assert "X=y z" in env
    assert "HOME=/home/user" in env
    assert text(process["path"]) == "/bin/sh"
    assert texts(process["argv"]) == ["sh", "-c", "exit"]
    assert text(events(bundle)[1]["log_level"]) == "off"


def test_create_initialises_start_runs_and_delete_calls_nothing(rune: Rune, enclave: Edit) -> None:
    bundle = enclave(2)
    rune.create(bundle, "c")
    assert [event["call"] for event in events(bundle)] == ["get_version", "init"]
    assert rune("start", "c").returncode == 0
    rune.wait_for("c", "stopped")
    before = events(bundle)
    assert [event["call"] for event in before][2:] == ["create_process", "exec", "destroy"]
    assert rune("delete", "c").returncode == 0
    assert events(bundle) == before


def test_the_state_says_what_the_enclave_is_made_of(rune: Rune, enclave: Edit) -> None:
    bundle = enclave(3, "debug")
    rune.create(bundle, "c")
    document = json.loads((rune.root / "c/state.json").read_text())
    assert document["enclave_config"]["Enclave"]["args"] == "debug"
    assert "emulated" in json.dumps(rune.state("c"))


def test_a_secret_that_nothing_would_use_is_refused_and_stored_nowhere(rune: Rune, enclave: Edit) -> None:
    bundle = enclave(3)
    bundle.config["annotations"]["enclave.attestation.ra_epid_subscription_key"] = "0123secret"
    done = rune("run", "--bundle", bundle.write(), "c")
    assert done.returncode == 1
    assert "attestation at start is not supported yet" in done.stderr
    assert "0123secret" not in done.stderr
    assert not (rune.root / "c").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_kill_reaches_the_runtime_and_decides_the_exit_code(rune: Rune, enclave: Edit, number: signal.Signals) -> None:
    bundle = enclave(2, program=["program", "wait"])
    command = rune.command("run", "--bundle", bundle.write(), "c")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        assert rune("kill", "c", str(int(number))).returncode == 0
        assert process.wait(10) == 128 + number
    kills = [event for event in events(bundle) if event["call"] == "kill"]
    assert [(event["of"], event["sig"]) for event in kills] == [(-1, number)]


def test_sigkill_needs_nobody(rune: Rune, enclave: Edit) -> None:
    bundle = enclave(2, program=["program", "wait"])
    start(rune, bundle)
    assert rune("kill", "c", "KILL").returncode == 0
    rune.wait_for("c", "stopped")
    assert events(bundle)[-1]["call"] == "exec"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_exec_runs_in_the_same_runtime_with_its_own_words_and_streams(rune: Rune, enclave: Edit, version: int) -> None:
    bundle = enclave(version, program=["program", "wait"])
    start(rune, bundle)
    words = ["tool", "say", "a  b", "", "\udcff\udcfe"]
    done = rune("exec", "--env", "A=b c", "c", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out a  b", "err a  b")
    event = [event for event in events(bundle) if "argv" in event][-1]
    assert texts(event["argv"]) == words
    if version > 1:
        assert "A=b c" in texts(event["env"])
    assert rune("exec", "c", "tool", "exit", "9").returncode == 9
    assert rune("exec", "c", "tool", "cat", stdin=None, input="hello").stdout == "hello"


def test_exec_may_have_a_terminal_of_its_own(rune: Rune, enclave: Edit) -> None:
    start(rune, enclave(2, program=["program", "wait"]))
    master, slave = os.openpty()
    command = rune.command("exec", "--tty", "c", "tool", "say", "words")
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    got = b""
    with contextlib.suppress(OSError):  # how a terminal without processes ends
        while part := os.read(master, 4096):
            got += part
    os.close(master)
    assert process.wait(10) == 0
    assert got == b"out wordserr words"


def test_exec_that_is_signalled_ends_its_program_only(rune: Rune, enclave: Edit) -> None:
    bundle = enclave(2, program=["program", "wait"])
    start(rune, bundle)
    command = rune.command("exec", "c", "tool", "wait")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
    assert rune.state("c")["status"] == "running"


def test_execs_end_with_the_container(rune: Rune, enclave: Edit) -> None:
    bundle = enclave(2, program=["program", "wait"])
    rune.create(bundle, "c")
    command = rune.command("exec", "c", "tool", "wait")
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        assert rune("kill", "c", "KILL").returncode == 0
        assert process.wait(10) == 137


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("result=-22", "pal_init returned -22 (EINVAL: Invalid argument)"),
        ("errno=17 result=-1", "pal_init returned -1 (errno is EEXIST: File exists)"),
        ("crash", "was killed by signal 11"),
        ("abort", "was killed by signal"),
        ("exit=0", "ended with status 0"),
    ],
)
def test_a_runtime_that_does_not_initialise_is_reported_by_create(
    rune: Rune, enclave: Edit, args: str, words: str
) -> None:
    done = rune("create", "--bundle", enclave(2, args).write(), "c")
    assert done.returncode == 1
    assert words in done.stderr
    assert "initialise the enclave runtime" in done.stderr
    assert rune.leftovers() == []


def test_a_runtime_that_exports_too_little_is_reported_by_create(rune: Rune, enclave: Edit, recorder: Recorder) -> None:
    bundle = enclave(pal=recorder(2, "WITHOUT_CREATE_PROCESS"))
    done = rune("run", "--bundle", bundle.write(), "c")
    assert done.returncode == 1
    assert "says it has pal api version 2 but does not export pal_create_process" in done.stderr
    assert rune.leftovers() == []


def test_a_runtime_that_hangs_can_be_given_up(rune: Rune, enclave: Edit) -> None:
    bundle = enclave(2, "hang")
    with subprocess.Popen(rune.command("create", "--bundle", bundle.write(), "c"), stdin=subprocess.DEVNULL) as process:
        await_words(bundle.rootfs / "record", '"init"')
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) != 0
    rune("delete", "--force", "c")
    assert rune.leftovers() == []


def with_host_configuration(tmp_path: Path, content: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command where /etc holds this configuration and nothing else: a mount namespace of its own."""
    directory = tmp_path / "etc/inclavare-containers"
    directory.mkdir(parents=True)
    (directory / "config.toml").write_text(content)
    script = 'mount --make-rprivate / && mount --bind "$1" /etc && shift && exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", tmp_path / "etc", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_runtime_that_hangs_is_given_up_after_the_time_the_administrator_allows(
    rune: Rune, enclave: Edit, tmp_path: Path
) -> None:
    command = rune.command("run", "--bundle", enclave(2, "hang").write(), "c")
    begin = time.monotonic()
    done = with_host_configuration(tmp_path, "[sgx]\ninit_timeout = 1\n", command)
    assert done.returncode == 1
    assert "said nothing for 1 s" in done.stderr
    assert "initialise the enclave runtime" in done.stderr
    assert time.monotonic() - begin < 20
    assert rune.leftovers() == []


def test_a_fault_in_the_administrators_file_is_named_with_its_line(rune: Rune, enclave: Edit, tmp_path: Path) -> None:
    content = '[signature]\nserver_address = "https://signer.example"\n[sgx]\nplatfrom = "auto"\n'
    done = with_host_configuration(tmp_path, content, rune.command("run", "--bundle", enclave(2).write(), "c"))
    assert done.returncode == 1
    assert "/etc/inclavare-containers/config.toml, line 4: unknown key sgx.platfrom" in done.stderr
    assert "Known here: platform, provision, init_timeout." in done.stderr
    assert rune.leftovers() == []


def test_the_administrator_can_allow_emulation(rune_program: Path, enclave: Edit, tmp_path: Path) -> None:
    plain = Rune(rune_program, tmp_path)
    bundle = enclave(2)
    done = with_host_configuration(
        tmp_path, '[sgx]\nplatform = "emulated"\n', plain.command("run", "--bundle", bundle.write(), "c")
    )
    assert done.returncode == 0, done.stderr
    if implicit.sgx_devices(provision=False):
        return  # with SGX in the machine it would run there
    refused = plain("run", "--bundle", bundle.path, "c")
    assert refused.returncode == 1
    assert "this host has no SGX device" in refused.stderr
    assert plain.leftovers() == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"enclave.runtime.path": "/nonexistent.so"}, "stat /nonexistent.so: no such file or directory"),
        ({"enclave.runtime.path": "/proc/version"}, ""),
        ({"enclave.type": "AwsNitroEnclaves"}, "Enclave hardware type (AwsNitroEnclaves) is not supported"),
        ({"enclave.runtime.path": ""}, "enclave runtime path is not configured"),
        ({"enclave.runtime.loglevel": "loud"}, "unknown enclave log level 'loud'"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    rune: Rune, enclave: Edit, settings: dict[str, str], words: str
) -> None:
    bundle = enclave()
    bundle.config["annotations"].update(settings)
    done = rune("run", "--bundle", bundle.write(), "c")
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert rune.leftovers() == []


def test_a_library_that_is_none_is_reported_with_the_loaders_words(rune: Rune, enclave: Edit, tmp_path: Path) -> None:
    library = tmp_path / "libpal.so"
    library.write_text("text")
    done = rune("run", "--bundle", enclave(pal=library).write(), "c")
    assert done.returncode == 1
    assert f"failed to load {library}, dlerror: {library}: file too short" in done.stderr


def test_nothing_is_emulated_unasked(rune_program: Path, tmp_path: Path, enclave: Edit) -> None:
    if any(Path(path).exists() for path in ("/dev/sgx_enclave", "/dev/isgx", "/dev/sgx/enclave")):
        pytest.skip("this host has SGX")
    rune = Rune(rune_program, tmp_path)
    done = rune("run", "--bundle", enclave().write(), "c", env={"PATH": os.environ["PATH"]})
    assert done.returncode == 1
    assert "Enclave hardware type (intelSgx) is not supported" in done.stderr
    assert "--sgx-platform emulated" in done.stderr
    assert rune.leftovers() == []


def test_a_variable_of_the_environment_allows_emulation(rune_program: Path, tmp_path: Path, enclave: Edit) -> None:
    rune = Rune(rune_program, tmp_path)
    env = {"PATH": os.environ["PATH"], "RUNE_SGX_PLATFORM": "emulated"}
    assert rune("run", "--bundle", enclave().write(), "c", env=env).returncode == 0


@pytest.mark.parametrize("place", ["rootfs", "bind"])
def test_a_runtime_that_the_container_could_have_written_is_not_loaded(
    rune: Rune, enclave: Edit, recorder: Recorder, tmp_path: Path, place: str
) -> None:
    """Root in an image or a container writes files that belong to root on the host as well."""
    shared = tmp_path / "shared"
    shared.mkdir()
    bundle = enclave()
    directory = bundle.rootfs if place == "rootfs" else shared
    shutil.copy(recorder(2), directory / "libmine.so")
    (tmp_path / "link.so").symlink_to(directory / "libmine.so")
    bundle.config["annotations"]["enclave.runtime.path"] = str(tmp_path / "link.so")
    bundle.config["mounts"].append({"destination": "/mnt", "type": "bind", "source": str(shared), "options": ["bind"]})
    done = rune("run", "--bundle", bundle.write(), "c")
    assert done.returncode == 1
    assert f"libmine.so can be changed by the container itself: it has {directory}" in done.stderr
    assert events(bundle) == []


def test_a_runtime_in_a_directory_that_others_can_write_is_not_loaded(
    rune: Rune, enclave: Edit, recorder: Recorder, tmp_path: Path
) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    shutil.copy(recorder(2), open_to_all / "libmine.so")
    bundle = enclave(pal=open_to_all / "libmine.so")
    done = rune("run", "--bundle", bundle.write(), "c")
    assert done.returncode == 1
    assert f"the directory {open_to_all} has mode 777: others than its owner can replace what is in it" in done.stderr


def test_exec_finds_its_program_in_path_and_has_the_home_of_the_container(rune: Rune, enclave: Edit) -> None:
    bundle = enclave(2, program=["program", "wait"])
    start(rune, bundle)
    assert rune("exec", "c", "sh", "exit", "9").returncode == 9
    process = [event for event in events(bundle) if event["call"] == "create_process"][-1]
    assert text(process["path"]) == "/bin/sh"
    assert "HOME=/root" in texts(process["env"])


def test_a_path_may_be_relative_to_the_bundle(rune: Rune, enclave: Edit, recorder: Recorder) -> None:
    bundle = enclave()
    shutil.copy(recorder(2), bundle.path / "libpal.so")
    bundle.config["annotations"]["enclave.runtime.path"] = "libpal.so"
    assert rune("run", "--bundle", bundle.write(), "c").returncode == 0


@pytest.mark.parametrize(
    ("mode", "owner", "message"),
    [
        (0o777, 0, "has mode 777: others than its owner can write it"),
        (0o775, 0, "has mode 775: others than its owner can write it"),
        (0o755, 1000, "belongs to user 1000, not to root"),
    ],
)
def test_a_runtime_that_others_could_have_written_is_not_loaded(
    rune: Rune, enclave: Edit, recorder: Recorder, tmp_path: Path, mode: int, owner: int, message: str
) -> None:
    """An image's environment chooses the path, and the library's constructors run with rune's rights."""
    pal = tmp_path / "libmine.so"
    shutil.copy(recorder(2), pal)
    pal.chmod(mode)
    os.chown(pal, owner, 0)
    bundle = enclave(pal=pal)
    result = rune("run", "--bundle", bundle.write(), "c")
    assert result.returncode == 1
    assert message in result.stderr
    assert events(bundle) == []
