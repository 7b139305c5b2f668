"""Begins the systemd unit of a container, before the container has a process.

A scope ends with its last process. So a stand-in is started, an executor whose plan waits on a pipe; the scope is made
around it, the container's process joins, and the stand-in goes before any hook or program could see it. Should rune be
killed, the pipe ends, and the stand-in with it.
"""

from __future__ import annotations

import os

from inclavare.container.executor import SIGNALS, sealed_memfd, sealed_program
from inclavare.container.plan import CALL_EXIT, Plan
from inclavare.errors import SpecError
from inclavare.linux import cgroup_limits
from inclavare.linux.calls import SYS_READ

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.create import Prepared
    from inclavare.container.store import Record
    from inclavare.linux.cgroup_limits import Setting
    from inclavare.linux.systemd_cgroup import Unit


def place(prepared: Prepared) -> tuple[Unit | None, dict[str, str]]:
    """Give the unit and the directories of a container whose cgroup manager is not cgroupfs: systemd, or disabled.

    Raises SpecError for limits without control groups. Device rules are in every configuration and are let go: who
    disables control groups has nothing that could enforce them.
    """
    linux = prepared.spec.linux
    if prepared.options.cgroup_manager == "systemd":
        from inclavare.linux.systemd_cgroup import Unit  # noqa: PLC0415  # not without control groups

        unit = Unit(prepared.layout, linux.cgroups_path, prepared.id, prepared.spec.annotations)
        return unit, unit.paths
    settings = (cgroup_limits.v2_settings if prepared.layout.is_v2 else cgroup_limits.v1_settings)(linux.resources)
    limits = [file for controller, file, _ in settings if controller != "devices"]
    if limits:
        raise SpecError("linux.resources", f"{limits[0]} cannot be set with --cgroup-manager=disabled")
    return None, {}


class Scope:
    """A unit that waits for the container's process. `end` it whatever happens."""

    __slots__ = ("_pid", "_pipe", "_unit")

    def __init__(self, unit: Unit, record: Record, settings: list[Setting]) -> None:
        """Have systemd start the unit with these limits. On failure the record knows no unit: it may be another's."""
        self._unit = unit
        self._pid = 0
        self._pipe = -1
        try:
            if not unit.name.is_slice:
                self._stand_in()
            unit.create(self._pid, settings)
        except BaseException:
            self.end()
            record.systemd_unit = ""
            raise

    def take(self, pid: int) -> None:
        """Let the container's process take the stand-in's place."""
        if self._pid:
            self._unit.attach(pid)
        self.end()

    def end(self) -> None:
        """End the stand-in and leave the bus; a scope without another process ends, too. May be repeated."""
        if self._pid:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)
            self._pid = 0
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        self._unit.close()

    def _stand_in(self) -> None:
        plan = Plan()
        theirs, self._pipe = os.pipe2(os.O_CLOEXEC)
        plan.add(SYS_READ, theirs, plan.data(bytes(8)), 1, words="wait for the container's process")
        plan.add(CALL_EXIT, 0, words="end")
        opened = [theirs]
        try:
            plan_fd = sealed_memfd("rune-plan", plan.encode(theirs))
            opened.append(plan_fd)
            program_fd = sealed_program("executor")
            opened.append(program_fd)
            self._pid = os.posix_spawn(
                f"/proc/self/fd/{program_fd}",
                ["rune:[scope]", str(plan_fd)],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, fd) for fd in (theirs, plan_fd)],
                setsigmask=(),
                setsigdef=SIGNALS,
            )
        finally:
            for fd in opened:
                os.close(fd)
