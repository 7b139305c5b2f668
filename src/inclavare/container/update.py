"""Changes the limits of a container. What was changed is changed back when a later limit cannot be set."""

from __future__ import annotations

from inclavare.container.lifecycle import status
from inclavare.container.store import CONFIG
from inclavare.errors import HostError, SpecError, StateError
from inclavare.linux import cgroup_limits, cgroups
from inclavare.linux.files import read_file

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.container.store import Record
    from inclavare.linux.cgroup_limits import Setting
    from inclavare.log import Log
    from inclavare.oci.resources import DeviceRule, Resources

MEMORY_FILES = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
WRITE_ONLY = ("io.max", "rdma.max")  # what is read there is not what can be written


def update(record: Record, resources: Resources, log: Log) -> None:
    """Set the limits that `resources` has. Raises StateError, SpecError, or HostError with all as it was."""
    now = status(record)
    if now == "stopped" or not record.pid:
        raise StateError(f"container not running: {record.id} is {now}")
    if not record.cgroups:
        raise StateError(f"cannot update container {record.id}: it was made without cgroups of its own")
    if resources.devices and not _are_its_own(record, resources):
        raise SpecError("devices", "the rules for devices cannot be changed in a running container")
    if cgroups.UNIFIED in record.cgroups:
        settings = cgroup_limits.v2_settings(resources)
    else:
        settings = _in_order(record.cgroups, cgroup_limits.v1_limits(resources))
    if resources.memory.check_before_update and resources.memory.limit:
        _check_usage(record.cgroups, resources.memory.limit)
    before = _read_all(record.cgroups, settings)
    try:
        _set(record, settings)
    except BaseException:
        _restore(record, before, log)
        raise


def _are_its_own(record: Record, resources: Resources) -> bool:
    """Tell whether the rules for devices are those of the container's configuration: containerd repeats them all."""
    from inclavare.oci import jsontext, spec  # noqa: PLC0415  # `rune update` by options has read none

    own = spec.parse(jsontext.loads(record.read(CONFIG))).linux.resources
    return list(map(_as_tuple, own.devices)) == list(map(_as_tuple, resources.devices))


def _as_tuple(rule: DeviceRule) -> tuple[object, ...]:
    return rule.allow, rule.type, rule.major, rule.minor, rule.access


def _set(record: Record, settings: list[Setting]) -> None:
    if record.systemd_unit:
        from inclavare.linux import systemd_cgroup  # noqa: PLC0415  # only for systemd's driver

        systemd_cgroup.apply(record.systemd_unit, record.cgroups, settings)
    cgroups.apply(record.cgroups, settings)


def _restore(record: Record, before: list[Setting], log: Log) -> None:
    for setting in reversed(before):
        try:
            _set(record, [setting])
        except HostError as error:
            log.warning(f"cannot set back {setting[1]}: {error.message}")


def _in_order(paths: dict[str, str], settings: list[Setting]) -> list[Setting]:
    """Set the limit of memory and swap first where memory's would be above it: it must never be the smaller one."""
    files = {setting[1]: setting for setting in settings}
    limit, swap = (files.get(name) for name in MEMORY_FILES)
    if limit is None or swap is None:
        return settings
    present = _read(paths, *swap[:2])
    if int(limit[2]) < 0 or (present.isdecimal() and int(limit[2]) > int(present)):
        rest = [setting for setting in settings if setting not in (limit, swap)]
        return [swap, limit, *rest]
    return settings


def _read_all(paths: dict[str, str], settings: list[Setting]) -> list[Setting]:
    """Give what the settings will replace; a limit that cannot be read is not set back."""
    before = []
    for controller, file, value in settings:
        path = cgroups.path_of(paths, controller)
        if path is None or file in WRITE_ONLY:
            continue
        name = cgroups.choose_file(path, file, value)[0] if "|" in file else file
        present = _read(paths, controller, name)
        if present and "\n" not in present:
            before.append((controller, name, present))
    return before


def _read(paths: dict[str, str], controller: str, file: str) -> str:
    try:
        return read_file(f"{cgroups.path_of(paths, controller)}/{file}").decode().strip()
    except OSError:
        return ""


def _check_usage(paths: dict[str, str], limit: int) -> None:
    usage = _read(paths, "memory", "memory.current" if cgroups.UNIFIED in paths else "memory.usage_in_bytes")
    if usage.isdecimal() and 0 < limit < int(usage):
        raise SpecError("memory.limit", f"{limit} is less than the container uses now: {usage}")
