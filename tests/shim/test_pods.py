"""Several containers in one shim: what one does never keeps the others waiting."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.containerd_kit.containerd import Task, is_there, wait_until_gone
from tests.shim.conftest import SLEEP, Engine, eventually
from tests.shim.test_life import UNKNOWN, refused

SLOW_S = 1.0


def pod(engine: Engine, count: int) -> list[Task]:
    tasks = [engine.task(engine.bundle(SLEEP, "pod")) for _ in range(count)]
    for task in tasks:
        task.begin()
    return tasks


def hook(kind: str, script: str) -> dict[str, object]:
    return {kind: [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}


def test_three_containers_live_in_one_shim(engine: Engine) -> None:
    tasks = pod(engine, 3)
    for task in tasks:
        task.create()
        task.start()
    assert [task.status() for task in tasks] == ["running"] * 3
    assert tasks[1].execute("e", ["sh", "-c", "exit 6"]) == 6
    tasks[0].kill()
    assert tasks[0].wait() == 137
    assert [task.status() for task in tasks] == ["stopped", "running", "running"]
    tasks[0].delete()
    assert tasks[1].rpc.call("Connect", id=tasks[1].id).shim_pid == tasks[0].shim_pid
    for task in tasks[1:]:
        task.kill()
        task.wait()
        assert is_there(task.shim_pid)
        task.delete()
    wait_until_gone(tasks[0].shim_pid)
    for task in tasks:
        engine.events.wait("TaskDelete", task.id)
        assert engine.events.names(task.id)[0] == "TaskCreate"


def test_an_exec_id_belongs_to_its_container(engine: Engine) -> None:
    tasks = pod(engine, 2)
    for task in tasks:
        task.create()
        task.start()
    for number, task in enumerate(tasks):
        task.add("same", ["sh", "-c", f"exit {number + 1}"])
        task.start("same")
    assert [task.wait("same") for task in tasks] == [1, 2]


def test_a_slow_hook_of_one_does_not_delay_the_others(rune_engine: Engine) -> None:
    # containerd's shim makes one container of a pod after the other.
    slow = rune_engine.bundle(SLEEP, "pod")
    slow.config["hooks"] = hook("createRuntime", f"sleep {SLOW_S}")
    slow_task = rune_engine.task(slow)
    slow_task.begin()
    quick = pod(rune_engine, 3)
    creation = slow_task.rpc.begin("Create", id=slow_task.id, bundle=str(slow.path), options=rune_engine.options)
    begin = time.monotonic()
    for task in quick:
        task.create()
        task.start()
        assert task.execute("e", ["true"]) == 0
        task.kill()
        task.wait()
        task.rpc.call("Delete", id=task.id)
    assert time.monotonic() - begin < SLOW_S
    assert not slow_task.rpc.is_answered(creation)
    assert slow_task.rpc.finish(creation).pid > 0


def test_a_slow_start_does_not_delay_the_others_nor_its_own_state(rune_engine: Engine) -> None:
    # poststart hooks of the other shim's containers wait for one another, too.
    slow = rune_engine.bundle(SLEEP, "pod")
    slow.config["hooks"] = hook("poststart", f"sleep {SLOW_S}")
    slow_task, (quick,) = rune_engine.task(slow), pod(rune_engine, 1)
    slow_task.begin()
    slow_task.create()
    call = slow_task.rpc.begin("Start", id=slow_task.id)
    begin = time.monotonic()
    quick.create()
    quick.start()
    assert quick.status() == "running"
    client = slow_task.another_client()
    assert client.call("State", id=slow_task.id).pid == slow_task.pid
    client.close()
    assert time.monotonic() - begin < SLOW_S
    slow_task.rpc.finish(call)
    assert slow_task.status() == "running"


def test_a_hook_that_fails_fails_its_container_alone(engine: Engine) -> None:
    broken = engine.bundle(SLEEP, "pod")
    broken.config["hooks"] = hook("prestart", "echo why >&2; exit 1")
    broken_task, (other,) = engine.task(broken), pod(engine, 1)
    other.create()
    other.start()
    broken_task.begin()
    with refused(UNKNOWN):
        broken_task.create()
    assert not engine.cgroup(broken_task, "memory").exists()
    assert other.status() == "running"


def test_a_slow_creation_is_ended_by_kill(rune_engine: Engine) -> None:
    # The other shim knows nothing of a container until it is made.
    slow = rune_engine.bundle(SLEEP)
    slow.config["hooks"] = hook("createRuntime", "sleep 1000")
    task = rune_engine.task(slow)
    task.begin()
    client = task.another_client()
    creation = client.begin("Create", id=task.id, bundle=str(slow.path), options=rune_engine.options)
    assert not client.is_answered(creation, 0.2)
    task.kill()
    with refused(1):
        client.finish(creation)
    client.close()
    assert not rune_engine.cgroup(task, "memory").exists()


def test_a_creation_whose_time_is_over_is_undone(rune_engine: Engine) -> None:
    # The other shim goes on with it, and keeps what nobody knows of.
    slow = rune_engine.bundle(SLEEP)
    slow.config["hooks"] = hook("createRuntime", "sleep 1000")
    task = rune_engine.task(slow)
    task.begin()
    options = rune_engine.options
    creation = task.rpc.begin("Create", 300_000_000, id=task.id, bundle=str(slow.path), options=options)
    with refused(4, "context deadline exceeded"):
        task.rpc.finish(creation)
    assert not rune_engine.cgroup(task, "memory").exists()
    slow.config.pop("hooks")
    slow.write()
    task.create()
    task.start()
    assert task.status() == "running"


def test_starts_of_one_container_at_once_are_one(engine: Engine) -> None:
    task = engine.create()
    clients = [task.another_client() for _ in range(4)]
    calls = [client.begin("Start", id=task.id) for client in clients]
    results = []
    for client, call in zip(clients, calls, strict=True):
        try:
            results.append(client.finish(call).pid)
        except Exception as error:  # noqa: BLE001  # it is looked at below
            results.append(str(error))
        client.close()
    assert results.count(task.pid) == 1
    assert sum("cannot start a" in str(result) for result in results) == 3
    assert engine.events.wait("TaskStart", task.id)
    assert engine.events.names(task.id).count("TaskStart") == 1


def test_deletions_of_one_container_at_once_are_one(rune_engine: Engine) -> None:
    # The other shim answers several, and tells of as many.
    task = rune_engine.run(["true"])
    task.wait()
    clients = [task.another_client() for _ in range(4)]
    calls = [client.begin("Delete", id=task.id) for client in clients]
    statuses = []
    for client, call in zip(clients, calls, strict=True):
        try:
            statuses.append(client.finish(call).exit_status)
        except Exception as error:  # noqa: BLE001  # it is looked at below
            statuses.append(str(error))
        client.close()
    assert statuses.count(0) == 1
    assert sum("container not created: not found" in str(status) for status in statuses) == 3
    rune_engine.events.wait("TaskDelete", task.id)
    task.shut_down()
    wait_until_gone(task.shim_pid)
    assert rune_engine.events.names(task.id).count("TaskDelete") == 1


def test_a_hundred_lives_leave_a_shim_as_it_was(rune_engine: Engine) -> None:
    keeper = rune_engine.run(rune_engine.bundle(SLEEP, "pod"))
    task = rune_engine.task(rune_engine.bundle(SLEEP, "pod"))
    task.begin()

    def live(times: int) -> tuple[int, int]:
        for _ in range(times):
            task.create(stdout=rune_engine.output().path)
            task.start()
            task.execute("e", ["true"])
            task.kill()
            task.wait()
            task.rpc.call("Delete", id=task.id)
            rune_engine.fifos.pop().close()
        return len(os.listdir(f"/proc/{keeper.shim_pid}/fd")), resident(keeper.shim_pid)

    before = live(20)
    after = live(100)
    assert after[0] == before[0]
    assert after[1] - before[1] < 1 << 20
    children = Path(f"/proc/{keeper.shim_pid}/task/{keeper.shim_pid}/children")
    eventually(lambda: children.read_text().split() == [str(keeper.pid)])


def resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_failures_leave_a_shim_as_it_was(rune_engine: Engine) -> None:
    keeper = rune_engine.run(rune_engine.bundle(SLEEP, "pod"))
    broken = rune_engine.bundle(["no-such-program"], "pod")
    broken.config["process"]["terminal"] = True
    task = rune_engine.task(broken)
    task.begin()

    def fail(times: int) -> tuple[int, int]:
        for number in range(times):
            out = rune_engine.output()
            with refused(UNKNOWN, "executable file not found"):
                task.create(terminal=True, stdout=out.path)
            out.end()
            keeper.add("e", ["no-such-program"], None, terminal=number % 2 == 1, stdout=rune_engine.output().path)
            with refused(UNKNOWN, "executable file not found"):
                keeper.start("e")
            keeper.rpc.call("Delete", id=keeper.id, exec_id="e")
        eventually(lambda: not Path(f"/proc/{keeper.shim_pid}/task/{keeper.shim_pid}/children").read_text().split()[1:])
        return len(os.listdir(f"/proc/{keeper.shim_pid}/fd")), resident(keeper.shim_pid)

    before, after = fail(15), fail(45)
    assert after[0] == before[0]
    assert after[1] - before[1] < 1 << 20
