"""systemd's driver: a container is a transient unit, and its control group is the unit's.

systemd makes the groups with the limits it knows; the caller then makes what systemd does not (cgroups.create) and
writes all limits (cgroups.apply). A scope exists only as long as it has a process, so it begins with a stand-in that
the container's process takes the place of (container/scope.py). Reading and joining go through the groups' files, as
with the other driver.

org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import os

from inclavare.errors import HostError
from inclavare.linux import systemd_units
from inclavare.linux.bus import CallError, Connection
from inclavare.linux.cgroups import UNIFIED
from inclavare.linux.dbus import MEMBER, SENDER, Message
from inclavare.linux.files import read_file

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.linux.cgroup_limits import Setting
    from inclavare.linux.cgroups import Layout
    from inclavare.linux.systemd_units import Property

SYSTEMD = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
MANAGER = f"{SYSTEMD}.Manager"
SYSTEM_BUS = "unix:path=/run/dbus/system_bus_socket"
NO_SUCH_UNIT = f"{SYSTEMD}.NoSuchUnit"
UNIT_EXISTS = f"{SYSTEMD}.UnitExists"


class Manager:
    """systemd as it is reached over the bus: PID 1, or the user's own without root. Close it when done."""

    __slots__ = ("_bus", "control_group", "rootless", "version")

    def __init__(self) -> None:
        """Connect. Raises HostError when there is no systemd to talk to."""
        self.rootless = is_rootless()
        address = _address(user=self.rootless)
        try:
            self._bus = Connection(address)
        except HostError as error:
            raise HostError(f"cannot reach systemd: {error.message}", _hint(user=self.rootless)) from error
        try:
            self.version = _leading_number(self._property("Version"))
            self.control_group = self._property("ControlGroup").rstrip("/")
        except HostError as error:
            self.close()
            raise HostError(f"cannot reach systemd: {error.message}", _hint(user=self.rootless)) from error

    def close(self) -> None:
        """Leave the bus."""
        self._bus.close()

    def start(self, unit: str, properties: list[Property]) -> None:
        """Start a transient unit and wait until it is there. A unit of that name that has failed is forgotten first."""
        self._bus.subscribe(f"type='signal',interface='{MANAGER}',member='JobRemoved'")
        body = (unit, "replace", properties, ())
        try:
            try:
                job = self._call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
            except CallError as error:
                if error.name != UNIT_EXISTS:
                    raise
                self.reset(unit)
                job = self._call("StartTransientUnit", "ssa(sv)a(sa(sv))", body)
            self._wait(str(job[0]), f"systemd to start {unit}")
        except CallError as error:
            raise HostError(
                f"systemd cannot start {unit}: {error.message}", "`systemctl status` tells more."
            ) from error

    def stop(self, unit: str) -> None:
        """Stop a unit, wait until it is gone, and forget that it failed. What is gone already is fine."""
        self._bus.subscribe(f"type='signal',interface='{MANAGER}',member='JobRemoved'")
        try:
            job = self._call("StopUnit", "ss", (unit, "replace"))
            self._wait(str(job[0]), f"systemd to stop {unit}")
        except CallError as error:
            if error.name != NO_SUCH_UNIT:
                raise HostError(f"systemd cannot stop {unit}: {error.message}") from error
        self.reset(unit)

    def reset(self, unit: str) -> None:
        """Forget that a unit has failed."""
        try:
            self._call("ResetFailedUnit", "s", (unit,))
        except CallError as error:
            if error.name != NO_SUCH_UNIT:
                raise HostError(f"systemd cannot reset {unit}: {error.message}") from error

    def attach(self, unit: str, pid: int) -> None:
        """Have systemd move a process into a scope, also where we may not ourselves."""
        try:
            self._call("AttachProcessesToUnit", "ssau", (unit, "/", [pid]))
        except CallError as error:
            raise HostError(f"systemd cannot move process {pid} into {unit}: {error.message}") from error

    def set_properties(self, unit: str, properties: list[Property]) -> None:
        """Change properties of a unit until it ends."""
        try:
            self._call("SetUnitProperties", "sba(sv)", (unit, True, properties))
        except CallError as error:
            raise HostError(f"systemd cannot change {unit}: {error.message}") from error

    def _call(self, member: str, signature: str, body: tuple[object, ...]) -> tuple[object, ...]:
        return self._bus.call(SYSTEMD, MANAGER_PATH, MANAGER, member, signature, body)

    def _property(self, name: str) -> str:
        body = (MANAGER, name)
        (variant,) = self._bus.call(SYSTEMD, MANAGER_PATH, "org.freedesktop.DBus.Properties", "Get", "ss", body)
        return str(variant.value)

    def _wait(self, job: str, words: str) -> None:
        def is_end(message: Message) -> bool:
            return message.fields.get(MEMBER) == "JobRemoved" and job in message.body[1:2] and SENDER in message.fields

        result = self._bus.wait_for_signal(is_end, words).body[3]
        if result != "done":
            raise HostError(f"waited for {words}: the result is {result!r}", "The journal tells more.")


