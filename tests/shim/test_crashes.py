"""containerd goes and comes back, and shims are killed: no event is lost, and nothing is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.containerd_kit.containerd import Task, is_there, wait_until_gone
from tests.shim.conftest import SLEEP, Engine, eventually


def kill_shim(task: Task) -> None:
    os.kill(task.shim_pid, signal.SIGKILL)
    wait_until_gone(task.shim_pid)
    task.rpc.close()
    task.client = None


def test_delete_cleans_up_after_a_shim_that_was_killed(engine: Engine) -> None:
    bundle = engine.bundle(["sh", "-c", "sleep 1000 & sleep 1000; true"])
    bundle.config["root"] = {"path": "rootfs"}
    mounts = [{"type": "bind", "source": str(engine.rootfs), "options": ["rbind", "ro"]}]
    task = engine.run(bundle, rootfs=mounts, **engine.both(engine.output()))
    pids = [each.pid for each in task.rpc.call("Pids", id=task.id).processes]
    kill_shim(task)
    assert is_there(task.pid)
    answer = task.clean_up()
    assert (answer.pid, answer.exit_status) == (task.pid, 137)
    assert abs(answer.exited_at.seconds - time.time()) < 5
    eventually(lambda: not any(is_there(pid) for pid in pids))
    assert str(bundle.path) not in Path("/proc/self/mountinfo").read_text()
    assert not engine.cgroup(task, "memory").exists()
    assert not list(engine.state.glob("kit/*"))


def test_delete_cleans_up_what_was_paused(engine: Engine) -> None:
    task = engine.run()
    task.rpc.call("Pause", id=task.id)
    kill_shim(task)
    assert task.clean_up().exit_status == 137
    eventually(lambda: not is_there(task.pid))


def test_delete_cleans_up_what_was_only_created(engine: Engine) -> None:
    task = engine.create()
    kill_shim(task)
    assert task.clean_up().exit_status == 137
    eventually(lambda: not is_there(task.pid))


def test_delete_is_asked_twice(rune_engine: Engine) -> None:
    # The other shim needs files of the bundle that its first delete takes along.
    task = rune_engine.run()
    kill_shim(task)
    for _ in range(2):
        assert task.clean_up().exit_status == 137


def test_delete_of_a_pods_container_leaves_the_others(engine: Engine) -> None:
    bundles = [engine.bundle(SLEEP, "pod") for _ in range(2)]
    first, second = (engine.run(bundle) for bundle in bundles)
    first.kill()
    first.wait()
    first.delete()
    assert second.status() == "running"
    assert is_there(second.pid)


def test_a_containerd_that_comes_back_finds_its_tasks(engine: Engine) -> None:
    task = engine.run()
    task.add("e", SLEEP)
    exec_pid = task.start("e")
    task.rpc.close()
    engine.events.down()
    time.sleep(0.1)
    assert is_there(task.pid)
    engine.events.up()
    assert task.address is not None
    assert (task.bundle / "address").read_text() == f"unix://{task.address.path}"
    task.connect()
    pids = {each.pid for each in task.rpc.call("Pids", id=task.id).processes}
    assert pids == {task.pid, exec_pid}
    task.kill(exec_id="e")
    assert task.wait("e") == 137
    engine.events.wait("TaskExit", task.id, id="e")


def test_a_task_that_ended_meanwhile_is_still_known(rune_engine: Engine) -> None:
    # The other shim names no process then, and containerd 1.6 throws the status away with it.
    task = rune_engine.run()
    task.kill()
    task.wait()
    task.rpc.close()
    task.connect()
    assert [each.pid for each in task.rpc.call("Pids", id=task.id).processes] == [task.pid]
    assert task.state().exit_status == 137


def test_events_wait_for_a_containerd_that_is_gone(engine: Engine) -> None:
    task = engine.run()
    engine.events.wait("TaskStart", task.id)
    engine.events.down()
    task.kill()
    assert task.wait() == 137
    time.sleep(0.3)
    engine.events.up()
    engine.events.wait("TaskExit", task.id)
    assert engine.events.names(task.id) == ["TaskCreate", "TaskStart", "TaskExit"]


def test_the_order_of_events_outlives_a_restart(rune_engine: Engine) -> None:
    # The other shim tries its events apart from one another, so a later one may come first.
    task = rune_engine.run()
    rune_engine.events.wait("TaskStart", task.id)
    rune_engine.events.down()
    for number in range(20):
        assert task.execute(f"e{number}", ["true"]) == 0
    task.kill()
    task.wait()
    task.rpc.call("Delete", id=task.id)
    rune_engine.events.up()
    rune_engine.events.wait("TaskDelete", task.id)
    names = rune_engine.events.names(task.id)
    assert names == [
        *("TaskCreate", "TaskStart"),
        *("TaskExecAdded", "TaskExecStarted", "TaskExit") * 20,
        *("TaskExit", "TaskDelete"),
    ]


def test_one_event_is_under_way_at_a_time(rune_engine: Engine) -> None:
    # containerd serves requests of a connection at once: only the answer tells that one was taken.
    rune_engine.events.delay_s = 0.03
    task = rune_engine.run()
    for number in range(4):
        assert task.execute(f"e{number}", ["true"]) == 0
    task.kill()
    task.wait()
    rune_engine.events.wait("TaskExit", task.id, id=task.id)
    assert rune_engine.events.names(task.id) == [
        *("TaskCreate", "TaskStart"),
        *("TaskExecAdded", "TaskExecStarted", "TaskExit") * 4,
        "TaskExit",
    ]
    assert rune_engine.events.connections == 1


def test_a_containerd_that_refuses_an_event_gets_the_next(rune_engine: Engine) -> None:
    rune_engine.events.refusal = (2, "no space left on device")
    task = rune_engine.run()
    rune_engine.events.wait("TaskStart", task.id)
    rune_engine.events.refusal = None
    task.kill()
    task.wait()
    rune_engine.events.wait("TaskExit", task.id)
    assert "no space left on device" in task.log()


def test_a_slow_containerd_delays_no_call(rune_engine: Engine) -> None:
    rune_engine.events.silent = True
    task = rune_engine.run()
    begin = time.monotonic()
    assert task.execute("e", ["true"]) == 0
    task.kill()
    assert task.wait() == 137
    task.rpc.call("Delete", id=task.id)
    assert time.monotonic() - begin < 2
    rune_engine.events.silent = False


def test_the_last_events_are_told_before_the_shim_ends(engine: Engine) -> None:
    engine.events.delay_s = 0.1
    task = engine.run(["true"])
    task.wait()
    task.delete()
    wait_until_gone(task.shim_pid)
    engine.events.wait("TaskDelete", task.id, timeout_s=2)
    assert engine.events.names(task.id) == ["TaskCreate", "TaskStart", "TaskExit", "TaskDelete"]


def test_a_shim_without_a_containerd_ends_all_the_same(rune_engine: Engine) -> None:
    task = rune_engine.run(["true"])
    task.wait()
    rune_engine.events.down()
    task.rpc.call("Delete", id=task.id)
    task.shut_down()
    wait_until_gone(task.shim_pid, 15)
    rune_engine.events.up()


@pytest.mark.parametrize("moment_ms", range(0, 40, 4))
def test_a_shim_that_is_killed_while_it_makes_a_container_leaves_nothing(rune_engine: Engine, moment_ms: int) -> None:
    # The other shim's runc goes on without it.
    bundle = rune_engine.bundle()
    bundle.config["root"] = {"path": "rootfs"}
    task = rune_engine.task(bundle)
    task.begin()
    mounts = [{"type": "bind", "source": str(rune_engine.rootfs), "options": ["rbind", "ro"]}]
    task.rpc.begin("Create", id=task.id, bundle=str(bundle.path), rootfs=mounts, options=rune_engine.options)
    time.sleep(moment_ms / 1000)
    kill_shim(task)
    task.clean_up()
    eventually(lambda: not [each for each in rune_engine.leftovers() if not each.startswith("process")])
