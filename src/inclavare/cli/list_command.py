"""`rune list`: list containers."""

from __future__ import annotations

import os

from inclavare.container import lifecycle, store
from inclavare.errors import InclavareError, UsageError
from inclavare.oci import jsontext

TYPE_CHECKING = False  # typing costs 7 ms
if TYPE_CHECKING:
    from inclavare.cli.rune import Invocation

COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def run(invocation: Invocation) -> int:
    """Carry out the command."""
    form = invocation.options.value("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"invalid format option: {form!r}", "It is table or json.")
    names = store.ids(invocation.root)
    if invocation.options.flag("quiet"):
        text = "".join(f"{name}\n" for name in names)
    else:
        documents = _documents(invocation, names)
        text = jsontext.dumps(documents) + "\n" if form == "json" else _table(documents)
    os.write(1, text.encode())
    return 0


def _documents(invocation: Invocation, names: list[str]) -> list[dict[str, object]]:
    documents = []
    for name in names:
        try:
            record = store.load(invocation.root, name)
            documents.append(lifecycle.document(record, lifecycle.status(record)))
        except InclavareError as error:  # removed meanwhile, or damaged: the others are still of use
            invocation.log.warning(error.message)
    return documents


def _table(documents: list[dict[str, object]]) -> str:
    rows = [COLUMNS] + [tuple(str(document[name.lower()]) or "root" for name in COLUMNS) for document in documents]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )
