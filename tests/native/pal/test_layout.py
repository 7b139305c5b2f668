"""pal.h has the binary layout that runtimes were built for, and plan.py writes what plan.h describes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from inclavare.container import plan
from tests.native.pal.runelet import ROOT

# struct: (size, {member: offset}); x86-64, natural alignment
PAL = {
    "pal_attr_v1": (16, {"args": 0, "log_level": 8}),
    "pal_attr_v3": (32, {"args": 0, "log_level": 8, "fd": 16, "addr": 24}),
    "pal_stdio_fds": (12, {"stdin": 0, "stdout": 4, "stderr": 8}),
    "pal_create_process_args": (40, {"path": 0, "argv": 8, "env": 16, "stdio": 24, "pid": 32}),
    "pal_exec_args": (16, {"pid": 0, "exit_value": 8}),
}
PLAN = {
    "plan_header": (
        32,
        {
            "magic": 0,
            "version": 4,
            "size": 8,
            "op_count": 12,
            "reloc_count": 16,
            "data_size": 20,
            "sync_fd": 24,
            "reserved": 28,
        },
    ),
    "plan_op": (64, {"call": 0, "kind": 4, "out": 10, "skip": 12, "tolerate": 13, "reserved": 15, "arg": 16}),
    "plan_pal": (
        72,
        {
            "path": 0,
            "args": 8,
            "log_level": 16,
            "preload": 24,
            "emulator": 32,
            "seed": 40,
            "env": 48,
            "signals": 56,
            "agent_fd": 64,
            "flags": 68,
        },
    ),
    "plan_msg": (16, {"type": 0, "op": 4, "value": 8, "text_size": 12}),
}
PAL_CONSTANTS = {"PAL_TARGET_INFO_SIZE": 512, "PAL_REPORT_SIZE": 432, "PAL_REPORT_DATA_SIZE": 64, "PAL_KILL_ALL": -1}
PLAN_CONSTANTS = {
    "PLAN_MAGIC": plan.MAGIC,
    "PLAN_VERSION": plan.VERSION,
    "PLAN_SLOTS": plan.SLOTS,
    "PLAN_NO_SLOT": plan.NO_SLOT,
    "PLAN_CALL_BASE": plan.CALL_BASE,
    "PLAN_SYNC_SLOT": plan.SYNC_SLOT,
    "PLAN_IMMEDIATE": 0,
    "PLAN_DATA": 1,
    "PLAN_SLOT": 2,
    "PLAN_CONSOLE_BIND": plan.CONSOLE_BIND,
    "PLAN_PAL_WAIT_STATUS": plan.PAL_WAIT_STATUS,
    "PLAN_MSG_PID": plan.MSG_PID,
    "PLAN_MSG_SYNC": plan.MSG_SYNC,
    "PLAN_MSG_ERROR": plan.MSG_ERROR,
    "PLAN_MSG_LOG": plan.MSG_LOG,
    "PLAN_MSG_LISTENER": plan.MSG_LISTENER,
    "PLAN_MSG_MAX": plan.MSG_MAX,
    "PLAN_LOG_DEBUG": 0,
    "PLAN_LOG_INFO": 1,
    "PLAN_LOG_WARNING": 2,
    "PLAN_CALL_END": plan.CALL_BASE + len(plan.CALL_NAMES),
}
CALLS = {
    f"PLAN_{name}": value
    for name, value in vars(plan).items()
    if name.startswith("CALL_") and name not in ("CALL_BASE", "CALL_NAMES")
}


def values_of(folder: Path, *expressions: str) -> list[int]:
    """Compile a program that prints the values of C expressions."""
    source = folder / "values.c"
    prints = "\n".join(f'printf("%lld\\n", (long long)({expression}));' for expression in expressions)
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n"
        f'#include "pal.h"\n#include "plan.h"\nint main(void) {{\n{prints}\nreturn 0;\n}}\n'
    )
    program = folder / "values"
    subprocess.run(["gcc", "-std=c11", f"-I{ROOT}/native/include", "-o", program, source], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.split()]


@pytest.mark.parametrize("name", [*PAL, *PLAN])
def test_a_struct_has_its_size_and_offsets(tmp_path: Path, name: str) -> None:
    size, offsets = {**PAL, **PLAN}[name]
    expressions = [f"sizeof(struct {name})", *(f"offsetof(struct {name}, {member})" for member in offsets)]
    assert values_of(tmp_path, *expressions) == [size, *offsets.values()]


@pytest.mark.parametrize("constants", [PAL_CONSTANTS, PLAN_CONSTANTS, CALLS], ids=["pal", "plan", "calls"])
def test_constants_have_the_values_that_python_knows(tmp_path: Path, constants: dict[str, int]) -> None:
    assert dict(zip(constants, values_of(tmp_path, *constants), strict=True)) == constants


def test_every_call_of_the_plan_is_known_to_python_by_its_name() -> None:
    assert {name: plan.call_name(value) for name, value in CALLS.items()} == {
        name: name.removeprefix("PLAN_CALL_").lower() for name in CALLS
    }
    assert len(CALLS) == len(plan.CALL_NAMES)


def test_the_structs_that_python_packs_have_the_sizes_of_the_header() -> None:
    sizes = (plan.HEADER.size, plan.OP.size, plan.MSG.size)
    assert sizes == (PLAN["plan_header"][0], PLAN["plan_op"][0], PLAN["plan_msg"][0])


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("compiler", [["gcc", "-std=c99", "-xc"], ["g++", "-std=c++11", "-xc++"]])
def test_the_header_stands_alone_in_c_and_cpp(tmp_path: Path, compiler: list[str], version: int) -> None:
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"needs {compiler[0]}")
    source = tmp_path / "alone"
    source.write_text(f'#define PAL_VERSION {version}\n#include "pal.h"\n')
    command = [*compiler, "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{ROOT}/native/include", "-fsyntax-only"]
    subprocess.run([*command, source], check=True)


@pytest.mark.parametrize("version", [0, 4])
def test_the_header_refuses_versions_that_do_not_exist(tmp_path: Path, version: int) -> None:
    source = tmp_path / "wrong.c"
    source.write_text(f'#define PAL_VERSION {version}\n#include "pal.h"\n')
    command = ["gcc", f"-I{ROOT}/native/include", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "PAL_VERSION must be 1, 2 or 3" in done.stderr
