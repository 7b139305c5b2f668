from __future__ import annotations

from typing import Any

import pytest

from inclavare.errors import SpecError
from inclavare.oci.process import CAPABILITIES, RLIMITS
from inclavare.oci.reader import UINT64_MAX, Members
from inclavare.oci.spec import Mount, Spec, parse, parse_process, parse_resources
from inclavare.oci.validate import validate
from tests.unit.oci.conftest import Document, Edited, put, read_config

RARE = {
    "block_io": {
        "weight": 500,
        "leaf_weight": 300,
        "weights": [{"major": 8, "minor": 0, "value": 100, "leaf_weight": None}],
        "read_bps": [{"major": 8, "minor": 0, "value": 1048576, "leaf_weight": None}],
        "write_bps": [],
        "read_iops": [],
        "write_iops": [],
    },
    "hugepages": [("2MB", 4194304)],
    "network": {"class_id": 1048577, "priorities": [("eth0", 5)]},
    "rdma": [("mlx5_0", 2, None)],
}


def plain(value: Any) -> Any:
    """Return a value as Python's own types: what an object of ours holds, by attribute."""
    if hasattr(value, "__slots__") and not isinstance(value, str):
        return {name: plain(getattr(value, name)) for name in value.__slots__ if name not in ("unknown", "warnings")}
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_everything_is_read(everything: Document) -> None:
    spec = parse(everything)
    assert (spec.oci_version, spec.hostname, spec.domainname) == ("1.3.0", "weather", "station.test")
    assert plain(spec.root) == {"path": "rootfs", "readonly": True}
    assert spec.annotations == {"org.example.owner": "me", "org.example.empty": ""}
    assert not any(spec.foreign.values())
    assert spec.unknown == []


def test_the_process_is_read(everything: Document) -> None:
    process = parse(everything).process
    raw = everything["process"]
    assert plain(process.user) == {
        "uid": 1000,
        "gid": 1001,
        "umask": 0o22,
        "additional_gids": [20, 44],
        "keeps_groups": False,
    }
    assert plain(process.console_size) == {"height": 40, "width": 132}
    assert process.args == ["/bin/server", "--listen", ""]
    assert process.env == raw["env"]
    assert process.cwd == "/srv"
    assert plain(process.capabilities) == raw["capabilities"]
    assert plain(process.rlimits) == [
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": UINT64_MAX},
    ]
    assert (process.terminal, process.no_new_privileges, process.oom_score_adj) == (True, True, -500)
    assert (process.apparmor_profile, process.selinux_label) == (raw["apparmorProfile"], raw["selinuxLabel"])
    assert process.scheduler is not None
    assert (process.scheduler.policy, process.scheduler.priority, process.scheduler.flags) == ("SCHED_FIFO", 10, 1)
    assert plain(process.io_priority) == {"io_class": "IOPRIO_CLASS_BE", "priority": 3}
    assert plain(process.exec_cpu_affinity) == {"initial": 1, "final": 3}


def test_mounts_are_read(everything: Document) -> None:
    ids = [{"container_id": 0, "host_id": 100000, "size": 65536}]
    assert plain(parse(everything).mounts) == [
        {
            "destination": "/proc",
            "type": "proc",
            "source": "proc",
            "options": [],
            "uid_mappings": [],
            "gid_mappings": [],
        },
        {
            "destination": "/data",
            "type": "none",
            "source": "data",
            "options": ["rbind", "ro"],
            "uid_mappings": ids,
            "gid_mappings": ids,
        },
    ]


@pytest.mark.parametrize(
    ("attribute", "path"),
    [
        ("prestart", "/usr/libexec/first"),
        ("create_runtime", "/usr/libexec/runtime"),
        ("create_container", "/usr/libexec/container"),
        ("start_container", "/bin/ldconfig"),
        ("poststart", "/usr/libexec/started"),
        ("poststop", "/usr/libexec/stopped"),
    ],
)
def test_hooks_are_read(everything: Document, attribute: str, path: str) -> None:
    assert plain(getattr(parse(everything).hooks, attribute)) == [
        {"path": path, "args": [path.rpartition("/")[2], "--verbose"], "env": ["LANG=C"], "timeout": 30},
        {"path": "/usr/libexec/quiet", "args": [], "env": [], "timeout": None},
    ]


