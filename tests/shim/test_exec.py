"""Other processes of a container: their own life beside the first one's."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.containerd_kit.bundle import process
from tests.containerd_kit.ttrpc import RpcError
from tests.shim.conftest import SLEEP, Engine, eventually
from tests.shim.test_life import ALREADY_EXISTS, FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, UNKNOWN, refused


def test_the_life_of_an_exec_is_told_in_order(engine: Engine) -> None:
    task = engine.run()
    task.add("e", ["sh", "-c", "exit 5"])
    assert task.status("e") == "created"
    pid = task.start("e")
    assert task.wait("e") == 5
    state = task.state("e")
    assert (state.id, state.pid, state.exit_status) == ("e", pid, 5)
    answer = task.rpc.call("Delete", id=task.id, exec_id="e")
    assert (answer.pid, answer.exit_status) == (pid, 5)
    with refused(NOT_FOUND, "process does not exist e: not found"):
        task.state("e")
    task.kill()
    task.wait()
    task.delete()
    engine.events.wait("TaskDelete", task.id)
    events = engine.events.of(task.id)
    assert [event.name for event in events if event.name != "TaskDelete"] == [
        *("TaskCreate", "TaskStart", "TaskExecAdded", "TaskExecStarted", "TaskExit", "TaskExit")
    ]
    assert (events[2].body.exec_id, events[3].body.exec_id, events[3].body.pid) == ("e", "e", pid)
    assert (events[4].body.id, events[4].body.pid, events[4].body.exit_status) == ("e", pid, 5)
    assert (events[5].body.id, events[5].body.exit_status) == (task.id, 137)
    deletions = [event for event in events if event.name == "TaskDelete"]
    assert [(event.body.pid, event.body.exit_status) for event in deletions] == [(task.pid, 137)]


def test_an_exec_has_its_own_surroundings(engine: Engine) -> None:
    out = engine.output()
    task = engine.run()
    spec = process(["sh", "-c", "id -u; pwd; echo $NAME"], cwd="/tmp", env=["PATH=/bin", "NAME=value"])
    spec["user"] = {"uid": 1000, "gid": 1000}
    task.add("e", [], spec, **engine.both(out))
    task.start("e")
    assert task.wait("e") == 0
    assert out.end() == b"1000\n/tmp\nvalue\n"


CONFINEMENT = (
    "grep -E '^(Groups|NoNewPrivs|Seccomp|Cap...):' /proc/self/status; cd /proc/self;"
    " for kind in mnt net uts pid ipc; do readlink ns/$kind; done; cat cgroup; mkdir /tmp/$$ 2>/dev/null; echo $?"
)
NO_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
}


@pytest.mark.parametrize("size", [0, 20_000], ids=["by the shim itself", "by a child"])
def test_an_exec_is_confined_as_its_container(engine: Engine, size: int) -> None:
    """The same program says the same as the container's first process and as another, which names no capabilities."""
    out = [engine.output() for _ in range(2)]
    bundle = engine.bundle(["sh", "-c", f"{CONFINEMENT}; exec sleep 1000"])
    bundle.config["linux"]["seccomp"] = NO_MKDIR
    bundle.config["annotations"] = {"long": "x" * size}
    bundle.config["process"]["user"]["additionalGids"] = [1234]
    task = engine.run(bundle, **engine.both(out[0]))
    spec = process(["sh", "-c", CONFINEMENT])
    spec["user"] = bundle.config["process"]["user"]
    del spec["capabilities"]
    task.add("e", [], spec, **engine.both(out[1]))
    task.start("e")
    assert task.wait("e") == 0
    task.kill()
    first, second = (each.end().decode() for each in out)
    assert second == first
    assert "Seccomp:\t2\n" in first
    assert first.endswith("\n1\n")  # mkdir's status
    assert "1234" in first


def test_an_exec_keeps_the_groups_that_its_container_keeps(engine: Engine) -> None:
    if not engine.is_rune:
        pytest.skip("the annotation is crun's")
    out = engine.output()
    bundle = engine.bundle()
    bundle.config["annotations"] = {"run.oci.keep_original_groups": "1"}
    task = engine.run(bundle)
    spec = process(["grep", "Groups:", "/proc/self/status"])
    spec["user"] = {"uid": 0, "gid": 0, "additionalGids": [1234]}
    task.add("e", [], spec, **engine.both(out))
    task.start("e")
    assert task.wait("e") == 0
    assert b"1234" not in out.end()


