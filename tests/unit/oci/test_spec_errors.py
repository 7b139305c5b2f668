"""Every member, malformed: the error names its path and says what was found."""

from __future__ import annotations

import pytest

from inclavare.errors import SpecError
from inclavare.oci.spec import parse, parse_process, parse_resources
from tests.unit.oci.conftest import Document, Edited

GONE = object()
ID = {"containerID": 0, "hostID": 0, "size": 1}
RULE = {"names": ["read"], "action": "SCMP_ACT_ALLOW"}

# (path to change, value, path that the error names, words of its message)
MALFORMED: list[tuple[str, object, str, str]] = [
    ("ociVersion", GONE, "ociVersion", "is required"),
    ("ociVersion", 1, "ociVersion", "must be a string, found 1"),
    ("ociVersion", "", "ociVersion", "is required"),
    ("ociVersion", "1.0", "ociVersion", '"1.0" is not a version such as'),
    ("ociVersion", "1.x.0", "ociVersion", "is not a version"),
    ("ociVersion", "1.\u0661.0", "ociVersion", "is not a version"),
    ("ociVersion", "0.1.0", "ociVersion", "only versions 1.x are"),
    ("ociVersion", "2.0.0", "ociVersion", "only versions 1.x are"),
    ("process", GONE, "process", "is required"),
    ("process", [], "process", "must be an object, found a list"),
    ("process.terminal", 1, "process.terminal", "must be true or false, found 1"),
    ("process.consoleSize", 5, "process.consoleSize", "must be an object"),
    ("process.consoleSize.height", GONE, "process.consoleSize.height", "is required"),
    ("process.consoleSize.width", 65536, "process.consoleSize.width", "65536 is not between 0 and 65535"),
    ("process.user", "root", "process.user", 'must be an object, found "root"'),
    ("process.user.uid", GONE, "process.user.uid", "is required"),
    ("process.user.uid", "0", "process.user.uid", 'must be an integer, found "0"'),
    ("process.user.uid", -1, "process.user.uid", "-1 is not between 0 and 4294967294"),
    ("process.user.uid", 2**32 - 1, "process.user.uid", "4294967295 is not between"),
    ("process.user.gid", GONE, "process.user.gid", "is required"),
    ("process.user.gid", 2**32 - 1, "process.user.gid", "4294967295 is not between"),
    ("process.user.gid", 10**30, "process.user.gid", "a number beyond 64 bits is not between"),
    ("process.user.umask", 0o1000, "process.user.umask", "512 is not between 0 and 511"),
    ("process.user.additionalGids", 5, "process.user.additionalGids", "must be a list, found 5"),
    ("process.user.additionalGids[1]", None, "process.user.additionalGids[1]", "must be an integer, found null"),
    ("process.user.additionalGids[1]", 2**32 - 1, "process.user.additionalGids[1]", "is not between"),
    ("process.args", GONE, "process.args", "args must not be empty"),
    ("process.args", [], "process.args", "args must not be empty"),
    ("process.args", "sh", "process.args", "must be a list"),
    ("process.args[1]", None, "process.args[1]", "must be a string, found null"),
    ("process.args[1]", "a\0b", "process.args[1]", '"a\\u0000b" contains a NUL'),
    ("process.args[1]", "\ud800", "process.args[1]", "half a surrogate pair"),
    ("process.env[0]", "PATH", "process.env[0]", 'invalid environment variable "PATH"'),
    ("process.env[0]", "=x", "process.env[0]", "must be NAME=VALUE"),
    ("process.env[0]", {}, "process.env[0]", "must be a string, found an object"),
    ("process.cwd", GONE, "process.cwd", "is required"),
    ("process.cwd", "", "process.cwd", "is required"),
    ("process.cwd", "srv", "process.cwd", 'must be an absolute path, found "srv"'),
    ("process.capabilities", [], "process.capabilities", "must be an object"),
    ("process.capabilities.bounding", "all", "process.capabilities.bounding", "must be a list"),
    ("process.capabilities.effective[0]", 5, "process.capabilities.effective[0]", "must be a string"),
    ("process.rlimits", {}, "process.rlimits", "must be a list, found an object"),
    ("process.rlimits[0]", 5, "process.rlimits[0]", "must be an object, found 5"),
    ("process.rlimits[0].type", "NOFILE", "process.rlimits[0].type", '"NOFILE" is not one of RLIMIT_CPU'),
    ("process.rlimits[0].type", GONE, "process.rlimits[0].type", "is required"),
    ("process.rlimits[0].type", "RLIMIT_NOFILE", "process.rlimits[1]", "RLIMIT_NOFILE is limited twice"),
    ("process.rlimits[0].soft", 1, "process.rlimits[0].soft", "1 is above the hard limit of 0"),
    ("process.rlimits[0].hard", GONE, "process.rlimits[0].hard", "is required"),
    ("process.rlimits[0].hard", 2**64, "process.rlimits[0].hard", "a number beyond 64 bits is not between"),
    ("process.noNewPrivileges", "yes", "process.noNewPrivileges", 'must be true or false, found "yes"'),
    ("process.oomScoreAdj", 1001, "process.oomScoreAdj", "1001 is not between -1000 and 1000"),
    ("process.oomScoreAdj", -1001, "process.oomScoreAdj", "-1001 is not between"),
    ("process.apparmorProfile", 1, "process.apparmorProfile", "must be a string"),
    ("process.selinuxLabel", 1, "process.selinuxLabel", "must be a string"),
    ("process.scheduler", 1, "process.scheduler", "must be an object"),
    ("process.ioPriority", 1, "process.ioPriority", "must be an object"),
    ("process.execCPUAffinity", 1, "process.execCPUAffinity", "must be an object"),
    ("root", GONE, "root", "is required"),
    ("root.path", GONE, "root.path", "is required"),
    ("root.path", "a\0", "root.path", "contains a NUL"),
    ("root.readonly", 1, "root.readonly", "must be true or false"),
    ("hostname", 1, "hostname", "must be a string"),
    ("domainname", [], "domainname", "must be a string"),
    ("mounts", {}, "mounts", "must be a list"),
    ("mounts[0]", "proc", "mounts[0]", 'must be an object, found "proc"'),
    ("mounts[0].destination", GONE, "mounts[0].destination", "is required"),
    ("mounts[0].type", 1, "mounts[0].type", "must be a string"),
    ("mounts[1].source", 1, "mounts[1].source", "must be a string"),
    ("mounts[1].options", "ro", "mounts[1].options", "must be a list"),
    ("mounts[1].options[1]", 1, "mounts[1].options[1]", "must be a string"),
    ("mounts[1].uidMappings[0].size", GONE, "mounts[1].uidMappings[0].size", "is required"),
    ("mounts[1].gidMappings", 1, "mounts[1].gidMappings", "must be a list"),
    ("hooks", [], "hooks", "must be an object"),
    ("hooks.prestart", {}, "hooks.prestart", "must be a list"),
    ("hooks.prestart[0].path", GONE, "hooks.prestart[0].path", "is required"),
    ("hooks.createRuntime[0].path", "bin/x", "hooks.createRuntime[0].path", "must be an absolute path"),
    ("hooks.createContainer[1]", 5, "hooks.createContainer[1]", "must be an object"),
    ("hooks.startContainer[0].args", "x", "hooks.startContainer[0].args", "must be a list"),
    ("hooks.poststart[0].env[0]", 5, "hooks.poststart[0].env[0]", "must be a string"),
    ("hooks.poststop[0].timeout", 0, "hooks.poststop[0].timeout", "0 is not between 1 and"),
    ("annotations", [], "annotations", "must be an object"),
    ("annotations.x", 5, "annotations.x", "must be a string, found 5"),
    ("linux", 5, "linux", "must be an object"),
    ("linux.namespaces", {}, "linux.namespaces", "must be a list"),
    ("linux.namespaces[0].type", GONE, "linux.namespaces[0].type", "is required"),
    ("linux.namespaces[0].type", "net", "linux.namespaces[0].type", '"net" is not one of pid, network'),
    ("linux.namespaces[0].type", "mount", "linux.namespaces[2]", 'duplicated namespace "mount"'),
    ("linux.namespaces[1].path", "netns", "linux.namespaces[1].path", "must be an absolute path"),
    ("linux.uidMappings[0].containerID", GONE, "linux.uidMappings[0].containerID", "is required"),
    ("linux.uidMappings[0].hostID", -1, "linux.uidMappings[0].hostID", "is not between"),
    ("linux.gidMappings[0].size", 0, "linux.gidMappings[0].size", "0 is not between 1 and"),
    ("linux.gidMappings[0].size", 2**32 - 1, "linux.gidMappings[0].size", "go beyond the last id 4294967294"),
    ("linux.gidMappings[0].hostID", 2**32 - 2, "linux.gidMappings[0].size", "go beyond the last id"),
    ("linux.devices[0].path", "dev/fuse", "linux.devices[0].path", "must be an absolute path"),
    ("linux.devices[0].type", "x", "linux.devices[0].type", '"x" is not one of c, b, u, p'),
    ("linux.devices[0].major", GONE, "linux.devices[0].major", "is required"),
    ("linux.devices[0].major", 4096, "linux.devices[0].major", "4096 is not between 0 and 4095"),
    ("linux.devices[0].minor", 2**20, "linux.devices[0].minor", "is not between"),
    ("linux.devices[0].minor", -1, "linux.devices[0].minor", "is not between"),
    ("linux.devices[0].fileMode", "0666", "linux.devices[0].fileMode", "must be an integer"),
    ("linux.devices[0].uid", 2**32 - 1, "linux.devices[0].uid", "is not between"),
    ("linux.devices[0].gid", 2**32 - 1, "linux.devices[0].gid", "is not between"),
    ("linux.cgroupsPath", [], "linux.cgroupsPath", "must be a string"),
    ("linux.rootfsPropagation", "rslav", "linux.rootfsPropagation", '"rslav" is not one of private'),
    ("linux.sysctl", [], "linux.sysctl", "must be an object"),
    ("linux.sysctl.x", 1, "linux.sysctl.x", "must be a string, found 1"),
    ("linux.maskedPaths", "x", "linux.maskedPaths", "must be a list"),
    ("linux.maskedPaths[0]", "proc", "linux.maskedPaths[0]", "must be an absolute path"),
    ("linux.readonlyPaths[0]", "", "linux.readonlyPaths[0]", "must be an absolute path"),
    ("linux.mountLabel", 1, "linux.mountLabel", "must be a string"),
    ("linux.intelRdt", "", "linux.intelRdt", "must be an object"),
    ("linux.memoryPolicy", [], "linux.memoryPolicy", "must be an object"),
    ("linux.netDevices", [], "linux.netDevices", "must be an object"),
    ("linux.personality", "LINUX", "linux.personality", "must be an object"),
    ("linux.timeOffsets", 5, "linux.timeOffsets", "must be an object"),
    ("linux.resources", [], "linux.resources", "must be an object"),
    ("linux.resources.memory", 5, "linux.resources.memory", "must be an object"),
    ("linux.resources.memory.limit", "64m", "linux.resources.memory.limit", "must be an integer"),
    ("linux.resources.memory.limit", -2, "linux.resources.memory.limit", "-2 is not between -1 and"),
    ("linux.resources.memory.reservation", 2**63, "linux.resources.memory.reservation", "is not between"),
    ("linux.resources.memory.swap", 1.5, "linux.resources.memory.swap", "must be an integer, found 1.5"),
    ("linux.resources.memory.kernel", -2, "linux.resources.memory.kernel", "is not between"),
    ("linux.resources.memory.kernelTCP", -2, "linux.resources.memory.kernelTCP", "is not between"),
    ("linux.resources.memory.swappiness", 101, "linux.resources.memory.swappiness", "101 is not between 0 and 100"),
    ("linux.resources.memory.disableOOMKiller", 0, "linux.resources.memory.disableOOMKiller", "must be true or false"),
    ("linux.resources.memory.useHierarchy", 0, "linux.resources.memory.useHierarchy", "must be true or false"),
    ("linux.resources.memory.checkBeforeUpdate", 0, "linux.resources.memory.checkBeforeUpdate", "must be true or"),
    ("linux.resources.cpu.shares", -1, "linux.resources.cpu.shares", "is not between"),
    ("linux.resources.cpu.quota", 2**63, "linux.resources.cpu.quota", "is not between"),
    ("linux.resources.cpu.burst", -1, "linux.resources.cpu.burst", "is not between"),
    ("linux.resources.cpu.period", -1, "linux.resources.cpu.period", "is not between"),
    ("linux.resources.cpu.realtimeRuntime", True, "linux.resources.cpu.realtimeRuntime", "must be an integer"),
    ("linux.resources.cpu.realtimePeriod", -1, "linux.resources.cpu.realtimePeriod", "is not between"),
    ("linux.resources.cpu.cpus", "all", "linux.resources.cpu.cpus", '"all" is not a list of numbers'),
    ("linux.resources.cpu.mems", "0;1", "linux.resources.cpu.mems", "is not a list of numbers"),
    ("linux.resources.cpu.idle", 2, "linux.resources.cpu.idle", "2 is not between 0 and 1"),
    ("linux.resources.pids.limit", -2, "linux.resources.pids.limit", "is not between"),
    ("linux.resources.devices[0].allow", GONE, "linux.resources.devices[0].allow", "is required"),
    ("linux.resources.devices[0].access", GONE, "linux.resources.devices[0].access", "is required"),
    ("linux.resources.devices[1].access", "rx", "linux.resources.devices[1].access", "is not made of r, w and m"),
    ("linux.resources.devices[1].type", "p", "linux.resources.devices[1].type", '"p" is not one of a, b, c'),
    ("linux.resources.devices[1].major", -2, "linux.resources.devices[1].major", "is not between -1 and"),
    ("linux.resources.devices[1].minor", "*", "linux.resources.devices[1].minor", "must be an integer"),
    ("linux.resources.blockIO", [], "linux.resources.blockIO", "must be an object"),
    ("linux.resources.network", [], "linux.resources.network", "must be an object"),
    ("linux.resources.rdma", [], "linux.resources.rdma", "must be an object"),
    ("linux.resources.hugepageLimits", {}, "linux.resources.hugepageLimits", "must be a list"),
    ("linux.resources.unified", [], "linux.resources.unified", "must be an object"),
    ("linux.resources.unified.x", 5, "linux.resources.unified.x", "must be a string"),
    ("linux.seccomp", [], "linux.seccomp", "must be an object"),
    ("linux.seccomp.defaultAction", GONE, "linux.seccomp.defaultAction", "is required, one of SCMP_ACT_KILL"),
    ("linux.seccomp.defaultAction", "ALLOW", "linux.seccomp.defaultAction", '"ALLOW" is not one of'),
    ("linux.seccomp.defaultErrnoRet", 65536, "linux.seccomp.defaultErrnoRet", "is not between 0 and 65535"),
    ("linux.seccomp.architectures[1]", "X86", "linux.seccomp.architectures[1]", '"X86" is not one of'),
    ("linux.seccomp.flags[0]", "LOG", "linux.seccomp.flags[0]", '"LOG" is not one of'),
    ("linux.seccomp.listenerPath", 1, "linux.seccomp.listenerPath", "must be a string"),
    ("linux.seccomp.listenerMetadata", 1, "linux.seccomp.listenerMetadata", "must be a string"),
    ("linux.seccomp.syscalls[0].names", [], "linux.seccomp.syscalls[0].names", "must not be empty"),
    ("linux.seccomp.syscalls[0].names[1]", "", "linux.seccomp.syscalls[0].names[1]", "must not be empty"),
    ("linux.seccomp.syscalls[0].action", GONE, "linux.seccomp.syscalls[0].action", "is required"),
    ("linux.seccomp.syscalls[1].errnoRet", -1, "linux.seccomp.syscalls[1].errnoRet", "is not between"),
    ("linux.seccomp.syscalls[1].args[0].index", 6, "linux.seccomp.syscalls[1].args[0].index", "between 0 and 5"),
    ("linux.seccomp.syscalls[1].args[0].value", GONE, "linux.seccomp.syscalls[1].args[0].value", "is required"),
    ("linux.seccomp.syscalls[1].args[0].valueTwo", 2**64, "linux.seccomp.syscalls[1].args[0].valueTwo", "is not betw"),
    ("linux.seccomp.syscalls[1].args[0].op", "EQ", "linux.seccomp.syscalls[1].args[0].op", '"EQ" is not one of'),
    ("windows", 5, "windows", "must be an object"),
]


