from __future__ import annotations

from inclavare.container import label_plan
from inclavare.container.plan import Plan
from inclavare.linux import mountflags
from inclavare.oci.reader import Members
from inclavare.oci.spec import Mount

LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


def mounts(*wanted: tuple[str, list[str]]) -> tuple[list[Mount], list[mountflags.MountFlags]]:
    made = [Mount(Members({"destination": "/x", "type": kind, "options": options})) for kind, options in wanted]
    return made, [mountflags.parse(mount.options, bind=mount.type == "bind", path="mounts[0]") for mount in made]


def test_new_filesystems_have_the_label_in_quotes() -> None:
    made, flags = mounts(("tmpfs", ["nosuid", "size=1k"]), ("devpts", []))
    assert label_plan.label_mounts(made, flags, LABEL) == f',context="{LABEL}"'
    assert [of_mount.data for of_mount in flags] == [f'size=1k,context="{LABEL}"', f'context="{LABEL}"']


def test_what_has_labels_of_its_own_keeps_them() -> None:
    made, flags = mounts(("proc", []), ("sysfs", []), ("bind", ["rbind"]), ("cgroup", []), ("tmpfs", ["remount"]))
    label_plan.label_mounts(made, flags, LABEL)
    assert not any(of_mount.data for of_mount in flags)


def test_message_queues_are_labelled_behind_their_mount() -> None:
    plan = Plan()
    label_plan.label_queues(plan, mounts(("mqueue", []), ("tmpfs", []))[0], LABEL)
    assert [op.words for op in plan.ops] == [f"give /x the SELinux label {LABEL} (linux.mountLabel)"]
