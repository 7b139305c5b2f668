"""Every command and option of `rune`, in one table: parsing and help come from it.

Kinds of options: "flag" (may be given as --x, --x=true, --x=false), "value", "list" (may be repeated). As in Go's
command lines, one dash or two mean the same, and a value follows or is joined by "=". Hot path.
"""

from __future__ import annotations


class Option:
    """One option: `--name`, perhaps `-short`."""

    __slots__ = ("help", "kind", "metavar", "name", "short")

    def __init__(self, name: str, kind: str, text: str, short: str = "", metavar: str = "VALUE") -> None:
        self.name = name
        self.kind = kind
        self.help = text
        self.short = short
        self.metavar = metavar


class Command:
    """One command. `arguments` is the usage text behind the options; `least` and `most` bound their number.

    `mixed`: options may follow arguments (not so where arguments are another program's command line).
    """

    __slots__ = ("arguments", "help", "least", "mixed", "most", "name", "options")

    def __init__(
        self,
        name: str,
        arguments: str,
        least: int,
        most: int,
        text: str,
        options: tuple[Option, ...],
        *,
        mixed: bool = True,
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.least = least
        self.most = most
        self.help = text
        self.options = options
        self.mixed = mixed


MANY = 1 << 20

HELP = Option("help", "flag", "show this help", "h")

GLOBAL_OPTIONS = (
    Option("root", "value", "directory of the containers' state (default: /run/rune)", metavar="DIR"),
    Option("log", "value", "write log lines to FILE (default: errors to stderr)", metavar="FILE"),
    Option("log-format", "value", "text (default) or json", metavar="FORMAT"),
    Option("log-level", "value", "debug, info (default), warning, error", metavar="LEVEL"),
    Option("debug", "flag", "the same as --log-level debug"),
    Option(
        "sgx-platform",
        "value",
        "where enclaves run: hardware (default), emulated (the software platform: it protects nothing), auto",
        metavar="PLATFORM",
    ),
    Option("systemd-cgroup", "flag", "let systemd make the cgroups; linux.cgroupsPath is SLICE:PREFIX:NAME"),
    Option("cgroup-manager", "value", "cgroupfs (default), systemd (the same as --systemd-cgroup) or disabled"),
    Option(
        "rootless",
        "value",
        "go without cgroups that may not be written: auto (default: not for root), true, false",
        metavar="BOOL",
    ),
    Option("version", "flag", "print the version", "v"),
    HELP,
)

_BUNDLE = Option("bundle", "value", "the bundle's directory (default: the working directory)", "b", "DIR")
_CONFIG = Option("config", "value", "read FILE, seen from the bundle, in place of its config.json", "f", "FILE")
_CONSOLE_SOCKET = Option("console-socket", "value", "unix socket that receives the terminal's master", metavar="PATH")
_PID_FILE = Option("pid-file", "value", "write the pid of the process to FILE", metavar="FILE")
_PIDFD_SOCKET = Option("pidfd-socket", "value", "unix socket that receives a pidfd of the process", metavar="PATH")
_PRESERVE_FDS = Option("preserve-fds", "value", "pass on N more file descriptors, from 3", metavar="N")
_DRY_RUN = Option("dry-run", "flag", "print the plan, every step in order, and change nothing")
_NO_KEYRING = Option("no-new-keyring", "flag", "stay in the caller's session keyring")
_NO_PIVOT = Option("no-pivot", "flag", "enter the root by a move, where pivot_root cannot (an initramfs)")

_IMAGE = (
    Option("image-path", "value", "directory of the image (default: ./checkpoint)", metavar="DIR"),
    Option("work-path", "value", "directory of CRIU's log (default: the image's)", metavar="DIR"),
    Option("tcp-established", "flag", "with open TCP connections"),
    Option("ext-unix-sk", "flag", "with unix sockets that lead out of the container"),
    Option("shell-job", "flag", "with a terminal that is not the container's own"),
    Option("file-locks", "flag", "with file locks"),
    Option("manage-cgroups-mode", "value", "soft, full, strict or ignore", metavar="MODE"),
    Option("empty-ns", "list", "do not restore what is in this namespace: network", metavar="NAMESPACE"),
    Option("lazy-pages", "flag", "fetch memory when it is used"),
    Option("auto-dedup", "flag", "drop from older images what a newer one has"),
)

COMMANDS = (
    Command(
        "attest",
        "ID",
        1,
        1,
        "get a report or a quote of a container's enclave",
        (
            Option(
                "reportFile", "value", "write it to FILE on the host (default, and -: standard output)", metavar="FILE"
            ),
            Option("isRA", "flag", "a quote, for remote attestation; without it a local report"),
            Option("quote-type", "value", "ecdsa (default), epidUnlinkable or epidLinkable", metavar="TYPE"),
            Option("spid", "value", "service provider's id for EPID, 32 hexadecimal digits", metavar="HEX"),
            Option("subscription-key", "value", "refused: Intel's attestation service has ended", metavar="HEX"),
            Option("nonce", "value", "bind these bytes, at most 64, so that the answer is fresh", metavar="HEX"),
            Option("user-data", "value", "bind the SHA-256 of FILE, or of nonce and FILE", metavar="FILE"),
            Option(
                "target-info", "value", "of the enclave that is to check a local report (512 bytes)", metavar="FILE"
            ),
            Option("aesm", "value", "AESM's socket (default: /var/run/aesmd/aesm.socket)", metavar="SOCKET"),
            HELP,
        ),
    ),
    Command(
        "checkpoint",
        "ID",
        1,
        1,
        "write a running container to an image (CRIU), and end it",
        (
            *_IMAGE,
            Option("parent-path", "value", "an earlier image, seen from the new one", metavar="DIR"),
            Option("pre-dump", "flag", "write its memory only, and leave it running"),
            Option("leave-running", "flag", "do not end it"),
            Option("page-server", "value", "send its memory to this server", metavar="ADDRESS:PORT"),
            Option("status-fd", "value", "write a zero byte to FD when lazy pages can be fetched", metavar="FD"),
            Option("tcp-skip-in-flight", "flag", "without TCP connections that are still being opened"),
            Option("link-remap", "flag", "link files again that have lost their names"),
            HELP,
        ),
    ),
    Command(
        "create",
        "ID",
        1,
        1,
        "make a container; its program waits for `rune start`",
        (
            _BUNDLE,
            _CONFIG,
            _CONSOLE_SOCKET,
            _PID_FILE,
            _PIDFD_SOCKET,
            _NO_PIVOT,
            _NO_KEYRING,
            _PRESERVE_FDS,
            _DRY_RUN,
            HELP,
        ),
    ),
    Command(
        "delete",
        "ID...",
        1,
        MANY,
        "remove a stopped container",
        (
            Option("force", "flag", "kill it first if it runs", "f"),
            Option("regex", "flag", "the arguments are regular expressions for ids", "r"),
            HELP,
        ),
    ),
    Command(
        "exec",
        "ID COMMAND [ARGUMENT...]",
        1,
        MANY,
        "run another process in a container",
        (
            Option("process", "value", "read the process from FILE (JSON)", "p", "FILE"),
            Option("cwd", "value", "its working directory", metavar="DIR"),
            Option("env", "list", "set NAME=VALUE", "e", "NAME=VALUE"),
            Option("tty", "flag", "give it a terminal", "t"),
            Option("user", "value", "run as UID[:GID]", "u", "UID[:GID]"),
            Option("additional-gids", "list", "more groups", "g", "GID"),
            Option("detach", "flag", "do not wait for its end", "d"),
            Option("cap", "list", "add a capability", "c", "CAP"),
            Option("no-new-privs", "flag", "forbid gaining privileges"),
            Option("apparmor", "value", "confine it with this AppArmor profile", metavar="PROFILE"),
            Option("process-label", "value", "give it this SELinux label", metavar="LABEL"),
            Option("cgroup", "value", "run in PATH below the container's cgroup", metavar="PATH"),
            Option("ignore-paused", "flag", "also in a paused container: wait until it goes on"),
            _CONSOLE_SOCKET,
            _PID_FILE,
            _PIDFD_SOCKET,
            _PRESERVE_FDS,
            _DRY_RUN,
            HELP,
        ),
        mixed=False,
    ),
    Command(
        "events",
        "ID",
        1,
        1,
        "print what a container uses, and when it runs out of memory (JSON)",
        (
            Option("interval", "value", "time between statistics (default: 5s)", metavar="TIME"),
            Option("stats", "flag", "print the statistics once, and end"),
            HELP,
        ),
    ),
    Command("features", "", 0, 0, "print what this rune can do (JSON)", (HELP,)),
    Command(
        "kill",
        "ID [SIGNAL]",
        1,
        2,
        "send a signal (default: SIGTERM)",
        (Option("all", "flag", "to every process of the container", "a"), HELP),
    ),
    Command(
        "list",
        "",
        0,
        0,
        "list containers",
        (
            Option("format", "value", "table (default) or json", "f", "FORMAT"),
            Option("quiet", "flag", "ids only", "q"),
            HELP,
        ),
    ),
    Command("pause", "ID", 1, 1, "stop all processes of a container where they are", (HELP,)),
    Command(
        "ps",
        "ID",
        1,
        1,
        "list a container's processes",
        (Option("format", "value", "table (default) or json", "f", "FORMAT"), HELP),
    ),
    Command(
        "restore",
        "ID",
        1,
        1,
        "make a container of an image (CRIU)",
        (
            _BUNDLE,
            _CONSOLE_SOCKET,
            _PID_FILE,
            *_IMAGE,
            Option("detach", "flag", "do not wait for its end", "d"),
            Option("no-pivot", "flag", "no effect: CRIU makes the root"),
            Option("no-subreaper", "flag", "no effect: rune adopts nobody"),
            Option("tcp-close", "flag", "close TCP connections"),
            Option("lsm-profile", "value", "another security profile", metavar="TYPE:NAME"),
            Option("lsm-mount-context", "value", "another SELinux context of mounts", metavar="CONTEXT"),
            HELP,
        ),
    ),
    Command("resume", "ID", 1, 1, "let a paused container go on", (HELP,)),
    Command(
        "run",
        "ID",
        1,
        1,
        "create and start a container",
        (
            _BUNDLE,
            _CONFIG,
            _CONSOLE_SOCKET,
            _PID_FILE,
            _PIDFD_SOCKET,
            _NO_PIVOT,
            _NO_KEYRING,
            _PRESERVE_FDS,
            Option("detach", "flag", "do not wait for its end", "d"),
            Option("keep", "flag", "keep the container's record after its end"),
            Option("no-subreaper", "flag", "no effect: rune adopts nobody"),
            _DRY_RUN,
            HELP,
        ),
    ),
    Command(
        "spec",
        "",
        0,
        0,
        "write a config.json to start from",
        (
            _BUNDLE,
            Option("rootless", "flag", "for a user who is not root"),
            Option("enclave", "value", "for an enclave container with this runtime: skeleton", metavar="RUNTIME"),
            HELP,
        ),
    ),
    Command("start", "ID", 1, 1, "let a created container run", (HELP,)),
    Command("state", "ID", 1, 1, "print a container's state (JSON)", (HELP,)),
    Command(
        "update",
        "ID",
        1,
        1,
        "change the limits of a container",
        (
            Option("resources", "value", "take them from FILE, - for stdin (JSON)", "r", "FILE"),
            Option("blkio-weight", "value", "weight of its I/O, 10 to 1000", metavar="N"),
            Option("cpu-period", "value", "period of --cpu-quota, in microseconds", metavar="US"),
            Option("cpu-quota", "value", "time in each period, in microseconds; -1: no limit", metavar="US"),
            Option("cpu-burst", "value", "time it may use ahead, in microseconds", metavar="US"),
            Option("cpu-share", "value", "its share of a busy CPU, 2 to 262144", metavar="N"),
            Option("cpu-rt-period", "value", "period of --cpu-rt-runtime, in microseconds", metavar="US"),
            Option("cpu-rt-runtime", "value", "real-time in each period, in microseconds", metavar="US"),
            Option("cpu-idle", "value", "1: only where nothing else wants the CPU; 0", metavar="N"),
            Option("cpuset-cpus", "value", "CPUs it may use, such as 0-3,7", metavar="LIST"),
            Option("cpuset-mems", "value", "memory nodes it may use", metavar="LIST"),
            Option("memory", "value", "limit of memory, such as 64M; -1: none", metavar="SIZE"),
            Option("memory-reservation", "value", "memory it may keep when memory is short", metavar="SIZE"),
            Option("memory-swap", "value", "limit of memory and swap together; -1: none", metavar="SIZE"),
            Option("kernel-memory", "value", "has no effect: kernels do not limit it any more", metavar="SIZE"),
            Option("kernel-memory-tcp", "value", "has no effect: kernels do not limit it any more", metavar="SIZE"),
            Option("pids-limit", "value", "number of tasks; -1: no limit", metavar="N"),
            Option("l3-cache-schema", "value", "share of the L3 cache (resctrl)", metavar="TEXT"),
            Option("mem-bw-schema", "value", "share of the memory's bandwidth (resctrl)", metavar="TEXT"),
            HELP,
        ),
    ),
)


def command_named(name: str) -> Command | None:
    """Find a command."""
    for command in COMMANDS:
        if command.name == name:
            return command
    return None