class Unit:
    """The unit of one container. `paths`: its directory in each hierarchy, whether it exists or not."""

    __slots__ = ("_id", "_layout", "_manager", "_properties", "name", "paths")

    def __init__(
        self, layout: Layout, cgroups_path: str | None, container_id: str, annotations: dict[str, str]
    ) -> None:
        """Read what there is. Raises SpecError for a path or annotation of another form, HostError without systemd."""
        self._id = container_id
        self._layout = layout
        self.name = systemd_units.name_of(cgroups_path, container_id, rootless=is_rootless())
        self._properties = systemd_units.annotated_properties(annotations)
        self._manager = Manager()
        below = self._manager.control_group + self.name.path
        self.paths = {name: f"{one.mount_point.rstrip('/')}{below}" for name, one in layout.hierarchies.items()}

    def create(self, pid: int, settings: list[Setting]) -> None:
        """Start the unit with these limits; `pid` is the process that it begins with (not for a slice)."""
        own = systemd_units.unit_properties(self.name, self._id, pid, v2=self._layout.is_v2)
        limits = _limit_properties(settings, self._manager.version)
        self._manager.start(self.name.unit, [*own, *limits, *self._properties])

    def attach(self, pid: int) -> None:
        """Move a process into the unit."""
        self._manager.attach(self.name.unit, pid)

    def close(self) -> None:
        """Leave the bus."""
        self._manager.close()


def apply(unit: str, paths: dict[str, str], settings: list[Setting]) -> None:
    """Tell systemd the new limits of a unit, so that it does not write the old ones again. The files come after."""
    values = {file: value for _, file, value in settings}
    if "cpu.cfs_quota_us" in values and "cpu.cfs_period_us" not in values:
        settings = [*settings, ("cpu", "cpu.cfs_period_us", _read_period(paths))]
    manager = Manager()
    try:
        properties = _limit_properties(settings, manager.version)
        if properties:
            manager.set_properties(unit, properties)
    finally:
        manager.close()


def attach(unit: str, pid: int) -> None:
    """Move one more process into a container's unit: in the hybrid layout systemd counts in a hierarchy of its own."""
    if unit.endswith(".slice"):
        return
    manager = Manager()
    try:
        manager.attach(unit, pid)
    finally:
        manager.close()


def remove(unit: str) -> None:
    """Stop the unit of a container whose processes are gone; afterwards systemd knows nothing of it."""
    manager = Manager()
    try:
        manager.stop(unit)
    finally:
        manager.close()


def is_rootless() -> bool:
    """Tell whether the user's systemd is to be asked: we are not root, or only root of a user namespace."""
    if os.geteuid():
        return True
    return read_file("/proc/self/uid_map").split() != [b"0", b"0", b"4294967295"]


def _limit_properties(settings: list[Setting], version: int) -> list[Property]:
    numbers = ""
    if any(controller == "devices" for controller, _, _ in settings):
        numbers = read_file("/proc/devices").decode()
    return systemd_units.limit_properties(settings, version, numbers)


def _read_period(paths: dict[str, str]) -> str:
    for name, path in paths.items():
        if name != UNIFIED and "cpu" in name.split(","):
            return read_file(f"{path}/cpu.cfs_period_us").decode().strip()
    return str(systemd_units.PERIOD_US)


def _address(*, user: bool) -> str:
    if not user:
        return os.getenv("DBUS_SYSTEM_BUS_ADDRESS", SYSTEM_BUS)
    session = os.getenv("DBUS_SESSION_BUS_ADDRESS")
    if session:
        return session
    directory = os.getenv("XDG_RUNTIME_DIR")
    if not directory:
        raise HostError(
            "cannot reach systemd: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set", _hint(user=True)
        )
    return f"unix:path={directory}/bus"


def _hint(*, user: bool) -> str:
    if user:
        return "Log in with a user session (loginctl enable-linger), or leave out --systemd-cgroup."
    return (
        "Is systemd this host's init, with dbus? If not, leave out --systemd-cgroup; "
        'for Docker, "exec-opts": ["native.cgroupdriver=cgroupfs"] in daemon.json.'
    )


def _leading_number(text: str) -> int:
    digits = text.lstrip("v")
    end = 0
    while digits[end : end + 1].isdigit():
        end += 1
    return int(digits[:end] or 0)