def test_the_linux_object_is_read(everything: Document) -> None:
    linux = parse(everything).linux
    raw = everything["linux"]
    assert [(namespace.type, namespace.path) for namespace in linux.namespaces] == [
        ("pid", None),
        ("network", "/run/netns/blue"),
        ("mount", None),
        ("ipc", None),
        ("uts", None),
        ("user", None),
        ("cgroup", None),
        ("time", None),
    ]
    ids = [{"container_id": 0, "host_id": 100000, "size": 65536}]
    assert plain(linux.uid_mappings) == plain(linux.gid_mappings) == ids
    assert plain(linux.devices) == [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "file_mode": 0o666, "uid": 0, "gid": 1},
        {"path": "/run/pipe", "type": "p", "major": 0, "minor": 0, "file_mode": 0o644, "uid": None, "gid": None},
    ]
    assert (linux.cgroups_path, linux.rootfs_propagation) == ("/weather/station", "rslave")
    assert linux.sysctl == raw["sysctl"]
    assert (linux.masked_paths, linux.readonly_paths) == (["/proc/kcore"], ["/proc/sys"])
    assert linux.mount_label == raw["mountLabel"]
    assert linux.intel_rdt == raw["intelRdt"]
    assert plain(linux.memory_policy) == {"mode": "MPOL_BIND", "nodes": 1, "flags": 1 << 15}
    assert linux.net_devices == raw["netDevices"]
    assert linux.personality == "LINUX32"
    assert plain(linux.time_offsets) == [
        {"clock": "monotonic", "secs": 86400, "nanosecs": 5},
        {"clock": "boottime", "secs": -3600, "nanosecs": 0},
    ]


def test_limits_are_read(everything: Document) -> None:
    resources = parse(everything).linux.resources
    assert plain(resources.devices) == [
        {"allow": False, "type": "a", "major": None, "minor": None, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": True, "type": "b", "major": 8, "minor": None, "access": "r"},
    ]
    assert plain(resources.memory) == {
        "limit": 67108864,
        "reservation": 33554432,
        "swap": 134217728,
        "kernel": -1,
        "kernel_tcp": -1,
        "swappiness": 60,
        "disable_oom_killer": False,
        "use_hierarchy": True,
        "check_before_update": True,
    }
    assert plain(resources.cpu) == {
        "shares": 512,
        "quota": 50000,
        "burst": 1000,
        "period": 100000,
        "realtime_runtime": 95000,
        "realtime_period": 100000,
        "cpus": "0-3,7",
        "mems": "0",
        "idle": 0,
    }
    assert resources.pids.limit == 64
    assert resources.has_rare
    assert plain(resources.block_io) == RARE["block_io"]
    assert resources.hugepages == RARE["hugepages"]
    assert plain(resources.network) == RARE["network"]
    assert resources.rdma == RARE["rdma"]
    assert resources.unified == {"memory.high": "50331648"}


def test_the_seccomp_object_is_read(everything: Document) -> None:
    assert plain(parse(everything).linux.seccomp) == {
        "default_action": "SCMP_ACT_ERRNO",
        "default_errno_ret": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listener_path": "/run/seccomp.sock",
        "listener_metadata": "station",
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "errno_ret": None, "args": []},
            {
                "names": ["personality"],
                "action": "SCMP_ACT_ERRNO",
                "errno_ret": 1,
                "args": [{"index": 0, "value": 8, "value_two": 255, "op": "SCMP_CMP_MASKED_EQ"}],
            },
        ],
    }


