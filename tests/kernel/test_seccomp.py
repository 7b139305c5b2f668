"""Filters of real containers: a program asks the kernel, by each of the three ABIs of x86-64."""

from __future__ import annotations

import errno
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from inclavare.linux.syscalls import numbers
from tests.kernel.conftest import Bundle, Result, Rune

NATIVE, I386, _ = numbers()
SIGSYS = 31
KILLED = 128 + SIGSYS
ALL = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
Profile = dict[str, Any]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the built syscall.c."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    program = tmp_path_factory.mktemp("syscall") / "syscall"
    source = Path(__file__).parent / "syscall.c"
    subprocess.run(["gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    return program


@pytest.fixture(scope="session")
def i386(program: Path) -> None:
    """Skip where the kernel has no i386 system calls."""
    if subprocess.run([program, "i386", "20"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel has no i386 system calls")


def run(rune: Rune, bundle: Bundle, program: Path, profile: Profile, *words: object) -> Result:
    shutil.copy(program, bundle.path / "rootfs/bin/syscall")
    bundle.linux["seccomp"] = profile
    bundle.process["args"] = ["syscall", *map(str, words)]
    return rune.run(bundle)


def allow_all_but(name: str, action: str = "SCMP_ACT_ERRNO", **more: object) -> Profile:
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ALL,
        "syscalls": [{"names": [name], "action": action, **more}],
    }


def when(index: int, op: str, value: int) -> list[dict[str, Any]]:
    return [{"index": index, "op": f"SCMP_CMP_{op}", "value": value}]


@pytest.mark.parametrize(("errno_ret", "result"), [(None, -errno.EPERM), (0, 0), (99, -99)])
def test_a_denied_call_has_the_error_of_its_rule(
    rune: Rune, bundle: Bundle, program: Path, errno_ret: int | None, result: int
) -> None:
    done = run(rune, bundle, program, allow_all_but("getppid", errnoRet=errno_ret), 64, NATIVE["getppid"])
    assert (done.status, done.out) == (0, f"{result}\n")


@pytest.mark.parametrize("action", ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
def test_a_deadly_call_ends_the_program_with_sigsys(rune: Rune, bundle: Bundle, program: Path, action: str) -> None:
    done = run(rune, bundle, program, allow_all_but("getppid", action), 64, NATIVE["getppid"])
    assert (done.status, done.out) == (KILLED, "")


@pytest.mark.parametrize("action", ["SCMP_ACT_LOG", "SCMP_ACT_ALLOW"])
def test_an_action_that_allows_lets_pass(rune: Rune, bundle: Bundle, program: Path, action: str) -> None:
    done = run(rune, bundle, program, allow_all_but("getppid", action), 64, NATIVE["getppid"])
    assert (done.status, done.out) == (0, "0\n")


def test_tracing_without_a_tracer_is_no_such_call(rune: Rune, bundle: Bundle, program: Path) -> None:
    done = run(rune, bundle, program, allow_all_but("getppid", "SCMP_ACT_TRACE"), 64, NATIVE["getppid"])
    assert done.out == f"{-errno.ENOSYS}\n"


@pytest.mark.parametrize(
    ("op", "value", "denied"),
    [
        ("EQ", 5, [5]),
        ("NE", 5, [0, 4, 6, 1 << 32, 5 + (1 << 32), 1 << 63]),
        ("LT", 5, [0, 4]),
        ("LE", 5, [0, 4, 5]),
        ("GT", 5, [6, 1 << 32, 5 + (1 << 32), 1 << 63]),
        ("GE", 5, [5, 6, 1 << 32, 5 + (1 << 32), 1 << 63]),
        ("EQ", 5 + (1 << 32), [5 + (1 << 32)]),
        ("GT", 5 + (1 << 32), [1 << 63]),
        ("LE", 5 + (1 << 32), [0, 4, 5, 6, 1 << 32, 5 + (1 << 32)]),
    ],
)
def test_a_condition_compares_whole_arguments(
    rune: Rune, bundle: Bundle, program: Path, op: str, value: int, denied: list[int]
) -> None:
    """getppid(2) ignores its arguments, the filter sees them."""
    shutil.copy(program, bundle.path / "rootfs/bin/syscall")
    bundle.linux["seccomp"] = allow_all_but("getppid", args=when(1, op, value), errnoRet=99)
    asked = [0, 4, 5, 6, 1 << 32, 5 + (1 << 32), 1 << 63]
    bundle.shell("; ".join(f"syscall 64 {NATIVE['getppid']} 0 {argument}" for argument in asked))
    answers = zip(asked, rune.run(bundle).out.split(), strict=True)
    assert [argument for argument, answer in answers if answer == "-99"] == denied


@pytest.mark.usefixtures("i386")
def test_i386_is_killed_unless_listed(rune: Rune, bundle: Bundle, program: Path) -> None:
    profile = allow_all_but("getppid") | {"architectures": ["SCMP_ARCH_X86_64"]}
    assert run(rune, bundle, program, profile, "i386", I386["getpid"]).status == KILLED


@pytest.mark.usefixtures("i386")
def test_i386_is_judged_by_its_own_numbers(rune: Rune, bundle: Bundle, program: Path) -> None:
    profile = allow_all_but("getppid", errnoRet=99)
    assert run(rune, bundle, program, profile, "i386", I386["getppid"]).out == "-99\n"


@pytest.mark.usefixtures("i386")
@pytest.mark.parametrize("garbage", [0, 1, 0xFFFF_FFFF])
def test_what_a_64_bit_program_leaves_above_an_i386_argument_changes_nothing(
    rune: Rune, bundle: Bundle, program: Path, garbage: int
) -> None:
    """The filter sees it, the system call does not."""
    profile = allow_all_but("getppid", args=when(1, "EQ", 5), errnoRet=99)
    argument = 5 | garbage << 32
    assert run(rune, bundle, program, profile, "i386", I386["getppid"], 0, argument).out == "-99\n"


@pytest.mark.usefixtures("i386")
@pytest.mark.parametrize(("name", "call", "carrier"), [("socket", 1, "socketcall"), ("shmget", 23, "ipc")])
def test_i386_cannot_get_round_a_rule_through_a_multiplexer(
    rune: Rune, bundle: Bundle, program: Path, name: str, call: int, carrier: str
) -> None:
    profile = allow_all_but(name, errnoRet=99)
    assert run(rune, bundle, program, profile, "i386", I386[carrier], call).out == "-99\n"


def test_x32_is_killed_unless_listed(rune: Rune, bundle: Bundle, program: Path) -> None:
    profile = allow_all_but("getppid") | {"architectures": ["SCMP_ARCH_X86_64"]}
    assert run(rune, bundle, program, profile, "x32", NATIVE["getpid"]).status == KILLED


def test_x32_is_judged_when_listed(rune: Rune, bundle: Bundle, program: Path) -> None:
    profile = allow_all_but("getppid", errnoRet=99)
    assert run(rune, bundle, program, profile, "x32", NATIVE["getppid"]).out == "-99\n"


def test_calls_newer_than_the_profile_do_not_exist(rune: Rune, bundle: Bundle, program: Path) -> None:
    """Programs fall back on ENOSYS, and give up on EPERM."""
    names = [name for name, number in NATIVE.items() if number < NATIVE["openat2"] and name != "clone3"]
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}
    denied = run(rune, bundle, program, profile, 64, NATIVE["clone3"])
    newer = run(rune, bundle, program, profile, 64, NATIVE["openat2"])
    assert (denied.out, newer.out) == (f"{-errno.EPERM}\n", f"{-errno.ENOSYS}\n")


def test_one_filter_is_in_force(rune: Rune, bundle: Bundle) -> None:
    bundle.linux["seccomp"] = allow_all_but("getppid")
    bundle.process["args"] = ["grep", "Seccomp", "/proc/self/status"]
    assert rune.run(bundle).out.split() == ["Seccomp:", "2", "Seccomp_filters:", "1"]


def test_a_filter_holds_for_exec(rune: Rune, bundle: Bundle, program: Path) -> None:
    shutil.copy(program, bundle.path / "rootfs/bin/syscall")
    bundle.linux["seccomp"] = allow_all_but("getppid", errnoRet=99)
    bundle.process["args"] = ["sleep", "60"]
    rune.create(bundle)
    rune("start", "c")
    assert rune("exec", "c", "syscall", "64", str(NATIVE["getppid"])).out == "-99\n"


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_user_without_capabilities_gets_the_filter(
    rune: Rune, bundle: Bundle, program: Path, no_new_privileges: bool
) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["capabilities"] = {}
    done = run(rune, bundle, program, allow_all_but("getppid", errnoRet=99), 64, NATIVE["getppid"])
    assert done.out == "-99\n", done.error


def test_the_filter_need_not_allow_what_rune_itself_calls(rune: Rune, bundle: Bundle, program: Path) -> None:
    names = ["execve", "exit_group", "exit", "write", "brk", "arch_prctl", "set_tid_address", "set_robust_list", "rseq"]
    names += ["mprotect", "prlimit64", "readlinkat", "readlink", "getrandom", "newfstatat", "fstat", "getppid", "uname"]
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}
    bundle.process["noNewPrivileges"] = True
    done = run(rune, bundle, program, profile, 64, NATIVE["getppid"])
    assert (done.status, done.out) == (0, "0\n"), done.error


@pytest.mark.parametrize("flag", ["TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"])
def test_flags_of_the_filter_are_accepted(rune: Rune, bundle: Bundle, program: Path, flag: str) -> None:
    profile = allow_all_but("getppid", errnoRet=99) | {"flags": [f"SECCOMP_FILTER_FLAG_{flag}"]}
    done = run(rune, bundle, program, profile, 64, NATIVE["getppid"])
    assert done.out == "-99\n", done.error


def test_a_profile_too_large_for_the_kernel_is_refused(rune: Rune, bundle: Bundle, program: Path) -> None:
    profile = allow_all_but("getppid")
    profile["syscalls"] = [
        {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "args": when(0, "EQ", value)} for value in range(2000)
    ]
    done = run(rune, bundle, program, profile, 64, NATIVE["getppid"])
    assert done.status == 1
    assert "linux.seccomp: the filter has" in done.error
    assert rune.leftovers() == []
