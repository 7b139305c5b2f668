"""`rune attest`: get a report or a quote of a container's enclave, and write it on the host."""

from __future__ import annotations

import os

from inclavare.container import store
from inclavare.container.attest import local_report
from inclavare.enclave.agent import REPORT_DATA_SIZE, TARGET_INFO_SIZE
from inclavare.errors import EnclaveError, HostError, InclavareError, UsageError
from inclavare.linux.files import read_file

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from collections.abc import Callable

    from inclavare.aesm.quoting import QuoteType
    from inclavare.cli.arguments import Values
    from inclavare.cli.rune import Invocation

SPID_SIZE = 16


def run(invocation: Invocation) -> int:
    """Carry out the command. What goes wrong does not touch the container."""
    options = invocation.options
    data = _report_data(options)
    kind, spid = _quote_type(options)
    if options.flag("isRA") and options.value("target-info"):
        raise UsageError("--target-info is for local reports: a quote is made of one for the quoting enclave")
    record = store.load(invocation.root, invocation.arguments[0])
    try:
        if options.value("target-info"):
            report = local_report(record, _read(options.value("target-info"), TARGET_INFO_SIZE, "target info"), data)
        else:
            report = _of_aesm(options, kind, spid, lambda target_info: local_report(record, target_info, data))
        _write(options.value("reportFile"), report)
    except InclavareError as error:
        raise EnclaveError(f"attest failed: {error.message}", error.hint) from error
    return 0


def _of_aesm(options: Values, kind: QuoteType, spid: bytes, ask: Callable[[bytes], bytes]) -> bytes:
    """Give a report for AESM's quoting enclave, or the quote that it makes of it."""
    from inclavare.aesm.client import AesmClient  # noqa: PLC0415  # no other command asks AESM
    from inclavare.aesm.quoting import qe_target_info, quote  # noqa: PLC0415

    client = AesmClient(options.value("aesm")) if options.value("aesm") else AesmClient()
    report = ask(qe_target_info(client, kind))
    return quote(client, kind, report, spid) if options.flag("isRA") else report


def _report_data(options: Values) -> bytes:
    """Give the 64 bytes that the report is to say, none when nothing is to be bound."""
    nonce = _hexadecimal("nonce", options.value("nonce"))
    if len(nonce) > REPORT_DATA_SIZE:
        raise UsageError(f"--nonce has {len(nonce)} bytes, and a report has room for {REPORT_DATA_SIZE}")
    path = options.value("user-data")
    if not path:
        return nonce.ljust(REPORT_DATA_SIZE, b"\0") if nonce else b""
    import hashlib  # noqa: PLC0415  # rarely asked for

    return hashlib.sha256(nonce + _read(path)).digest().ljust(REPORT_DATA_SIZE, b"\0")


def _quote_type(options: Values) -> tuple[QuoteType, bytes]:
    if options.value("subscription-key"):
        raise UsageError(
            "--subscription-key is for Intel's attestation service, which has ended",
            "Have an ECDSA quote verified: runectl verify-quote.",
        )
    spid = _hexadecimal("spid", options.value("spid"))
    kind = options.value("quote-type") or ("epidUnlinkable" if spid else "ecdsa")
    if kind not in ("ecdsa", "epidUnlinkable", "epidLinkable"):
        raise UsageError(f"invalid --quote-type: {kind!r}", "It is ecdsa, epidUnlinkable or epidLinkable.")
    if options.flag("isRA") and (kind == "ecdsa") == bool(spid):
        raise UsageError("EPID quotes, and only they, want --spid", "32 hexadecimal digits.")
    if spid and len(spid) != SPID_SIZE:
        raise UsageError(f"--spid has {len(spid)} bytes, found where {SPID_SIZE} belong", "32 hexadecimal digits.")
    return kind, spid  # type: ignore[return-value]


def _hexadecimal(name: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise UsageError(f"--{name} is not hexadecimal: {text!r}") from error


def _read(path: str, size: int = 0, what: str = "") -> bytes:
    try:
        content = read_file(path)
    except OSError as error:
        raise HostError(f"cannot read {path}: {error.strerror}") from error
    if size and len(content) != size:
        raise UsageError(f"{path}: a {what} has {size} bytes, found {len(content)}")
    return content


def _write(path: str, content: bytes) -> None:
    """Write all of it. On a terminal, which would not like it, as hexadecimal digits."""
    name = path or "standard output"
    try:
        if path in ("", "-"):
            if os.isatty(1):
                content = content.hex().encode() + b"\n"
            fd = os.dup(1)
        else:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o664)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)
    except OSError as error:
        raise HostError(f"cannot write {name}: {error.strerror}") from error
