"""Makes src/inclavare/linux/syscalls.py from the kernel headers of this machine (asm/unistd_*.h).

Run it on a machine with newer headers to bring the table up to date; numbers it already has are kept.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HEADERS = Path("/usr/include/x86_64-linux-gnu/asm")
TARGET = Path(__file__).parents[1] / "src/inclavare/linux/syscalls.py"
X32_BIT = 0x4000_0000
# Since Linux 6.1, the same numbers on every architecture.
NEWER = {
    "cachestat": 451,
    "fchmodat2": 452,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "statmount": 457,
    "listmount": 458,
    "lsm_get_self_attr": 459,
    "lsm_set_self_attr": 460,
    "lsm_list_modules": 461,
    "mseal": 462,
    "setxattrat": 463,
    "getxattrat": 464,
    "listxattrat": 465,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_getattr": 468,
    "file_setattr": 469,
}
# Of x86-64 alone, also not of x32 (arch/x86/entry/syscalls/syscall_64.tbl); map_shadow_stack is i386's as well.
NEWER_64 = {"uretprobe": 335, "uprobe": 336}
NOT_X32 = {"map_shadow_stack"}
BEGIN, END = 'TABLE = """\\\n', '"""\n'


def read_header(name: str) -> dict[str, int]:
    """Read the `#define __NR_name number` lines of a header."""
    found = dict(NEWER)
    for line in (HEADERS / name).read_text().splitlines():
        match = re.match(r"#define __NR_(\w+) (?:\(__X32_SYSCALL_BIT \+ (\d+)\)|(\d+))", line)
        if match:
            found[match[1]] = int(match[2] or match[3])
    return found


def main() -> None:
    """Write the table into the module, between its quotes."""
    tables = [read_header(f"unistd_{abi}.h") for abi in ("64", "32", "x32")]
    tables[0] |= NEWER_64
    for name in NOT_X32:
        tables[2].pop(name, None)
    names = sorted(set().union(*tables), key=lambda name: (tables[0].get(name, 1 << 20), name))
    lines, line = [], ""
    for name in names:
        entry = " ".join([name, *(str(table.get(name, "-")) for table in tables)]) + ","
        if len(line) + len(entry) > 118:
            lines.append(line)
            line = ""
        line += entry
    lines.append(line)
    before, rest = TARGET.read_text().split(BEGIN)
    after = rest.split(END, 1)[1]
    TARGET.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after)


if __name__ == "__main__":
    sys.exit(main())
