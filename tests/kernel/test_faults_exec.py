"""Faults at every step of the plan of exec: the container goes on, and nothing of the new process is left.

A child process imports the real runtime and puts one more step into the plan, as in test_faults.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.kernel.conftest import SOURCE, Bundle, Rune

FAULTY = """
import os, sys
sys.path.insert(0, {source!r})
from inclavare.container import exec as execution, store
from inclavare.container.plan import CALL_LOOK_UP, CALL_SYNC, Op
from inclavare.errors import InclavareError
from inclavare.log import Log

root, kind, step, terminal = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "terminal"
real_plan = execution.plan_exec

def plan(request):
    made = real_plan(request)
    op = Op(CALL_LOOK_UP, (0, 0, 0, 0), "crash") if kind == "executor" else Op(CALL_SYNC, (77,), "kill rune")
    made.ops.insert(step, op)
    clone = made.ops[[op.words.startswith("clone") for op in made.ops].index(True)]
    clone.args = (clone.args[0], clone.args[1] + (step < clone.args[1]))
    return made

class Run(execution.Run):
    def follow(self, on_sync, *rest):
        super().follow(lambda sync: os.kill(os.getpid(), 9) if sync == 77 else on_sync(sync), *rest)

execution.plan_exec, execution.Run = plan, Run
record = store.load(root, "c")
document = execution.container_spec(record)
document.process.args, document.process.terminal = ["true"], terminal
options = execution.Options()
options.terminal = terminal
try:
    executed = execution.execute(record, execution.make_request(record, document, document.process), options, Log(2))
except InclavareError as error:
    print(error, flush=True)
    os._exit(1)
os._exit(0 if os.waitpid(executed.pid, 0)[1] == 0 else 3)
"""


def _exec(rune: Rune, kind: str, step: int, terminal: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-IS", "-c", FAULTY.format(source=str(SOURCE)), rune.root, kind, str(step), terminal],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=30,
    )
    return done.returncode, done.stdout


def _wait_until_alone(rune: Rune, step: int) -> None:
    """Wait until the container's own process is its only one, and running."""
    deadline = time.monotonic() + 5
    while len(json.loads(rune("ps", "--format", "json", "c").out)) != 1:
        assert time.monotonic() < deadline, f"step {step}: a process is left"
    assert rune.state()["status"] == "running"


@pytest.fixture(params=["plain", "seccomp", "user namespace", "terminal"])
def kind_of_process(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def running(rune: Rune, bundle: Bundle, kind_of_process: str) -> list[str]:
    """Start a container; return the steps of an exec in it."""
    bundle.process["args"] = ["sleep", "100"]
    linux: dict[str, Any] = bundle.linux
    if kind_of_process == "seccomp":
        linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}],
        }
    elif kind_of_process == "user namespace":
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 65536}]
    rune.create(bundle)
    assert rune("start", "c").status == 0
    words = ["--tty"] if kind_of_process == "terminal" else []
    dry = rune("exec", "--dry-run", *words, "c", "true")
    assert dry.status == 0, dry.error
    return dry.out.splitlines()


def test_a_process_that_dies_at_any_step_is_reported_and_leaves_the_container_alone(
    rune: Rune, running: list[str], kind_of_process: str
) -> None:
    ready = next(number for number, line in enumerate(running) if "report that all is set up" in line)
    named = next(number for number, line in enumerate(running) if line.split()[1] == "exit")
    for step in range(ready):
        status, said = _exec(rune, "executor", step, kind_of_process)
        if step == named:  # the executor has done its work
            assert status == 0, said
        else:
            assert status == 1, f"step {step}: {said}"
            assert "died" in said or "killed" in said, f"step {step}: {said}"
        _wait_until_alone(rune, step)
    done = rune("exec", "c", "true")
    assert (done.status, done.error) == (0, "")
    assert rune("delete", "--force", "c").status == 0
    assert rune.leftovers() == []


def test_a_rune_killed_at_any_step_of_exec_takes_the_process_with_it(
    rune: Rune, running: list[str], kind_of_process: str
) -> None:
    ready = next(number for number, line in enumerate(running) if "report that all is set up" in line)
    named = next(number for number, line in enumerate(running) if line.split()[1] == "exit")
    for step in range(named + 1, ready):
        status, said = _exec(rune, "rune", step, kind_of_process)
        assert status == -9, f"step {step}: {said}"
        _wait_until_alone(rune, step)
    done = rune("exec", "c", "true")
    assert (done.status, done.error) == (0, "")
    assert rune("delete", "--force", "c").status == 0
    assert rune.leftovers() == []