def test_what_is_absent_is_none_or_empty(minimal: Document) -> None:
    spec = parse(minimal)
    assert plain(spec.process.user) == {"uid": 0, "gid": 0, "umask": None, "additional_gids": [], "keeps_groups": False}
    assert (spec.process.capabilities, spec.process.console_size, spec.process.oom_score_adj) == (None, None, None)
    assert (spec.process.terminal, spec.process.no_new_privileges, spec.root.readonly) == (False, False, False)
    assert (spec.hostname, spec.domainname, spec.mounts, spec.annotations) == (None, None, [], {})
    assert not any(plain(spec.hooks).values())
    assert spec.linux.seccomp is None
    assert not any(plain(spec.linux.resources.memory).values())
    assert not any(plain(spec.linux.resources.cpu).values())
    assert spec.linux.resources.pids.limit is None


@pytest.mark.parametrize(
    "name",
    [
        "containerd.json",
        "docker.json",
        "docker-privileged.json",
        "docker-tty.json",
        "minimal.json",
        "podman.json",
    ],
)
def test_what_engines_write_is_accepted_without_a_word(name: str) -> None:
    spec = parse(read_config(name))
    validate(spec)
    assert (spec.unknown, spec.warnings) == ([], [])


def test_docker_s_wildcard_minor_means_all() -> None:
    rules = parse(read_config("docker-tty.json")).linux.resources.devices
    assert [(rule.type, rule.major, rule.minor) for rule in rules if rule.major == 10 and rule.minor is None] == [
        ("c", 10, None)
    ]


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.1.0-rc.1+build-7", "1.99.0", "1.2.0+2.0"])
def test_all_versions_1_are_accepted(edited_minimal: Edited, version: str) -> None:
    assert parse(edited_minimal("ociVersion", version)).oci_version == version


def test_a_relative_destination_is_taken_from_the_root_with_a_warning(edited_minimal: Edited) -> None:
    spec = parse(edited_minimal("mounts", [{"destination": "var/data"}]))
    assert spec.mounts[0].destination == "/var/data"
    assert spec.warnings == ['mounts[0].destination: "var/data" is relative, which is deprecated; taken from /']


def test_unknown_capabilities_are_left_out_with_a_warning(edited_minimal: Edited) -> None:
    spec = parse(edited_minimal("process.capabilities", {"bounding": ["CAP_KILL", "CAP_FLY", "kill"]}))
    assert spec.process.capabilities is not None
    assert spec.process.capabilities.bounding == ["CAP_KILL"]
    assert spec.warnings == [
        'process.capabilities.bounding[1]: unknown capability "CAP_FLY" is left out',
        'process.capabilities.bounding[2]: unknown capability "kill" is left out',
    ]


def test_kernel_memory_limits_are_ignored_with_a_warning(everything: Document) -> None:
    assert [warning.partition(":")[0] for warning in parse(everything).warnings] == [
        "linux.resources.memory.kernel",
        "linux.resources.memory.kernelTCP",
    ]


def test_the_console_size_is_ignored_without_a_terminal(edited_everything: Edited) -> None:
    assert parse(edited_everything("process.terminal", False)).process.console_size is None


def test_a_swappiness_of_minus_one_is_not_set(edited_minimal: Edited) -> None:
    assert (
        parse(edited_minimal("linux.resources.memory.swappiness", UINT64_MAX)).linux.resources.memory.swappiness is None
    )


def test_an_empty_seccomp_object_is_no_filter(edited_minimal: Edited) -> None:
    assert parse(edited_minimal("linux.seccomp", {})).linux.seccomp is None


def test_a_process_alone_is_read(everything: Document) -> None:
    process = parse_process(everything["process"] | {"colour": "red"})
    assert (process.args[0], process.unknown) == ("/bin/server", ["colour"])


def test_limits_alone_are_read() -> None:
    resources = parse_resources({"memory": {"limit": 5, "kernel": 6}, "colour": "red"})
    assert (resources.memory.limit, resources.unknown) == (5, ["colour"])
    assert resources.warnings == ["memory.kernel: is ignored, since kernels no longer limit kernel memory on its own"]


