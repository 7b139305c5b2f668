"""The command `containerd-shim-rune-v2`, as containerd calls it. Flags are Go's: `-id X`, `-id=X`, `--id X`."""

from __future__ import annotations

import os
import sys

from inclavare import __version__
from inclavare.errors import InclavareError, UsageError

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.shim.bootstrap import Invocation

PROGRAM = "containerd-shim-rune-v2"
SWITCHES = ("debug", "v", "version", "info", "h", "help")
VALUES = ("namespace", "id", "address", "publish-binary", "bundle", "socket", "debug-socket")
HELP = f"""Usage: {PROGRAM} -namespace NAMESPACE -id ID -address ADDRESS [-bundle DIR] [-debug] start|delete

The shim that containerd runs for the runtime io.containerd.rune.v2; it is not for being called by hand.
  -info   print what the runtime is able to do, for containerd
  -v      print the version
"""


def main() -> None:
    """Carry out the command line, and end the process."""
    try:
        status = _run(sys.argv[1:])
    except InclavareError as error:
        os.write(2, f"{PROGRAM}: {error.text()}\n".encode("utf-8", "backslashreplace"))
        status = 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        os.write(2, f"{PROGRAM}: {where}{error.strerror}\n".encode("utf-8", "backslashreplace"))
        status = 1
    os._exit(status)


def _run(words: list[str]) -> int:
    flags, action = _parse(words)
    if "help" in flags or "h" in flags:
        os.write(1, HELP.encode())
        return 0
    if "v" in flags or "version" in flags:
        os.write(1, f"{PROGRAM}:\n  Version:  {__version__}\n".encode())
        return 0
    from inclavare.shim import bootstrap  # noqa: PLC0415  # -v needs nothing of it

    if "info" in flags:
        os.write(1, bootstrap.info())
    elif action == "start":
        invocation = _invocation(flags)
        invocation.read_stdin()
        os.write(1, bootstrap.start(invocation))
    elif action == "delete":
        os.write(1, bootstrap.delete(_invocation(flags)))
    else:
        raise UsageError(f"unknown action {action!r}", "It is start or delete.")
    return 0


def _invocation(flags: dict[str, str]) -> Invocation:
    from inclavare.shim.bootstrap import Invocation  # noqa: PLC0415  # see above

    for name in ("namespace", "id"):
        if not flags.get(name):
            raise UsageError(f"-{name} is missing", "containerd gives it.")
    invocation = Invocation(flags["id"], flags["namespace"], flags.get("address", ""))
    invocation.bundle = flags.get("bundle") or invocation.bundle
    invocation.debug = "debug" in flags
    return invocation


def _parse(words: list[str]) -> tuple[dict[str, str], str]:
    """Split into flags and the action; flags behind it are none of ours."""
    flags: dict[str, str] = {}
    at = 0
    while at < len(words) and words[at].startswith("-") and len(words[at]) > 1:
        name, joined, value = words[at].lstrip("-").partition("=")
        at += 1
        if not name:
            break
        if name in SWITCHES:
            if value not in ("false", "0"):
                flags[name] = value
        elif name not in VALUES:
            raise UsageError(f"unknown flag -{name}", f"{PROGRAM} -help")
        elif joined:
            flags[name] = value
        elif at < len(words):
            flags[name] = words[at]
            at += 1
        else:
            raise UsageError(f"-{name} wants a value")
    return flags, words[at] if at < len(words) else ""


if __name__ == "__main__":
    main()