@pytest.mark.parametrize(("changed", "value", "path", "words"), MALFORMED)
def test_a_malformed_member_is_named(
    edited_everything: Edited, changed: str, value: object, path: str, words: str
) -> None:
    document = edited_everything(changed) if value is GONE else edited_everything(changed, value)
    with pytest.raises(SpecError) as caught:
        parse(document)
    assert caught.value.path == path
    assert caught.value.message.startswith(f"{path}: ")
    assert words in caught.value.message


@pytest.mark.parametrize("document", [None, [], "spec", 5, True])
def test_a_configuration_is_an_object(document: object) -> None:
    with pytest.raises(SpecError, match=r"^must be an object, found "):
        parse(document)


def test_names_with_dots_are_quoted(everything: Document) -> None:
    everything["annotations"]["org.example.port"] = 80
    with pytest.raises(SpecError, match=r'^annotations\["org\.example\.port"\]: must be a string, found 80$'):
        parse(everything)


def test_names_the_kernel_cannot_take_are_refused(everything: Document) -> None:
    everything["linux"]["sysctl"] = {"net.x\0y": "1"}
    with pytest.raises(SpecError, match=r'^linux\.sysctl: "net.x\\u0000y" contains a NUL'):
        parse(everything)


def test_paths_of_a_process_alone_begin_at_the_process() -> None:
    with pytest.raises(SpecError) as caught:
        parse_process({"args": ["x"], "cwd": "/", "user": {"uid": 0}})
    assert caught.value.path == "user.gid"


def test_paths_of_limits_alone_begin_at_the_limits() -> None:
    with pytest.raises(SpecError) as caught:
        parse_resources({"devices": [{"access": "r"}]})
    assert caught.value.path == "devices[0].allow"