def test_a_value_can_be_made_in_code() -> None:
    mount = Mount(Members({"destination": "/run/aesmd", "type": "bind", "options": ["rbind"]}))
    assert (mount.destination, mount.source, mount.options) == ("/run/aesmd", None, ["rbind"])


def objects(value: Any, path: str = "") -> list[str]:
    """Return the paths of all objects below `value` whose members the specification names."""
    found: list[str] = []
    if isinstance(value, dict):
        found.append(path)
        for name, item in value.items():
            found += objects(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += objects(item, f"{path}[{index}]")
    return found


FREE = ("annotations", "linux.sysctl", "linux.resources.unified")
RAW = (
    "process.scheduler",
    "process.ioPriority",
    "process.execCPUAffinity",
    "linux.intelRdt",
    "linux.memoryPolicy",
    "linux.netDevices",
    "linux.personality",
    "linux.timeOffsets",
    "linux.resources.blockIO",
    "linux.resources.network",
    "linux.resources.rdma",
    "linux.resources.hugepageLimits",
)


@pytest.mark.parametrize(
    "path", [path for path in objects(read_config("everything.json")) if not path.startswith(FREE + RAW)]
)
def test_an_unknown_member_is_ignored_and_reported(path: str) -> None:
    added = f"{path}.colour" if path else "colour"
    spec: Spec = parse(put(read_config("everything.json"), added, {"deep": [1]}))
    assert spec.unknown == [added]


def test_tables_are_in_the_kernel_s_order() -> None:
    with open("/usr/include/linux/capability.h", encoding="utf-8") as file:
        words = [line.split() for line in file if line.startswith("#define CAP_")]
    numbers = {name: int(number) for _, name, number, *_ in words if number.isdigit()}
    numbers.pop("CAP_LAST_CAP", None)
    assert {name: number for number, name in enumerate(CAPABILITIES)} == numbers
    import resource  # noqa: PLC0415

    known = {name: getattr(resource, name) for name in RLIMITS if hasattr(resource, name)}
    assert len(known) > 10
    assert all(RLIMITS[number] == name for name, number in known.items())


def mount_with(minimal: Document, *options: str, **more: object) -> Document:
    mount = {"destination": "/v", "type": "bind", "source": "/tmp", "options": ["bind", *options], **more}
    return minimal | {"mounts": [mount]}


def test_an_option_of_a_mount_maps_ids(minimal: Document) -> None:
    (mount,) = parse(mount_with(minimal, "ridmap=gids=0-7-1;uids=0-1-2#9-8-1")).mounts
    assert mount.options == ["bind", "ridmap"]
    assert [plain(entry) for entry in mount.uid_mappings] == [
        {"container_id": 0, "host_id": 1, "size": 2},
        {"container_id": 9, "host_id": 8, "size": 1},
    ]
    assert [plain(entry) for entry in mount.gid_mappings] == [{"container_id": 0, "host_id": 7, "size": 1}]


@pytest.mark.parametrize(
    ("option", "more", "complaint"),
    [
        ("idmap=", {}, "is not uids=RANGES"),
        ("idmap=uids=0-1-1;uids=0-1-1", {}, "is not uids=RANGES"),
        ("idmap=pids=0-1-1", {}, "is not uids=RANGES"),
        ("idmap=uids=@0-1-1", {}, '"@0-1-1" in idmap is not a range of ids'),
        ("idmap=uids=0-1", {}, '"0-1" in idmap is not a range of ids'),
        ("idmap=uids=0-1-0", {}, "mounts[0].options[1].size"),
        ("ridmap=uids=0-4294967294-9", {}, "mounts[0].options[1].size"),
        ("idmap=uids=0-1-1", {"gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}, "exclude each other"),
    ],
)
def test_a_mapping_in_an_option_that_is_none_is_refused(
    minimal: Document, option: str, more: dict[str, object], complaint: str
) -> None:
    with pytest.raises(SpecError) as caught:
        parse(mount_with(minimal, option, **more))
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("mounts[0].options[1]")