def test_an_end_at_once_is_told_after_the_start_of_an_exec(engine: Engine) -> None:
    task = engine.run()
    for number in range(10):
        assert task.execute(f"e{number}", ["true"]) == 0
    engine.events.wait("TaskExit", task.id, id="e9")
    told = [
        (event.name, event.body.exec_id if event.name != "TaskExit" else event.body.id)
        for event in engine.events.of(task.id)[2:]
    ]
    assert told == [
        (name, f"e{number}") for number in range(10) for name in ("TaskExecAdded", "TaskExecStarted", "TaskExit")
    ]


def test_execs_run_at_once(engine: Engine) -> None:
    task = engine.run()
    out = [engine.output() for _ in range(4)]
    clients = [task.another_client() for _ in range(4)]
    for number in range(4):
        task.add(
            f"e{number}", ["sh", "-c", f"sleep 0.3; echo {number}; exit {number}"], None, **engine.both(out[number])
        )
    begin = time.monotonic()
    starts = [client.begin("Start", id=task.id, exec_id=f"e{number}") for number, client in enumerate(clients)]
    for client, start in zip(clients, starts, strict=True):
        client.finish(start)
    assert [task.wait(f"e{number}") for number in range(4)] == [0, 1, 2, 3]
    assert time.monotonic() - begin < 1.2
    assert [each.end() for each in out] == [f"{number}\n".encode() for number in range(4)]
    for client in clients:
        client.close()


def test_an_exec_id_is_there_once(engine: Engine) -> None:
    task = engine.run()
    task.add("e", ["true"])
    with refused(ALREADY_EXISTS, "id e"):
        task.add("e", ["true"])


def test_two_adds_of_an_id_at_once_are_one(engine: Engine) -> None:
    task = engine.run()
    clients = [task.another_client() for _ in range(5)]
    spec = {"type_url": "x", "value": b'{"args":["true"],"cwd":"/"}'}
    calls = [client.begin("Exec", id=task.id, exec_id="e", spec=spec) for client in clients]
    codes = []
    for client, call in zip(clients, calls, strict=True):
        try:
            client.finish(call)
            codes.append(0)
        except RpcError as error:
            codes.append(error.code)
        client.close()
    assert sorted(codes) == [0, *[ALREADY_EXISTS] * 4]


def test_an_id_can_be_used_again_after_its_deletion(engine: Engine) -> None:
    task = engine.run()
    assert task.execute("e", ["sh", "-c", "exit 1"]) == 1
    assert task.execute("e", ["sh", "-c", "exit 2"]) == 2


def test_a_program_that_is_not_there_is_named(engine: Engine) -> None:
    task = engine.run()
    task.add("e", ["no-such-program"])
    with refused(UNKNOWN, r"OCI runtime exec failed: .*executable file not found in \$PATH"):
        task.start("e")
    task.rpc.call("Delete", id=task.id, exec_id="e")
    assert task.execute("e", ["true"]) == 0
    assert task.status() == "running"


def test_nobody_waits_for_an_exec_that_did_not_start(engine: Engine) -> None:
    # Probes of kubelet wait first and start then: each that fails would stay.
    task = engine.run()
    task.add("e", ["no-such-program"])
    wait = task.rpc.begin("Wait", id=task.id, exec_id="e")
    with refused(UNKNOWN):
        task.start("e")
    task.rpc.finish(wait, 5)
    task.rpc.call("Delete", id=task.id, exec_id="e")


def test_nobody_waits_for_what_was_deleted_before_it_ran(rune_engine: Engine) -> None:
    # The other shim lets them wait.
    task = rune_engine.run()
    task.add("e", ["true"])
    wait = task.rpc.begin("Wait", id=task.id, exec_id="e")
    task.rpc.call("Delete", id=task.id, exec_id="e")
    task.rpc.finish(wait, 5)
    task.add("f", ["true"])
    wait = task.rpc.begin("Wait", id=task.id, exec_id="f")
    task.kill()
    task.wait()
    task.rpc.call("Delete", id=task.id)
    task.rpc.finish(wait, 5)


def test_an_exec_that_failed_may_be_started_again(rune_engine: Engine) -> None:
    # The other shim dies of it.
    task = rune_engine.run()
    task.add("e", ["sh", "-c", "exit 3"], None, stdout=str(rune_engine.directory / "late/out"))
    with refused(UNKNOWN, "late/out"):
        task.start("e")
    (rune_engine.directory / "late").mkdir()
    task.start("e")
    assert task.wait("e") == 3
    rune_engine.events.wait("TaskExit", task.id, id="e")


def test_an_exec_is_signalled_alone(engine: Engine) -> None:
    task = engine.run()
    for name in ("one", "two"):
        task.add(name, SLEEP)
        task.start(name)
    task.kill(signal.SIGKILL, "one")
    assert task.wait("one") == 137
    assert (task.status("one"), task.status("two"), task.status()) == ("stopped", "running", "running")
    with refused(NOT_FOUND, "process already finished: not found"):
        task.kill(signal.SIGKILL, "one")


