"""Loading and initialising an enclave runtime: where, in which order, and every way to fail, in words."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from inclavare.container.plan import Plan
from inclavare.linux.calls import SYS_CHDIR, SYS_SETRESUID
from tests.native.pal.runelet import NATIVE, Start, text, texts

SYS_CHROOT = 161
Recorder = Callable[..., Path]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change root and user")


def test_the_runtime_is_called_in_order_once_each(start: Start, pal: Path) -> None:
    runelet = start(pal)
    runelet.created()
    assert runelet.calls() == ["load", "get_version", "init"]
    runelet.end()
    assert runelet.calls() == ["load", "get_version", "init"]


def test_the_constructor_sees_the_environment_of_the_container_only(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2, env=["A=1", "B=b b", "C="])
    runelet.created()
    (event,) = runelet.events("load")
    assert texts(event["env"])[1:] == ["A=1", "B=b b", "C="]
    assert text(event["name"]) == "init-runelet"


@as_root
def test_the_constructor_runs_on_the_host_and_all_else_in_the_container(
    start: Start, pal: Path, tmp_path: Path
) -> None:
    container = tmp_path / "container"
    (container / "work").mkdir(parents=True)

    def enter(plan: Plan) -> None:
        plan.add(SYS_CHROOT, plan.string(str(container)), words="enter")
        plan.add(SYS_CHDIR, plan.string("/work"), words="enter")
        plan.add(SYS_SETRESUID, 1000, 1000, 1000, words="become a user")

    runelet = start(pal, between=enter)
    assert runelet.run() == 0
    first, *later = runelet.events()
    assert (first["call"], first["root"], first["uid"]) == ("load", Path("/").stat().st_ino, 0)
    assert text(first["cwd"]) == str(runelet.folder)
    for event in later:
        assert (event["root"], event["uid"], text(event["cwd"])) == (container.stat().st_ino, 1000, "/work")


@pytest.mark.parametrize(("args", "level"), [("", "info"), ("a b  c", "off"), ("\udcff é", "trace")])
def test_arguments_and_log_level_arrive_as_they_are(start: Start, pal: Path, args: str, level: str) -> None:
    runelet = start(pal, args=args, log_level=level)
    runelet.created()
    (event,) = runelet.events("init")
    assert (text(event["args"]), text(event["log_level"])) == (args, level)


def test_version_3_is_told_that_there_is_no_pooled_enclave(start: Start, pal_v3: Path) -> None:
    runelet = start(pal_v3)
    runelet.created()
    (event,) = runelet.events("init")
    assert (event["fd"], event["addr"]) == (-1, 0)


def test_a_positive_result_is_a_success(start: Start, pal: Path) -> None:
    start(pal, args="result=7").created()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("result=-22", "pal_init returned -22 (EINVAL: Invalid argument)"),
        ("result=-2", "pal_init returned -2 (ENOENT: No such file or directory)"),
        ("result=-1", "pal_init returned -1 (EPERM: Operation not permitted)"),
        ("errno=17 result=-1", "pal_init returned -1 (errno is EEXIST: File exists)"),
        ("errno=17 result=-22", "pal_init returned -22 (EINVAL: Invalid argument)"),
        ("result=-4000", "pal_init returned -4000"),
        ("result=-2147483648", "pal_init returned -2147483648"),
    ],
)
def test_a_failure_names_the_call_its_result_and_the_errno(start: Start, pal: Path, args: str, words: str) -> None:
    failure = start(pal, args=args).fails()
    assert failure.text == words
    assert failure.step == 1


def test_after_a_failure_nothing_more_is_called(start: Start, pal: Path) -> None:
    runelet = start(pal, args="result=-5")
    runelet.fails()
    assert runelet.calls()[-1] == "init"


@pytest.mark.parametrize(
    ("args", "status"), [("crash", -signal.SIGSEGV), ("abort", -signal.SIGABRT), ("exit=0", 0), ("exit=3", 3)]
)
def test_a_runtime_that_dies_takes_the_runelet_along_visibly(
    start: Start, pal_v2: Path, args: str, status: int
) -> None:
    assert start(pal_v2, args=args).dies() == status


def test_a_runtime_that_hangs_can_be_killed(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2, args="hang")
    runelet.await_event("init")
    runelet.kill(signal.SIGTERM)  # is held back until the runtime is initialised
    runelet.await_event("init")
    assert runelet.process.poll() is None
    runelet.kill(signal.SIGKILL)
    assert runelet.dies() == -signal.SIGKILL


def test_what_the_runtime_prints_is_seen_at_once(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2, args="print")
    runelet.created()
    assert runelet.output.read_text() == "printed\n"


@pytest.mark.parametrize(
    ("version", "symbol"),
    [
        (1, "pal_init"),
        (1, "pal_exec"),
        (1, "pal_destroy"),
        *((version, f"pal_{name}") for version in (2, 3) for name in ("init", "exec", "create_process", "destroy")),
    ],
)
def test_a_missing_symbol_is_named_with_library_and_version(
    start: Start, recorder: Recorder, version: int, symbol: str
) -> None:
    library = recorder(version, f"WITHOUT_{symbol[4:].upper()}")
    failure = start(library).fails()
    assert failure.text == (
        f"{library} says it has pal api version {version} but does not export {symbol}, which that version requires"
    )


def test_the_first_missing_symbol_is_named_when_there_are_more(start: Start, recorder: Recorder) -> None:
    library = recorder(2, "WITHOUT_INIT", "WITHOUT_DESTROY")
    assert "does not export pal_init," in start(library).fails().text


@pytest.mark.parametrize("macro", ["WITHOUT_KILL", "WITHOUT_GET_LOCAL_REPORT"])
def test_an_optional_symbol_may_be_missing(start: Start, recorder: Recorder, macro: str) -> None:
    assert start(recorder(3, macro)).run() == 0


def test_a_runtime_without_a_version_has_version_1(start: Start, recorder: Recorder) -> None:
    runelet = start(recorder(1, "WITHOUT_GET_VERSION"), argv=["program", "exit", "4"])
    assert runelet.run() == 4
    assert runelet.calls() == ["load", "init", "exec", "destroy"]


@pytest.mark.parametrize("version", [0, 4, -1, 2147483647])
def test_another_version_is_refused(start: Start, recorder: Recorder, version: int) -> None:
    library = recorder(2, f"SAYS_VERSION={version}")
    runelet = start(library)
    assert runelet.fails().text == (
        f"unsupported pal api version {version} of {library}: versions 1, 2 and 3 are supported"
    )
    assert runelet.calls() == ["load", "get_version"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot open shared object file: No such file or directory"),
        (b"no library", "file too short"),
        (b"no library" * 100, "invalid ELF header"),
    ],
)
def test_what_cannot_be_loaded_is_named_with_the_loaders_words(
    start: Start, tmp_path: Path, content: bytes | None, words: str
) -> None:
    library = tmp_path / "libpal.so"
    if content is not None:
        library.write_bytes(content)
    failure = start(library).fails()
    assert (failure.step, failure.text) == (0, f"failed to load {library}, dlerror: {library}: {words}")


def test_a_thread_of_the_constructor_is_refused_because_it_would_stay_privileged(
    start: Start, recorder: Recorder
) -> None:
    library = recorder(2, "THREAD_IN_CONSTRUCTOR")
    failure = start(library).fails()
    assert failure.step == 0
    assert failure.text == (
        f"{library}, or a library that it needs, started a thread when it was loaded; that thread would keep rune's "
        "privileges in the container"
    )


def test_an_absent_preload_is_only_logged(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2, preload=["libnothing-of-this-name.so.1", "libm.so.6"])
    runelet.created()
    (line,) = [line for line in runelet.logs if "not preloaded" in line]
    assert "libnothing-of-this-name.so.1" in line


def test_a_library_that_needs_another_finds_it_preloaded(start: Start, pal_v2: Path) -> None:
    runelet = start(pal_v2, preload=["libm.so.6"])
    runelet.created()
    maps = Path(f"/proc/{runelet.process.pid}/maps").read_text()
    assert "libm.so.6" in maps


def test_the_log_says_which_version_was_initialised(start: Start, pal_v3: Path) -> None:
    runelet = start(pal_v3)
    runelet.created()
    assert f"pal_init of {pal_v3} succeeded, api version 3" in runelet.logs


def test_an_absent_software_platform_is_named(start: Start, pal_v2: Path) -> None:
    failure = start(pal_v2, emulator="/nonexistent/libsgxemu.so", seed=bytes(32)).fails()
    assert failure.text.startswith("failed to load the software platform: /nonexistent/libsgxemu.so: cannot open")


def test_a_software_platform_without_its_function_is_named(start: Start, pal_v2: Path) -> None:
    failure = start(pal_v2, emulator=str(pal_v2), seed=bytes(32)).fails()
    assert failure.text == f"{pal_v2} does not export sgxemu_init"


def test_the_software_platform_is_there_before_the_runtime(start: Start, pal_v2: Path) -> None:
    if not (NATIVE / "libsgxemu.so").exists():
        pytest.skip("needs libsgxemu.so: run `make`")
    runelet = start(pal_v2, emulator=str(NATIVE / "libsgxemu.so"), seed=bytes(32))
    assert runelet.run() == 0


@pytest.mark.parametrize("arguments", [[], ["x"], ["0"], ["-1", "0"], ["0", "0"], ["999", "0"]])
def test_started_by_hand_it_says_that_it_is_for_rune(arguments: list[str]) -> None:
    done = subprocess.run(
        ["init-runelet", *arguments],
        executable=NATIVE / "runelet",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "init-runelet: started by `rune` only\n")
