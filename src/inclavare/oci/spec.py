"""config.json as typed values: the edge where a runtime-spec configuration enters the program.

`parse` takes the JSON value (see `jsontext`), checks every member that runtime-spec 1.3 knows for Linux and returns a
`Spec`. Each class is made from its JSON members and names its attributes as the specification does, in snake case. In
code, too: `Mount(Members({"destination": "/run", "type": "tmpfs"}))`. Lists that are absent are empty, other optional
values None. What needs a look at several members is checked in `validate`, what this release cannot do is refused in
`support`; the split of mount options is the planner's.

runtime-spec: config.md, config-linux.md. Hot path.
"""

from __future__ import annotations

from inclavare.oci.linux import IDMapping, Linux
from inclavare.oci.process import Process
from inclavare.oci.reader import INT32_MAX, Members, show
from inclavare.oci.resources import Resources

KEEP_GROUPS = "run.oci.keep_original_groups"  # crun's; podman run --group-add keep-groups
FOREIGN_PLATFORMS = ("freebsd", "solaris", "vm", "windows", "zos")


class Root:
    """The root filesystem; `path` is absolute or relative to the bundle."""

    __slots__ = ("path", "readonly")

    def __init__(self, members: Members) -> None:
        self.path: str = members.need_text("path")
        self.readonly: bool = members.flag("readonly")
        members.end()


class Mount:
    """A mount, in the container at `destination` (always absolute)."""

    __slots__ = ("destination", "gid_mappings", "options", "source", "type", "uid_mappings")

    def __init__(self, members: Members) -> None:
        self.destination: str = members.need_text("destination")
        if not self.destination.startswith("/"):
            members.warn("destination", f"{show(self.destination)} is relative, which is deprecated; taken from /")
            self.destination = "/" + self.destination
        self.type: str | None = members.text("type")
        self.source: str | None = members.text("source")
        self.options: list[str] = members.texts("options")
        self.uid_mappings: list[IDMapping] = [IDMapping(child) for child in members.children("uidMappings")]
        self.gid_mappings: list[IDMapping] = [IDMapping(child) for child in members.children("gidMappings")]
        for index, option in enumerate(self.options):
            if option.startswith(("idmap=", "ridmap=")):
                from inclavare.oci import idmap_option  # noqa: PLC0415  # few mounts are

                if self.uid_mappings or self.gid_mappings:
                    raise members.error(
                        "options", f"{show(option)} and mappings of the mount exclude each other", index
                    )
                self.uid_mappings, self.gid_mappings = idmap_option.take(members, self.options, index)
        members.end()


class Hook:
    """A program to run at a point of the container's life; `timeout` in seconds, None waits for ever."""

    __slots__ = ("args", "env", "path", "timeout")

    def __init__(self, members: Members) -> None:
        self.path: str = members.need_absolute_path("path")
        self.args: list[str] = members.texts("args")
        self.env: list[str] = members.texts("env")
        self.timeout: int | None = members.number("timeout", 1, INT32_MAX)
        members.end()


class Hooks:
    """All hooks, in the order they are to be called."""

    __slots__ = ("create_container", "create_runtime", "poststart", "poststop", "prestart", "start_container")

    def __init__(self, members: Members) -> None:
        self.prestart: list[Hook] = [Hook(child) for child in members.children("prestart")]
        self.create_runtime: list[Hook] = [Hook(child) for child in members.children("createRuntime")]
        self.create_container: list[Hook] = [Hook(child) for child in members.children("createContainer")]
        self.start_container: list[Hook] = [Hook(child) for child in members.children("startContainer")]
        self.poststart: list[Hook] = [Hook(child) for child in members.children("poststart")]
        self.poststop: list[Hook] = [Hook(child) for child in members.children("poststop")]
        members.end()


class Spec:
    """A whole configuration.

    `foreign` holds the raw objects of other platforms by name. `unknown` lists the JSON paths of members that no
    runtime-spec for Linux knows, `warnings` sentences about what was understood but will not be done; both are for one
    log line each.
    """

    __slots__ = (
        "annotations",
        "domainname",
        "foreign",
        "hooks",
        "hostname",
        "linux",
        "mounts",
        "oci_version",
        "process",
        "root",
        "unknown",
        "warnings",
    )

    def __init__(self, members: Members) -> None:
        self.oci_version: str = _oci_version(members)
        self.process: Process = Process(members.need_child("process"))
        self.root: Root = Root(members.need_child("root"))
        self.hostname: str | None = members.text("hostname")
        self.domainname: str | None = members.text("domainname")
        self.mounts: list[Mount] = [Mount(child) for child in members.children("mounts")]
        self.hooks: Hooks = Hooks(members.child("hooks"))
        self.annotations: dict[str, str] = members.mapping("annotations")
        self.process.user.keeps_groups = self.annotations.get(KEEP_GROUPS, "0") != "0"
        self.linux: Linux = Linux(members.child("linux"))
        self.foreign: dict[str, dict[str, object] | None] = {
            name: members.raw_object(name) for name in FOREIGN_PLATFORMS
        }
        self.unknown: list[str] = members.unknown
        self.warnings: list[str] = members.warnings
        members.end()


def parse(document: object) -> Spec:
    """Return the configuration `document` (a JSON value) as a Spec.

    Raises SpecError with the JSON path of the first member that is malformed or missing.
    """
    return Spec(Members(document))


def parse_process(document: object) -> Process:
    """Return the process that `document` (a JSON value) describes, as `exec --process` takes it.

    Raises SpecError as `parse`, with paths from the process on: `user.uid`.
    """
    return Process(Members(document))


def parse_resources(document: object) -> Resources:
    """Return the cgroup limits that `document` (a JSON value) describes, as `update --resources` takes them.

    Raises SpecError as `parse`, with paths from the resources on: `memory.limit`.
    """
    return Resources(Members(document))


def _oci_version(members: Members) -> str:
    """Versions 1.x are compatible with each other (config.md "Specification version")."""
    version = members.need_text("ociVersion")
    numbers = version.partition("+")[0].partition("-")[0].split(".")
    if len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers):
        raise members.error("ociVersion", f'{show(version)} is not a version such as "1.0.2"')
    if numbers[0] != "1":
        raise members.error("ociVersion", f"{show(version)} is not supported, only versions 1.x are")
    return version