def test_an_exec_that_was_not_started_has_nobody_to_signal(engine: Engine) -> None:
    task = engine.run()
    task.add("e", SLEEP)
    with refused(FAILED_PRECONDITION, "process not created: failed precondition"):
        task.kill(signal.SIGKILL, "e")
    task.rpc.call("Delete", id=task.id, exec_id="e")
    with refused(NOT_FOUND):
        task.state("e")


def test_an_exec_that_runs_is_not_deleted(engine: Engine) -> None:
    task = engine.run()
    task.add("e", SLEEP)
    task.start("e")
    with refused(UNKNOWN, "cannot delete a running process"):
        task.rpc.call("Delete", id=task.id, exec_id="e")


def test_an_exec_starts_once(engine: Engine) -> None:
    task = engine.run()
    task.add("e", SLEEP)
    task.start("e")
    with refused(UNKNOWN, "cannot start a running process"):
        task.start("e")


def test_no_exec_starts_when_the_first_process_has_ended(engine: Engine) -> None:
    task = engine.run()
    task.add("e", ["true"])
    task.kill()
    task.wait()
    code = FAILED_PRECONDITION if engine.is_rune else UNKNOWN  # so does containerd's shim from 1.7 on
    with refused(code):
        task.start("e")
    with refused(UNKNOWN, "cannot exec in a stopped state"):
        task.add("f", ["true"])


def test_an_exec_runs_in_a_container_that_is_only_created(engine: Engine) -> None:
    task = engine.create()
    assert task.execute("e", ["sh", "-c", "exit 4"]) == 4
    assert task.status() == "created"


def test_the_first_process_is_told_to_have_ended_last(engine: Engine) -> None:
    task = engine.run()
    for name in ("one", "two", "three"):
        task.add(name, SLEEP)
        task.start(name)
    waits = [(task.rpc.begin("Wait", id=task.id, exec_id=name), name) for name in ("", "one", "two", "three")]
    task.kill()
    for wait, _ in waits:
        assert task.rpc.finish(wait).exit_status == 137
    engine.events.wait("TaskExit", task.id, id=task.id)
    ends = [event.body.id for event in engine.events.of(task.id) if event.name == "TaskExit"]
    assert ends[-1] == task.id
    assert sorted(ends[:-1]) == ["one", "three", "two"]


def test_what_shares_its_pids_ends_with_the_first_process(engine: Engine) -> None:
    bundle = engine.bundle(["sh", "-c", "sleep 1000 & sleep 1000"])
    bundle.config["linux"]["namespaces"] = [{"type": kind} for kind in ("mount", "network", "uts", "ipc")]
    task = engine.run(bundle)
    task.add("e", SLEEP)
    other = task.start("e")
    eventually(lambda: len(task.rpc.call("Pids", id=task.id).processes) == 3)
    task.kill()
    assert task.wait() == 137
    assert task.wait("e") == 137
    for name in ("e", task.id):
        engine.events.wait("TaskExit", task.id, id=name)
    ends = [event.body.id for event in engine.events.of(task.id) if event.name == "TaskExit"]
    assert ends == ["e", task.id] if engine.is_rune else sorted(ends) == ["e", task.id]  # 1.6 has no order here
    eventually(lambda: not Path(f"/proc/{other}").exists())
    task.delete()


def test_an_exec_has_a_name_that_is_one(rune_engine: Engine) -> None:
    # containerd checks the name, and its shim makes a file of it; ours asks again.
    task = rune_engine.run()
    for name in ("../up", "a/b", "a b"):
        with refused(INVALID_ARGUMENT):
            task.add(name, ["true"])


@pytest.mark.parametrize("spec", [b"", b"{", b"[]", b'{"args":[]}', b'{"args":["true"],"cwd":"relative"}'])
def test_a_broken_process_is_refused(engine: Engine, spec: bytes) -> None:
    task = engine.run()

    def attempt() -> None:  # it fails at once or when it is started
        task.rpc.call("Exec", id=task.id, exec_id="e", spec={"type_url": "x", "value": spec})
        task.start("e")

    with pytest.raises(RpcError):
        attempt()
    assert task.status() == "running"


def test_a_deleted_task_takes_its_execs_along(engine: Engine) -> None:
    task = engine.run()
    task.add("added", ["true"])
    task.add("ended", ["true"])
    task.start("ended")
    task.wait("ended")
    task.kill()
    task.wait()
    task.rpc.call("Delete", id=task.id)
    with refused(NOT_FOUND):
        task.state("added")
