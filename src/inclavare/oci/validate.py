"""Rules that need a look at several members of a configuration.

They are the ones that runc enforces when a container is created, before anything is made. Hot path.
"""

from __future__ import annotations

from inclavare.errors import SpecError
from inclavare.oci.linux import IDMapping
from inclavare.oci.reader import show
from inclavare.oci.seccomp import Seccomp
from inclavare.oci.spec import Spec
from inclavare.oci.support import refuse_unsupported
from inclavare.oci.sysctl import check_sysctls

NOTIFY = "SCMP_ACT_NOTIFY"


def validate(spec: Spec, *, host_network: bool = False) -> None:
    """Raise SpecError for the first rule that `spec` breaks, or the first thing it asks for that is not supported.

    `host_network` tells that the network namespace which the container joins by its path is the host's: the caller can
    see that, this module cannot.
    """
    refuse_unsupported(spec)
    _check_uts(spec)
    _check_user_namespace(spec)
    _check_time_namespace(spec)
    _check_seccomp(spec.linux.seccomp)
    check_sysctls(spec, host_network=host_network)
    _check_cgroup(spec)


def _check_uts(spec: Spec) -> None:
    if spec.linux.namespace("uts") is not None:
        return
    for name, value in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if value is not None:
            raise SpecError(name, f"unable to set {name} without a private UTS namespace", 'add {"type": "uts"}')


def _check_user_namespace(spec: Spec) -> None:
    linux = spec.linux
    namespace = linux.namespace("user")
    user = spec.process.user
    for name, member, mappings, ids in (
        ("uid", "linux.uidMappings", linux.uid_mappings, [("uid", user.uid)]),
        (
            "gid",
            "linux.gidMappings",
            linux.gid_mappings,
            [
                ("gid", user.gid),
                *((f"additionalGids[{index}]", gid) for index, gid in enumerate(user.additional_gids)),
            ],
        ),
    ):
        if namespace is None:
            if mappings:
                raise SpecError(
                    member, "user namespace mappings specified, but there is no user namespace in linux.namespaces"
                )
            continue
        if namespace.path is not None and not mappings:
            continue  # the namespace that is joined has its own
        if not mappings:
            raise SpecError(member, f"user namespaces enabled, but no {name} mappings found")
        for place, number in [("", 0), *ids]:
            if not _is_mapped(number, mappings):
                where = f"process.user.{place}" if place else member
                raise SpecError(where, f"{name} {number} has no mapping in the user namespace")


def _check_time_namespace(spec: Spec) -> None:
    if not spec.linux.time_offsets:
        return
    namespace = spec.linux.namespace("time")
    if namespace is None:
        raise SpecError(
            "linux.timeOffsets", "unable to set the clocks without a private time namespace", 'add {"type": "time"}'
        )
    if namespace.path is not None:
        raise SpecError(
            "linux.timeOffsets", f"the time namespace {show(namespace.path)} that is joined has its own offsets"
        )


def _is_mapped(number: int, mappings: list[IDMapping]) -> bool:
    return any(mapping.container_id <= number < mapping.container_id + mapping.size for mapping in mappings)


def _check_seccomp(profile: Seccomp | None) -> None:
    if profile is None:
        return
    where = "linux.seccomp"
    _check_errno(f"{where}.defaultErrnoRet", profile.default_action, profile.default_errno_ret)
    if profile.default_action == NOTIFY:
        raise SpecError(f"{where}.defaultAction", f"{NOTIFY} cannot be used as default action")
    if profile.listener_metadata and not profile.listener_path:
        raise SpecError(f"{where}.listenerMetadata", "cannot be used without listenerPath")
    for index, rule in enumerate(profile.syscalls):
        place = f"{where}.syscalls[{index}]"
        _check_errno(f"{place}.errnoRet", rule.action, rule.errno_ret)
        if rule.action == NOTIFY and not profile.listener_path:
            raise SpecError(f"{place}.action", f"{NOTIFY} needs linux.seccomp.listenerPath, the socket of an agent")
        if rule.action == NOTIFY and "write" in rule.names:
            # With it a process says that it has a listener: nobody could answer yet.
            raise SpecError(f"{place}.names", f"{NOTIFY} cannot be used for the write syscall")


def _check_errno(path: str, action: str, errno_ret: int | None) -> None:
    if errno_ret and action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        raise SpecError(path, f"{action} has no errno", "Only SCMP_ACT_ERRNO and SCMP_ACT_TRACE have.")


def _check_cgroup(spec: Spec) -> None:
    path = spec.linux.cgroups_path
    if path is not None and ".." in path.split("/"):
        raise SpecError("linux.cgroupsPath", f"{show(path)} must not contain ..")
    memory = spec.linux.resources.memory
    if memory.limit is not None and memory.swap is not None and 0 < memory.swap < memory.limit:
        raise SpecError(
            "linux.resources.memory.swap",
            f"memory and swap together ({memory.swap}) cannot be less than the memory limit ({memory.limit})",
        )
    cpu = spec.linux.resources.cpu
    if cpu.burst is not None and cpu.quota is not None and 0 < cpu.quota < cpu.burst:
        raise SpecError(
            "linux.resources.cpu.burst", f"{cpu.burst} must not be larger than the quota of {cpu.quota} microseconds"
        )
