"""What the runtime-spec offers and this release does not: one table, and the refusal by name.

Nothing that a configuration asks for is silently left out. An entry leaves the table in the change that implements it.
Hot path.
"""

from __future__ import annotations

from inclavare.errors import SpecError
from inclavare.oci.reader import show
from inclavare.oci.spec import Spec

# Entries: JSON path, attributes that lead there, values refused (none given: any value that is set).

_OF_SPEC: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (("linux.intelRdt", ("linux", "intel_rdt"), ()),)


def unsupported() -> set[str]:
    """Give the JSON paths of what is refused, with [] for every item."""
    return {path for path, _, _ in _OF_SPEC}


def refuse_unsupported(spec: Spec) -> None:
    """Raise SpecError for the first thing `spec` asks for that this release cannot do."""
    for name, members in spec.foreign.items():
        if members is not None:
            raise SpecError(name, f"is not supported: {name} is for another platform than Linux")
    for path, attributes, values in _OF_SPEC:
        _refuse_at(spec, path, attributes, values)
    # Pivoting in a mount namespace that others use would take their root from under them.
    if spec.linux.namespace("mount") is None:
        raise SpecError(
            "linux.namespaces",
            "a container without a mount namespace of its own is not supported",
            'add {"type": "mount"}',
        )


def _refuse_at(value: object, path: str, attributes: tuple[str, ...], refused: tuple[str, ...]) -> None:
    """Follow `attributes` from `value`, through every item of a list, and refuse what is found at their end."""
    for depth, attribute in enumerate(attributes):
        value = getattr(value, attribute)
        if value is None:
            return
        rest = attributes[depth + 1 :]
        if rest and isinstance(value, list):
            for index, item in enumerate(value):
                _refuse_at(item, path.replace("[]", f"[{index}]", 1), rest, refused)
            return
    if refused:
        if value in refused:
            raise SpecError(path, f"{show(value)} is not supported yet")
    elif _is_set(value):
        raise SpecError(path, "is not supported yet")


def _is_set(value: object) -> bool:
    """Zero, "", false and whatever is made only of them is how Go programs write a value that was never set."""
    values = [value]  # no recursion: a document may be nested as deep as the JSON scanner bears
    while values:
        item = values.pop()
        if isinstance(item, dict):
            values.extend(item.values())
        elif isinstance(item, list):
            values.extend(item)
        elif item:
            return True
    return False
