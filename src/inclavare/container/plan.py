"""The plan: what a container is made of, as a flat list of system calls.

A planner adds ops; `encode` writes the blob that native/executor/walk.c walks (layout: native/include/plan.h);
`describe` prints it for people. An argument of an op is an int (immediate), `Data` (the address of bytes in the plan)
or a `Slot` (the result of an earlier op).

Every op carries words, a verb phrase such as "mount proc on /proc": "cannot " + words is the message of its failure.

This module knows no container and no kernel: only the form of a plan. Hot path.
"""

from __future__ import annotations

from struct import Struct

from inclavare.errors import HostError

MAGIC = 0x4E4C5052
VERSION = 1
SLOTS = 4096
NO_SLOT = 0xFFFF

CALL_BASE = 0x1000
CALL_CLONE = 0x1000
CALL_SEND_PID = 0x1001
CALL_SYNC = 0x1002
CALL_EXIT = 0x1003
CALL_MKDIRS = 0x1004
CALL_MKFILE = 0x1005
CALL_MASK = 0x1006
CALL_READ_ONLY = 0x1007
CALL_WRITE_FILE = 0x1008
CALL_BOUNDING_SET = 0x1009
CALL_CHECK_CWD = 0x100A
CALL_HOME = 0x100B
CALL_LOOK_UP = 0x100C
CALL_CONSOLE = 0x100D
CALL_WAIT_FIFO = 0x100E
CALL_STORE = 0x100F
CALL_END_SYNC = 0x1010
CALL_EXEC = 0x1011
CALL_RUNELET = 0x1012
CALL_AGENT_EXEC = 0x1013
CALL_CHECK_FS = 0x1014
CALL_DEVICE = 0x1015
CALL_TMPFS = 0x1016
CALL_PAL_LOAD = 0x1017
CALL_PAL_INIT = 0x1018
CALL_PAL_RUN = 0x1019

CALL_NAMES = (
    "clone",
    "send_pid",
    "sync",
    "exit",
    "mkdirs",
    "mkfile",
    "mask",
    "read_only",
    "write_file",
    "bounding_set",
    "check_cwd",
    "home",
    "look_up",
    "console",
    "wait_fifo",
    "store",
    "end_sync",
    "exec",
    "runelet",
    "agent_exec",
    "check_fs",
    "device",
    "tmpfs",
    "pal_load",
    "pal_init",
    "pal_run",
)

OUTSIDE_PROC = 0x10000
TMPFS_MODE = 1
TMPFS_COPY = 2
CONSOLE_BIND = 1
PAL_WAIT_STATUS = 1

MSG_PID = 1
MSG_SYNC = 2
MSG_ERROR = 3
MSG_LOG = 4
MSG_LISTENER = 5
MSG_MAX = 4096

HEADER = Struct("<8I")
OP = Struct("<I6BHB2Bx6Q")
MSG = Struct("<IIiI")


class Data(int):
    """Offset of bytes in the plan's data; becomes their address."""

    __slots__ = ()


class Slot(int):
    """Index of a variable that holds the result of an earlier op."""

    __slots__ = ()


SYNC_SLOT = Slot(0)


class Op:
    """One step. `sentences` maps an errno to a whole message where "cannot ..." would say less."""

    __slots__ = ("args", "call", "out", "sentences", "skip", "tolerate", "words")

    def __init__(
        self,
        call: int,
        args: tuple[int, ...],
        words: str,
        *,
        out: int = NO_SLOT,
        tolerate: tuple[int, ...] = (),
        skip: int = 0,
        sentences: dict[int, str] | None = None,
    ) -> None:
        self.call = call
        self.args = args
        self.words = words
        self.out = out
        self.tolerate = tolerate
        self.skip = skip
        self.sentences = sentences


class Plan:
    """A growing list of ops and the data they point to."""

    __slots__ = ("_data", "_relocs", "_slots", "_strings", "ops")

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._data = bytearray()
        self._relocs: list[int] = []
        self._strings: dict[bytes, Data] = {}
        self._slots = 1

    def add(
        self,
        call: int,
        *args: int,
        words: str,
        tolerate: tuple[int, ...] = (),
        skip: int = 0,
        sentences: dict[int, str] | None = None,
    ) -> Op:
        """Append an op whose result nobody needs. At most two errno values can be tolerated."""
        op = Op(call, args, words, tolerate=tolerate, skip=skip, sentences=sentences)
        self.ops.append(op)
        return op

    def take(self, call: int, *args: int, words: str, tolerate: tuple[int, ...] = ()) -> Slot:
        """Append an op and keep its result in a new slot."""
        slot = Slot(self._slots)
        if slot >= SLOTS:
            raise HostError(f"a plan has at most {SLOTS} variables", "The container has too many mounts.")
        self._slots += 1
        self.ops.append(Op(call, args, words, out=slot, tolerate=tolerate))
        return slot

    def data(self, content: bytes, align: int = 8) -> Data:
        """Place bytes in the plan."""
        data = self._data
        data.extend(bytes(-len(data) % align))
        offset = Data(len(data))
        data += content
        return offset

    def string(self, text: str) -> Data:
        """Place a NUL-terminated string, once. Lone surrogates stand for bytes that are not UTF-8 (PEP 383)."""
        raw = text.encode("utf-8", "surrogateescape")
        found = self._strings.get(raw)
        if found is None:
            found = self._strings[raw] = self.data(raw + b"\0", 1)
        return found

    def words64(self, values: list[int]) -> Data:
        """Place 64-bit words; a word given as Data becomes an address."""
        offset = self.data(b"".join([value.to_bytes(8, "little") for value in values]))
        self._relocs += [offset + 8 * i for i, value in enumerate(values) if type(value) is Data]
        return offset

    def strings(self, texts: list[str], spare: int = 0) -> Data:
        """Place a NULL-terminated array of strings (argv, envp), with room for `spare` more before its end."""
        return self.words64([*[self.string(text) for text in texts], *[0] * (spare + 1)])

    def encode(self, sync_fd: int) -> bytes:
        """Write the blob. `sync_fd` is the number of the sync socket in the executor."""
        pack = OP.pack
        ops = []
        for op in self.ops:
            args = op.args
            count = len(args)
            kinds = [1 if type(arg) is Data else 2 if type(arg) is Slot else 0 for arg in args] + [0] * (6 - count)
            values = [arg & 0xFFFF_FFFF_FFFF_FFFF for arg in args] + [0] * (6 - count)
            tolerate = (*op.tolerate, 0, 0)[:2]
            ops.append(pack(op.call, *kinds, op.out, op.skip, *tolerate, *values))
        # The relocation table is padded so that the data behind it is aligned.
        relocs = self._relocs if len(self._relocs) % 2 == 0 else [*self._relocs, self._null_word()]
        data = bytes(self._data)
        body = b"".join(ops) + b"".join([reloc.to_bytes(4, "little") for reloc in relocs]) + data
        header = HEADER.pack(MAGIC, VERSION, HEADER.size + len(body), len(ops), len(relocs), len(data), sync_fd, 0)
        return header + body

    def _null_word(self) -> int:
        return int(self.data(bytes(8)))


def call_name(call: int) -> str:
    """Name of an op's call: `mount(2)` for a system call, `mkdirs` for a call of the plan."""
    if call >= CALL_BASE:
        return CALL_NAMES[call - CALL_BASE]
    from inclavare.linux.syscalls import name_of  # noqa: PLC0415  # only messages need the table

    return f"{name_of(call)}(2)"


def describe(plan: Plan) -> str:
    """Render the plan for people: one line a step, as `--dry-run` prints it."""
    width = max(len(call_name(op.call)) for op in plan.ops)
    return "".join(f"{step:4} {call_name(op.call):{width}}  {op.words}\n" for step, op in enumerate(plan.ops))
