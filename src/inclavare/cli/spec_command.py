"""`rune spec`: write a config.json to start from."""

from __future__ import annotations

import os

from inclavare import installed
from inclavare.errors import HostError, UsageError
from inclavare.oci import jsontext, template

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation


def run(invocation: Invocation) -> int:
    """Carry out the command. An existing file is never overwritten."""
    runtime = invocation.options.value("enclave")
    if runtime not in ("", "skeleton"):
        raise UsageError(f"unknown enclave runtime {runtime!r}", "Known: skeleton.")
    if runtime:
        document = template.template(enclave=runtime, pal=installed("_native/liberpal-skeleton-v3.so"))
    elif invocation.options.flag("rootless"):
        document = template.template(rootless=(os.geteuid(), os.getegid()))
    else:
        document = template.template()
    path = os.path.join(invocation.options.value("bundle", "."), "config.json")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise HostError("File config.json exists. Remove it first", f"It is {os.path.abspath(path)}.") from None
    try:
        os.write(fd, jsontext.dumps(document, "\t").encode() + b"\n")
    finally:
        os.close(fd)
    return 0
