"""linux.memoryPolicy: from which nodes a container's memory comes (config-linux.md "Memory policy").

The rules are those of set_mempolicy(2).
"""

from __future__ import annotations

from inclavare.oci import number_list
from inclavare.oci.reader import Members

# linux/mempolicy.h
MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
NODE_MAX = (1 << 10) - 1  # the kernel's largest NODES_SHIFT

_WITHOUT_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL")
_BALANCED = ("MPOL_BIND", "MPOL_PREFERRED_MANY")


class MemoryPolicy:
    """A mode out of MODES; `flags` are MPOL_F_*, `nodes` has a bit for each node."""

    __slots__ = ("flags", "mode", "nodes")

    def __init__(self, members: Members) -> None:
        self.mode: str = members.need_choice("mode", tuple(MODES))
        self.nodes: int = number_list.parse(members, "nodes", NODE_MAX)
        flags = members.choices("flags", tuple(FLAGS))
        self.flags: int = 0
        for flag in flags:
            self.flags |= FLAGS[flag]
        if self.mode in _WITHOUT_NODES:
            if self.nodes:
                raise members.error("nodes", f"{self.mode} takes no nodes")
            if flags:
                raise members.error("flags", f"{self.mode} takes no flags")
        elif not self.nodes and (flags or self.mode != "MPOL_PREFERRED"):
            with_flags = f" with {', '.join(flags)}" if flags else ""
            raise members.error("nodes", f'{self.mode}{with_flags} needs nodes, such as "0-3,7"')
        if "MPOL_F_STATIC_NODES" in flags and "MPOL_F_RELATIVE_NODES" in flags:
            raise members.error("flags", "nodes are either MPOL_F_STATIC_NODES or MPOL_F_RELATIVE_NODES, not both")
        if "MPOL_F_NUMA_BALANCING" in flags and self.mode not in _BALANCED:
            raise members.error("flags", f"MPOL_F_NUMA_BALANCING is only for {' and '.join(_BALANCED)}")
        members.end()
