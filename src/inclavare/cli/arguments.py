"""Command lines to values, by the table. Hot path, so not argparse (8 ms)."""

from __future__ import annotations

from inclavare.cli.table import Command, Option
from inclavare.errors import UsageError


class Values:
    """What a command line said of a set of options."""

    __slots__ = ("_given",)

    def __init__(self) -> None:
        self._given: dict[str, list[str]] = {}

    def add(self, name: str, value: str) -> None:
        """Note one occurrence."""
        self._given.setdefault(name, []).append(value)

    def flag(self, name: str) -> bool:
        """Tell whether a flag is set."""
        return self._given.get(name, ["false"])[-1] == "true"

    def value(self, name: str, default: str = "") -> str:
        """Give an option's value, the last if it was repeated."""
        return self._given.get(name, [default])[-1]

    def values(self, name: str) -> list[str]:
        """Give all values of a repeatable option."""
        return self._given.get(name, [])

    def number(self, name: str) -> int:
        """Give an option's value as a number of at least 0 (0 when absent)."""
        text = self.value(name, "0")
        if not text.isascii() or not text.isdigit():
            raise UsageError(f"--{name} wants a number, not {text!r}")
        return int(text)


def parse_options(words: list[str], options: tuple[Option, ...], *, mixed: bool) -> tuple[Values, list[str]]:
    """Split words into options and the rest. Not `mixed`: the first word that is no option begins the rest.

    Raises UsageError for unknown options and missing or odd values.
    """
    values = Values()
    rest: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            return values, rest + words[at:]
        if not word.startswith("-") or word == "-":
            if not mixed:
                return values, words[at - 1 :]
            rest.append(word)
            continue
        name, joined, value = word.lstrip("-").partition("=")
        option = _find(options, name, word)
        if option.kind == "flag":
            value = value.lower() if joined else "true"
            value = {"1": "true", "t": "true", "0": "false", "f": "false"}.get(value, value)
            if value not in ("true", "false"):
                raise UsageError(f"--{option.name} is true or false, not {value!r}")
        elif not joined:
            if at == len(words):
                raise UsageError(f"--{option.name} wants a value: {option.metavar}")
            value = words[at]
            at += 1
        values.add(option.name, value)
    return values, rest


def parse_command(command: Command, words: list[str]) -> tuple[Values, list[str]]:
    """Parse what follows the command's name. The number of arguments is checked unless help is asked for."""
    values, rest = parse_options(words, command.options, mixed=command.mixed)
    if not values.flag("help") and not command.least <= len(rest) <= command.most:
        if command.least == command.most:
            count = f"exactly {command.least} argument(s)"
        elif len(rest) < command.least:
            count = f"a minimum of {command.least} argument(s)"
        else:
            count = f"a maximum of {command.most} argument(s)"
        raise UsageError(f'"rune {command.name}" requires {count}', f"Usage: {usage(command)}")
    return values, rest


def usage(command: Command) -> str:
    """Give the one-line usage of a command."""
    return f"rune {command.name} [OPTION...] {command.arguments}".rstrip()


def render_options(options: tuple[Option, ...]) -> str:
    """Render options for a help text, one a line."""
    lines = []
    for option in options:
        left = f"--{option.name}"
        if option.short:
            left = f"-{option.short}, {left}"
        if option.kind != "flag":
            left += f" {option.metavar}"
        lines.append(f"  {left:30} {option.help}\n")
    return "".join(lines)


def _find(options: tuple[Option, ...], name: str, word: str) -> Option:
    for option in options:
        if name and name in (option.name, option.short):
            return option
    raise UsageError(f"unknown option {word}")
