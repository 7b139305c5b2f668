"""The life of a task: what each method answers in which state, and which events follow in which order."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.containerd_kit import schema
from tests.containerd_kit.containerd import wait_until_gone
from tests.containerd_kit.ttrpc import RpcError
from tests.shim.conftest import SLEEP, Engine, eventually

UNKNOWN, INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS = 2, 3, 5, 6
FAILED_PRECONDITION, UNIMPLEMENTED = 9, 12
LOOP = "while :; do sleep 0.01; done"
CHILD = f"trap 'echo child; exit' USR1; echo ready; {LOOP}"


def refused(code: int, text: str = "") -> Any:
    return pytest.raises(RpcError, match=rf"(?s)^code {code}: .*{text}")


def test_the_life_of_a_task_is_told_in_order(engine: Engine) -> None:
    begin = time.time_ns()
    task = engine.task(["sh", "-c", "exit 7"])
    task.begin()
    pid = task.create()
    assert task.start() == pid
    assert task.wait() == 7
    deleted = task.delete()
    assert (deleted.pid, deleted.exit_status) == (pid, 7)
    assert begin < deleted.exited_at.ToNanoseconds() <= time.time_ns()
    engine.events.wait("TaskDelete", task.id)
    events = engine.events.of(task.id)
    assert [event.name for event in events] == ["TaskCreate", "TaskStart", "TaskExit", "TaskDelete"]
    created, started, ended, gone = (event.body for event in events)
    assert (created.pid, created.bundle, created.io.terminal) == (pid, str(task.bundle), False)
    assert started.pid == pid
    assert (ended.id, ended.pid, ended.exit_status, ended.exited_at) == (task.id, pid, 7, deleted.exited_at)
    assert (gone.pid, gone.exit_status, gone.exited_at) == (pid, 7, deleted.exited_at)
    assert [event.time_ns for event in events] == sorted(event.time_ns for event in events)
    assert {event.namespace for event in events} == {"kit"}


def test_the_state_follows_the_life(engine: Engine) -> None:
    out = engine.output()
    task = engine.create(SLEEP, **engine.both(out))
    state = task.state()
    assert (state.id, state.bundle, state.pid, state.stdout) == (task.id, str(task.bundle), task.pid, out.path)
    assert schema.STATUS[state.status] == "created"
    assert not state.HasField("exited_at") or state.exited_at.seconds <= 0
    task.start()
    assert task.status() == "running"
    task.kill()
    assert task.wait() == 137
    state = task.state()
    assert schema.STATUS[state.status] == "stopped"
    assert (state.pid, state.exit_status) == (task.pid, 137)
    task.delete()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_the_signal_that_ended_it_is_in_the_status(engine: Engine, number: int) -> None:
    task = engine.run(["sh", "-c", "sleep 1000 & kill -$0 $!; wait $!", str(int(number))])
    assert task.wait() == 128 + number


def test_the_first_process_is_the_shims_child(engine: Engine) -> None:
    task = engine.run()
    status = Path(f"/proc/{task.pid}/status").read_text()
    assert f"\nPPid:\t{task.shim_pid}\n" in status
    assert (task.bundle / "init.pid").read_text() == str(task.pid)


def test_connect_tells_the_pids(engine: Engine) -> None:
    task = engine.run()
    answer = task.rpc.call("Connect", id=task.id)
    assert (answer.shim_pid, answer.task_pid) == (task.shim_pid, task.pid)
    assert b"shim" in Path(f"/proc/{answer.shim_pid}/cmdline").read_bytes()


def test_connect_to_an_unknown_task_is_no_error(engine: Engine) -> None:
    task = engine.task()
    task.begin()
    answer = task.rpc.call("Connect", id=task.id)
    assert (answer.shim_pid > 0, answer.task_pid) == (True, 0)


@pytest.mark.parametrize(
    "method",
    [
        *("State", "Start", "Delete", "Pids", "Pause", "Resume", "Checkpoint", "Kill", "Exec", "ResizePty", "CloseIO"),
        *("Update", "Wait", "Stats"),
    ],
)
def test_an_unknown_task_is_not_found(engine: Engine, method: str) -> None:
    task = engine.task()
    task.begin()
    with refused(NOT_FOUND, "container not created: not found"):
        task.rpc.call(method, id="nobody")


@pytest.mark.parametrize("method", ["State", "Start", "Delete", "Kill", "ResizePty", "CloseIO", "Wait"])
def test_an_unknown_process_is_not_found(engine: Engine, method: str) -> None:
    task = engine.run()
    code = NOT_FOUND if engine.is_rune or method != "CloseIO" else UNKNOWN  # containerd's shim forgets one code
    with refused(code, "process does not exist none: not found"):
        task.rpc.call(method, id=task.id, exec_id="none")


def test_what_is_not_there_is_not_implemented(engine: Engine) -> None:
    task = engine.task()
    task.begin()
    with refused(UNIMPLEMENTED, "service containerd.task.v9.Task"):
        task.rpc.finish_raw(task.rpc.begin_raw("containerd.task.v9.Task", "State", b""))
    with refused(UNIMPLEMENTED, "method Explode"):
        task.rpc.finish_raw(task.rpc.begin_raw("containerd.task.v2.Task", "Explode", b""))
    with refused(UNIMPLEMENTED, "service containerd.runtime.sandbox.v1.Sandbox"):  # containerd 2 asks for it
        task.rpc.finish_raw(task.rpc.begin_raw("containerd.runtime.sandbox.v1.Sandbox", "Ping", b""))


def test_a_second_start_is_refused(engine: Engine) -> None:
    task = engine.run()
    with refused(UNKNOWN, "cannot start a running process"):
        task.start()
    task.kill()
    task.wait()
    with refused(UNKNOWN, "cannot start a stopped process"):
        task.start()


def test_what_runs_is_not_deleted(engine: Engine) -> None:
    task = engine.run()
    with refused(UNKNOWN, "cannot delete a running process"):
        task.rpc.call("Delete", id=task.id)
    assert task.status() == "running"


def test_what_was_never_started_is_deleted(engine: Engine) -> None:
    task = engine.create()
    answer = task.delete()
    assert answer.pid == task.pid
    engine.events.wait("TaskDelete", task.id)
    assert [name for name in engine.events.names(task.id) if name != "TaskExit"] == ["TaskCreate", "TaskDelete"]


def test_the_end_of_a_task_that_never_started_is_told(engine: Engine) -> None:
    task = engine.create()
    task.kill()
    assert task.wait() == 137
    assert task.status() == "stopped"
    task.delete()
    engine.events.wait("TaskDelete", task.id)
    assert engine.events.names(task.id) == ["TaskCreate", "TaskExit", "TaskDelete"]


def test_an_end_at_once_is_told_after_the_start(engine: Engine) -> None:
    for _ in range(5):
        task = engine.run(["true"])
        assert task.wait() == 0
        task.delete()
        engine.events.wait("TaskDelete", task.id)
        assert engine.events.names(task.id) == ["TaskCreate", "TaskStart", "TaskExit", "TaskDelete"]


def test_an_id_is_there_once(rune_engine: Engine) -> None:
    # containerd 1.6's shim replaces the first and loses it; later ones refuse the second as we do.
    task = rune_engine.run()
    with refused(ALREADY_EXISTS, f"{task.id}: already exists"):
        task.create()
    assert task.status() == "running"


def test_many_wait_for_an_end(engine: Engine) -> None:
    task = engine.run()
    clients = [task.another_client() for _ in range(3)]
    waits = [(client, client.begin("Wait", id=task.id)) for client in clients for _ in range(5)]
    assert not any(client.is_answered(wait, 0.05) for client, wait in waits[::5])
    task.kill()
    answers = [client.finish(wait) for client, wait in waits]
    assert {answer.exit_status for answer in answers} == {137}
    assert len({answer.exited_at.ToNanoseconds() for answer in answers}) == 1
    assert task.wait() == 137  # also who asks later
    for client in clients:
        client.close()


def test_calls_are_answered_while_another_waits(engine: Engine) -> None:
    task = engine.run()
    wait = task.rpc.begin("Wait", id=task.id)
    assert task.status() == "running"
    task.kill()
    assert task.rpc.finish(wait).exit_status == 137


def test_a_call_whose_time_is_over_is_answered_so(rune_engine: Engine) -> None:
    # containerd's shim lets Wait go on; its ttrpc answers only when the method does.
    task = rune_engine.run()
    begin = time.monotonic()
    with refused(4, "context deadline exceeded"):
        task.rpc.finish(task.rpc.begin("Wait", 100_000_000, id=task.id))
    assert 0.1 <= time.monotonic() - begin < 1
    assert task.status() == "running"


def test_who_has_ended_is_not_signalled(engine: Engine) -> None:
    task = engine.run()
    task.kill()
    task.wait()
    with refused(NOT_FOUND, "process already finished: not found"):
        task.kill()


def test_kill_all_reaches_everybody(engine: Engine) -> None:
    out = engine.output()
    task = engine.run(["sh", "-c", f"({CHILD}) & trap 'sleep 0.2; exit 3' USR1; {LOOP}"], **engine.both(out))
    out.wait_for(b"ready")
    task.kill(signal.SIGUSR1, everyone=True)
    out.wait_for(b"child")
    assert task.wait() == 3


def test_a_signal_is_for_the_first_process_alone(engine: Engine) -> None:
    out = engine.output()
    task = engine.run(["sh", "-c", f"({CHILD}) & trap 'echo first; exit 3' USR1; {LOOP}"], **engine.both(out))
    out.wait_for(b"ready")
    task.kill(signal.SIGUSR1)
    assert task.wait() == 3
    assert out.end() == b"ready\nfirst\n"


def test_a_signal_that_is_none_is_refused(engine: Engine) -> None:
    task = engine.run()
    with pytest.raises(RpcError):
        task.kill(999)
    assert task.status() == "running"


def test_pids_are_those_of_the_cgroup_and_execs_are_named(engine: Engine) -> None:
    task = engine.run(["sh", "-c", "sleep 1000 & sleep 1000; true"])
    eventually(lambda: len(task.rpc.call("Pids", id=task.id).processes) == 3)
    task.add("one", SLEEP)
    pid = task.start("one")
    found = task.rpc.call("Pids", id=task.id).processes
    assert {each.pid for each in found} >= {task.pid, pid}
    assert len(found) == 4
    named = {each.pid: schema.unpack(each.info).exec_id for each in found if each.HasField("info")}
    assert named == {pid: "one"}


def test_a_program_that_is_not_there_is_named_and_nothing_is_left(engine: Engine) -> None:
    task = engine.task(["no-such-program"])
    task.begin()
    with refused(UNKNOWN, r"executable file not found in \$PATH"):
        task.create()
    assert not engine.cgroup(task, "memory").exists()
    with refused(NOT_FOUND):
        task.state()
    task.shut_down()
    wait_until_gone(task.shim_pid)
    task.clean_up()


def test_a_failed_creation_starts_with_the_words_that_engines_look_for(engine: Engine) -> None:
    bundle = engine.bundle()
    bundle.config["mounts"].append({"destination": "/x", "type": "no-such-type", "source": "none"})
    task = engine.task(bundle)
    task.begin()
    with refused(UNKNOWN, "OCI runtime create failed: "):
        task.create()


def test_an_id_can_be_used_again_after_a_failure(engine: Engine) -> None:
    bundle = engine.bundle(["no-such-program"])
    task = engine.task(bundle)
    task.begin()
    with refused(UNKNOWN):
        task.create()
    bundle.config["process"]["args"] = ["true"]
    bundle.write()
    task.create()
    task.start()
    assert task.wait() == 0
    task.delete()


def test_mounts_of_a_snapshotter_are_made_and_taken_away(engine: Engine) -> None:
    bundle = engine.bundle(["sh", "-c", "cat /etc/group && echo new >/upper && cat /upper"])
    bundle.config["root"] = {"path": "rootfs"}
    for name in ("upper", "work"):
        (bundle.path / name).mkdir()
    options = [f"lowerdir={engine.rootfs}", f"upperdir={bundle.path}/upper", f"workdir={bundle.path}/work"]
    out = engine.output()
    mounts = [{"type": "overlay", "source": "overlay", "options": options}]
    task = engine.run(bundle, rootfs=mounts, **engine.both(out))
    assert task.wait() == 0
    assert out.end().endswith(b"\nnew\n")
    created = engine.events.wait("TaskCreate", task.id).body
    assert [mount.type for mount in created.rootfs] == ["overlay"]
    task.delete()
    assert str(bundle.path) not in Path("/proc/self/mountinfo").read_text()
    assert (bundle.path / "upper/upper").read_text() == "new\n"


def test_an_image_of_more_layers_than_options_have_room_for_is_mounted(engine: Engine) -> None:
    bundle = engine.bundle(["sh", "-c", "cat /layer-*"])
    bundle.config["root"] = {"path": "rootfs"}
    layers = [
        engine.directory / f"snapshots/a-long-name-of-a-directory-of-layers/{number:0>40}/fs" for number in range(60)
    ]
    for number, layer in enumerate(layers):
        layer.mkdir(parents=True)
        (layer / f"layer-{number:0>2}").write_text(f"{number}\n")
    bottom = layers[-1].parents[1] / "bottom"
    shutil.copytree(engine.rootfs, bottom, symlinks=True)
    lower = ":".join(str(layer) for layer in [*layers, bottom])
    assert len(lower) > 4096
    out = engine.output()
    mounts = [{"type": "overlay", "source": "overlay", "options": [f"lowerdir={lower}", "ro"]}]
    task = engine.run(bundle, rootfs=mounts, **engine.both(out))
    assert task.wait() == 0
    task.delete()
    assert out.end().split() == [str(number).encode() for number in range(60)]


def test_a_read_only_bind_is_read_only(engine: Engine) -> None:
    bundle = engine.bundle(["sh", "-c", "touch /new"])
    bundle.config["root"] = {"path": "rootfs"}
    mounts = [{"type": "bind", "source": str(engine.rootfs), "options": ["rbind", "ro"]}]
    task = engine.run(bundle, rootfs=mounts)
    assert task.wait() == 1
    task.delete()
    assert not (engine.rootfs / "new").exists()


def test_a_mount_that_fails_undoes_those_before_it(engine: Engine) -> None:
    bundle = engine.bundle()
    bundle.config["root"] = {"path": "rootfs"}
    task = engine.task(bundle)
    task.begin()
    mounts = [
        {"type": "bind", "source": str(engine.rootfs), "options": ["rbind"]},
        {"type": "no-such-type", "source": "none", "options": []},
    ]
    with refused(UNKNOWN):
        task.create(rootfs=mounts)
    assert str(bundle.path) not in Path("/proc/self/mountinfo").read_text()


def test_a_broken_config_is_refused(engine: Engine) -> None:
    task = engine.task()
    task.begin()
    (task.bundle / "config.json").write_text("{")
    with refused(UNKNOWN):
        task.create()


# --- the container as a whole ----------------------------------------------------------------------------------------


def test_pause_stops_and_resume_goes_on(engine: Engine) -> None:
    task = engine.run()
    task.add("added", ["true"])
    task.rpc.call("Pause", id=task.id)
    assert task.status() == task.status("added") == "paused"
    assert (engine.cgroup(task, "freezer") / "freezer.state").read_text() == "FROZEN\n"
    with refused(UNKNOWN, "cannot exec in a paused state"):
        task.add("e", ["true"])
    with pytest.raises(RpcError):
        task.rpc.call("Delete", id=task.id)
    task.rpc.call("Resume", id=task.id)
    assert task.status() == "running"
    assert task.execute("e", ["true"]) == 0
    engine.events.wait("TaskResumed", task.id)
    names = engine.events.names(task.id)
    assert names[:5] == ["TaskCreate", "TaskStart", "TaskExecAdded", "TaskPaused", "TaskResumed"]


def test_what_does_not_run_is_not_paused(engine: Engine) -> None:
    task = engine.create()
    with refused(UNKNOWN):
        task.rpc.call("Resume", id=task.id)
    task.kill()
    task.wait()
    with refused(UNKNOWN):
        task.rpc.call("Pause", id=task.id)


@pytest.mark.parametrize("everyone", [False, True])
def test_a_paused_task_is_killed(engine: Engine, everyone: bool) -> None:
    task = engine.run()
    task.rpc.call("Pause", id=task.id)
    task.kill(everyone=everyone)
    assert task.wait() == 137
    assert task.status() == "stopped"
    task.delete()


def test_an_update_reaches_the_cgroup(engine: Engine) -> None:
    task = engine.run()
    task.update({"memory": {"limit": 64 << 20}, "cpu": {"shares": 77}, "pids": {"limit": 33}})
    assert (engine.cgroup(task, "memory") / "memory.limit_in_bytes").read_text() == f"{64 << 20}\n"
    assert (engine.cgroup(task, "cpu") / "cpu.shares").read_text() == "77\n"
    assert (engine.cgroup(task, "pids") / "pids.max").read_text() == "33\n"


def test_a_broken_update_is_refused(engine: Engine) -> None:
    task = engine.run()
    with pytest.raises(RpcError):
        task.rpc.call("Update", id=task.id, resources={"type_url": "x", "value": b"{"})
    assert task.status() == "running"


def test_an_update_may_have_annotations(rune_engine: Engine) -> None:
    # containerd's shim hands them to runc's state, where nobody reads them.
    task = rune_engine.run()
    resources = {"type_url": "x", "value": b'{"pids":{"limit":44}}'}
    task.rpc.call("Update", id=task.id, resources=resources, annotations={"a": "b", "": ""})
    assert (rune_engine.cgroup(task, "pids") / "pids.max").read_text() == "44\n"


def test_statistics_are_of_the_v1_type_and_full(engine: Engine) -> None:
    bundle = engine.bundle(["sh", "-c", "head -c 10000000 /dev/zero >/tmp/x; sleep 1000; true"])
    bundle.config["linux"]["resources"] |= {"memory": {"limit": 128 << 20}, "pids": {"limit": 50}}
    task = engine.run(bundle)
    eventually(lambda: stats(task).memory.usage.usage > 10_000_000)
    found = stats(task)
    assert found.memory.usage.limit == 128 << 20
    assert found.memory.hierarchical_memory_limit == 128 << 20
    assert found.memory.usage.max >= found.memory.usage.usage > 10_000_000
    assert found.memory.total_cache > 9_000_000  # the kernel counts it in batches
    assert (found.pids.current, found.pids.limit) == (2, 50)
    assert found.cpu.usage.total > 0
    assert len(found.cpu.usage.per_cpu) == os.cpu_count()
    assert sum(found.cpu.usage.per_cpu) <= found.cpu.usage.total * 1.5
    members = {field.name for field, _ in found.ListFields()}
    assert members >= {"pids", "cpu", "memory", "blkio", "memory_oom_control"}


def stats(task: Any) -> Any:
    answer = task.rpc.call("Stats", id=task.id).stats
    assert answer.type_url == "io.containerd.cgroups.v1.Metrics"
    return schema.unpack(answer)


def test_out_of_memory_is_told_before_the_end(engine: Engine) -> None:
    bundle = engine.bundle(["sh", "-c", "head -c 60000000 /dev/zero | tail -c 60000000 >/dev/null; exit 9"])
    bundle.config["linux"]["resources"]["memory"] = {"limit": 16 << 20, "swap": 16 << 20}
    task = engine.run(bundle)
    task.wait()
    engine.events.wait("TaskExit", task.id)
    task.delete()
    engine.events.wait("TaskDelete", task.id)
    names = engine.events.names(task.id)
    assert "TaskOOM" in names
    if engine.is_rune:  # containerd's shim tells of both in no order, and says so of it to nobody
        assert names.index("TaskOOM") < names.index("TaskExit")


def test_the_removal_of_a_cgroup_is_no_lack_of_memory(engine: Engine) -> None:
    bundle = engine.bundle(["true"])
    bundle.config["linux"]["resources"]["memory"] = {"limit": 32 << 20}
    for _ in range(3):
        task = engine.run(bundle)
        task.wait()
        task.delete()
        (task.bundle / "log").unlink()
    time.sleep(0.1)
    assert "TaskOOM" not in engine.events.names(task.id)


# --- the shim's end --------------------------------------------------------------------------------------------------


def test_shutdown_is_nothing_while_a_task_is_left(engine: Engine) -> None:
    task = engine.run()
    task.rpc.call("Shutdown", id=task.id)
    assert task.status() == "running"
    task.kill()
    task.wait()
    task.rpc.call("Shutdown", id=task.id)
    assert task.status() == "stopped"
    task.delete()
    wait_until_gone(task.shim_pid)
    assert task.address is not None
    assert not Path(task.address.path).exists()


def test_a_shim_without_tasks_ends_when_it_is_told_to(engine: Engine) -> None:
    task = engine.task()
    task.begin()
    task.shut_down()
    wait_until_gone(task.shim_pid)
    if engine.is_rune:  # containerd's shim wants to know the runtime of a bundle that had none
        assert task.clean_up().exit_status == 137


def test_delete_after_a_deleted_task_tells_a_status_and_removes_nothing_else(engine: Engine) -> None:
    other = engine.run()
    task = engine.run(["true"])
    task.wait()
    task.rpc.call("Delete", id=task.id)
    task.shut_down()
    answer = task.clean_up()
    assert answer.exit_status == 137
    assert abs(answer.exited_at.seconds - time.time()) < 5
    assert other.status() == "running"
