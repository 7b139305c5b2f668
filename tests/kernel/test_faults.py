"""Faults at every step of a plan: what dies half-way leaves nothing, and the next command works.

A child process imports the real runtime and puts one more step into the plan, which crashes the executor there or
kills rune itself.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kernel.conftest import SOURCE, Bundle, Rune

FAULTY = """
import os, sys
sys.path.insert(0, {source!r})
from inclavare.container import create
from inclavare.container.plan import CALL_LOOK_UP, CALL_SYNC, Op
from inclavare.errors import InclavareError
from inclavare.log import Log

root, bundle, kind, step = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
real_plan, real_answer = create.plan_create, create._answer

def plan(request):
    made = real_plan(request)
    op = Op(CALL_LOOK_UP, (0, 0, 0, 0), "crash") if kind == "executor" else Op(CALL_SYNC, (77,), "kill rune")
    made.ops.insert(step, op)
    clone = made.ops[[op.words.startswith("clone") for op in made.ops].index(True)]
    clone.args = (clone.args[0], clone.args[1] + (step < clone.args[1]))
    return made

def answer(sync, *rest):
    if sync == 77:
        os.kill(os.getpid(), 9)
    real_answer(sync, *rest)

create.plan_create, create._answer = plan, answer
options = create.Options(root)
options.wait = True
try:
    create.build(create.Prepared("c", bundle, options, Log(2)), Log(2))
except InclavareError as error:
    print(error, flush=True)
    os._exit(1)
os._exit(0)
"""


def _steps(rune: Rune, bundle: Bundle) -> int:
    result = rune("create", "--dry-run", "--bundle", bundle.write(), "c")
    assert (result.status, result.error) == (0, "")
    return len(result.out.splitlines())


def _fault(rune: Rune, bundle: Bundle, kind: str, step: int) -> tuple[int, str]:
    """Give the exit status and what was said. Output goes to a file: a container would keep a pipe open."""
    output = rune.directory / "fault"
    with output.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-IS", "-c", FAULTY.format(source=str(SOURCE)), rune.root, bundle.path, kind, str(step)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            check=False,
            timeout=30,
        )
    return done.returncode, output.read_text()


def test_an_executor_that_dies_at_any_step_is_reported_and_leaves_nothing(rune: Rune, bundle: Bundle) -> None:
    steps = _steps(rune, bundle)
    named = [
        line.split()[1] for line in rune("create", "--dry-run", "--bundle", bundle.path, "c").out.splitlines()
    ].index("exit")
    survived = []
    for step in range(steps):
        status, said = _fault(rune, bundle, "executor", step)
        if status == 0:
            survived.append(step)
            if step == steps - 1:
                assert rune("start", "c").status == 0
            rune.wait_for("created" if step == named else "stopped")
            assert rune("delete", "c").status == 0
        else:
            assert status == 1, said
            assert "died" in said or "killed" in said, f"step {step}: {said}"
        assert rune.leftovers() == [], f"step {step}"
    # Having named the pid, the executor has done its work. Once all is set up the container is made, and is stopped.
    assert survived == [named, *range(steps - 4, steps)]


def test_a_rune_killed_at_any_step_leaves_what_the_next_command_clears(rune: Rune, bundle: Bundle) -> None:
    steps = _steps(rune, bundle)
    for step in range(8, steps - 3):  # in the container's process, as long as rune listens
        status, said = _fault(rune, bundle, "rune", step)
        assert status == -9, f"step {step}: {said}"
        if step % 2 or step >= steps - 4:  # the last: it is a container already, and its id is taken
            assert rune("delete", "--force", "c").status == 0
        else:
            result = rune.run(bundle)  # the same id works again
            assert (result.status, result.error) == (0, ""), f"step {step}"
        assert rune.leftovers() == [], f"step {step}"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (("process", "args"), [], "process.args: args must not be empty"),
        (("process", "cwd"), "relative", "process.cwd"),
        (("root", "path"), "absent", "root.path"),
        (
            ("mounts",),
            [{"destination": "/x", "type": "nofs", "source": "x"}],
            "cannot mount nofs on /x: No such device",
        ),
        (("mounts",), [{"destination": "/x", "type": "bind", "source": "/absent"}], "mounts[0].source"),
        (("mounts",), [{"destination": "/x", "source": "/absent"}], "mounts[0].type"),
        (("linux", "namespaces"), [{"type": "mount"}, {"type": "odd"}], "linux.namespaces[1].type"),
        (("linux", "intelRdt"), {"closID": "x"}, "linux.intelRdt"),
        (("linux", "sysctl"), {"vm.swappiness": "1"}, "linux.sysctl"),
    ],
)
def test_what_is_wrong_in_the_configuration_is_named(
    rune: Rune, bundle: Bundle, field: tuple[str, ...], value: object, message: str
) -> None:
    place = bundle.config
    for name in field[:-1]:
        place = place[name]
    place[field[-1]] = value
    result = rune.run(bundle)
    assert result.status == 1
    assert message in result.error
    assert rune.leftovers() == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"ociVersion": 1}', b"[" * 100000])
def test_a_configuration_that_is_no_configuration_is_refused(rune: Rune, bundle: Bundle, content: bytes) -> None:
    bundle.write()
    (bundle.path / "config.json").write_bytes(content)
    result = rune("run", "--bundle", bundle.path, "c")
    assert result.status == 1
    assert result.error.startswith("rune: ")
    assert "Traceback" not in result.error
    assert rune.leftovers() == []


def test_a_missing_configuration_is_named(rune: Rune, bundle: Bundle) -> None:
    result = rune("run", "--bundle", bundle.path, "c")
    assert result.status == 1
    assert f"cannot read {bundle.path}/config.json: No such file or directory" in result.error
