"""Writes manual pages and shell completions of `rune` from the table of its commands: manual.py DIRECTORY.

man8/rune.8, man8/rune-COMMAND.8   groff_man(7)
man8/runectl.8                     likewise, from the parsers of its commands
rune.bash, _rune, rune.fish        for bash, zsh and fish
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from inclavare import __version__
from inclavare.cli import runectl
from inclavare.cli.table import COMMANDS, GLOBAL_OPTIONS, Command, Option

ABOUT = "an OCI container runtime that can host an SGX enclave in a container"
EXIT_STATUS = (
    "0 where the command was carried out; of \\fBrun\\fR and \\fBexec\\fR the status of the program, 128 + n where "
    "signal n ended it. 1 where it failed (255 from \\fBexec\\fR); what failed is on standard error and in the file of "
    "\\fB\\-\\-log\\fR."
)
# What an option's value is, by its metavar: completion of files and directories.
FILES = ("FILE", "PATH")
DIRECTORIES = ("DIR",)


def main(directory: Path) -> None:
    """Write all files."""
    pages = directory / "man8"
    pages.mkdir(parents=True, exist_ok=True)
    (pages / "rune.8").write_text(main_page())
    (pages / "runectl.8").write_text(runectl_page())
    for command in COMMANDS:
        (pages / f"rune-{command.name}.8").write_text(command_page(command))
    for name, text in (("rune.bash", bash()), ("_rune", zsh()), ("rune.fish", fish())):
        (directory / name).write_text(text)


def main_page() -> str:
    """Give rune(8)."""
    commands = "".join(
        f".TP\n\\fBrune\\-{roff(command.name)}\\fR(8)\n{roff(sentence(command.help))}\n" for command in COMMANDS
    )
    return (
        f"{title('RUNE')}.SH NAME\nrune \\- {ABOUT}\n.SH SYNOPSIS\n"
        "\\fBrune\\fR [\\fIGLOBAL OPTION\\fR...] \\fICOMMAND\\fR [\\fIOPTION\\fR...] [\\fIARGUMENT\\fR...]\n"
        ".SH DESCRIPTION\nA container is made from a bundle: a directory with a config.json of the OCI "
        "runtime-spec, and a root filesystem. Commands, options and exit codes are those of runc.\n"
        f".SH COMMANDS\n{commands}.SH GLOBAL OPTIONS\n{options_of(GLOBAL_OPTIONS)}.SH EXIT STATUS\n{EXIT_STATUS}\n"
        ".SH ENVIRONMENT\n.TP\n\\fBRUNE_SGX_PLATFORM\\fR\nThe same as \\fB\\-\\-sgx\\-platform\\fR.\n"
        ".TP\n\\fBRUNE_PYTHON\\fR\n1: run with the host's python3 instead of the Python inside.\n"
        ".TP\n\\fBXDG_RUNTIME_DIR\\fR\nWhere the state of an unprivileged user's containers is.\n"
        ".SH FILES\n.TP\n/run/rune\nThe state of root's containers.\n"
        ".TP\n/etc/inclavare-containers/config.toml\nWhat the administrator allows enclaves.\n"
    )


def command_page(command: Command) -> str:
    """Give rune-COMMAND(8)."""
    arguments = f" {roff(command.arguments)}" if command.arguments else ""
    return (
        f"{title(f'RUNE-{command.name.upper()}')}.SH NAME\nrune\\-{roff(command.name)} \\- {roff(command.help)}\n"
        f".SH SYNOPSIS\n\\fBrune {roff(command.name)}\\fR [\\fIOPTION\\fR...]{arguments}\n"
        f".SH OPTIONS\n{options_of(command.options)}.SH EXIT STATUS\n{EXIT_STATUS}\n.SH SEE ALSO\n\\fBrune\\fR(8)\n"
    )


def runectl_page() -> str:
    """Give runectl(8), with all commands in one page."""
    whole = runectl.parser()
    (commands,) = (action for action in whole._actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
    text = "".join(runectl_command(name, parser) for name, parser in commands.choices.items())
    return (
        f"{title('RUNECTL')}.SH NAME\nrunectl \\- measure, sign, inspect and attest SGX enclaves\n"
        ".SH SYNOPSIS\n\\fBrunectl\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR...] [\\fIARGUMENT\\fR...]\n"
        f".SH COMMANDS\n{text}.SH EXIT STATUS\n0 where the command was carried out, 1 where it failed, 2 where the "
        "command line cannot be understood. \\fBdoctor\\fR ends with 3 where something is lacking.\n"
        ".SH FILES\n.TP\n/run/aesmd/aesm.socket\nThe socket of the AESM daemon.\n"
        ".TP\n/var/lib/inclavare/platform\nThe software platform.\n.SH SEE ALSO\n\\fBrune\\fR(8)\n"
    )


def runectl_command(name: str, parser: argparse.ArgumentParser) -> str:
    """Give the section of one command of runectl."""
    text = f".SS {roff(name)}\n{roff(parser.description or '')}\n"
    for action in parser._actions[1:]:  # noqa: SLF001  # argparse has no other way to them
        words = ", ".join(f"\\fB{roff(word)}\\fR" for word in action.option_strings)
        if not words or action.nargs != 0:
            value = roff(str(action.metavar or "|".join(action.choices or ()) or action.dest.upper()))
            words += f" \\fI{value}\\fR"
        said = roff((action.help or "").replace("%%", "%"))
        text += f".TP\n{words.strip()}\n{said}\n"
    return text


def title(name: str) -> str:
    """Give the head of a page."""
    return f'.TH {name} 8 "" "rune {__version__}" "Inclavare Containers"\n'


def options_of(options: tuple[Option, ...]) -> str:
    """Give a list of options."""
    text = ""
    for option in options:
        names = [f"\\fB\\-{option.short}\\fR"] if option.short else []
        names.append(f"\\fB\\-\\-{roff(option.name)}\\fR")
        value = "" if option.kind == "flag" else f" \\fI{roff(option.metavar)}\\fR"
        repeated = " May be repeated." if option.kind == "list" else ""
        text += f".TP\n{', '.join(names)}{value}\n{roff(sentence(option.help))}{repeated}\n"
    return text


def sentence(text: str) -> str:
    """Make a sentence of a help text."""
    return text[0].upper() + text[1:] + "."


def roff(text: str) -> str:
    """Protect what groff would read as its own."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")


def words_of(options: tuple[Option, ...]) -> list[str]:
    """Give all spellings of options."""
    spellings = [(f"-{option.short}" if option.short else "", f"--{option.name}") for option in options]
    return [word for words in spellings for word in words if word]


def names_container(command: Command) -> bool:
    """Tell whether a command's argument is a container that is there."""
    return command.arguments.startswith("ID") and command.name not in ("create", "restore", "run")


def takes_value(options: tuple[Option, ...]) -> tuple[Option, ...]:
    """Give the options whose value is the next word."""
    return tuple(option for option in options if option.kind != "flag")


def bash() -> str:
    """Give a function for bash's `complete`."""
    values = "|".join(words_of(takes_value(GLOBAL_OPTIONS)))
    cases = "".join(
        f"\t{command.name})\n\t\toptions={quote(' '.join(words_of(command.options)))}\n"
        f"\t\tvalues={quote(' ' + ' '.join(words_of(takes_value(command.options))) + ' ')}\n"
        f"\t\tids={'' if names_container(command) else 'no'} ;;\n"
        for command in COMMANDS
    )
    return f"""# bash completion of rune
_rune() {{
	local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
	local command= root= i options values ids=
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${{COMP_WORDS[i]}} in
		--root) root=${{COMP_WORDS[++i]}} ;;
		{values}) ((i++)) ;;
		-*) ;;
		*) command=${{COMP_WORDS[i]}}; break ;;
		esac
	done
	case $command in
	'')
		options={quote(" ".join(words_of(GLOBAL_OPTIONS)))}
		values={quote(" " + " ".join(words_of(takes_value(GLOBAL_OPTIONS))) + " ")}
		[[ $current == -* ]] || options={quote(" ".join(command.name for command in COMMANDS))}
		ids=no ;;
{cases}	*) return ;;
	esac
	if [[ $values == *" $previous "* ]]; then
		COMPREPLY=($(compgen -f -- "$current"))
	elif [[ -z $ids && $current != -* ]]; then
		COMPREPLY=($(compgen -W "$(rune ${{root:+--root "$root"}} list --quiet 2>/dev/null)" -- "$current"))
	else
		COMPREPLY=($(compgen -W "$options" -- "$current"))
	fi
}}
complete -o filenames -F _rune rune
"""


def zsh() -> str:
    """Give a completion function for zsh."""

    def argument(option: Option) -> str:
        value = "" if option.kind == "flag" else f":{option.metavar}:{zsh_action(option)}"
        repeated = "*" if option.kind == "list" else ""
        help_text = option.help.replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
        return "".join(f" \\\n\t\t{quote(f'{repeated}{word}[{help_text}]{value}')}" for word in words_of((option,)))

    names = "".join(f"\n\t\t{quote(f'{command.name}:{command.help}')}" for command in COMMANDS)
    cases = "".join(
        f"\t{command.name})\n\t\t_arguments{''.join(argument(option) for option in command.options)}"
        f"{IDS if names_container(command) else ''} ;;\n"
        for command in COMMANDS
    )
    return f"""#compdef rune
_rune() {{
	local -a commands
	local state line
	commands=({names})
	_arguments -C{"".join(argument(option) for option in GLOBAL_OPTIONS)} \\
		'1: :{{_describe command commands}}' '*:: :->arguments'
	[[ $state == arguments ]] || return
	case $line[1] in
{cases}	esac
}}
_rune_ids() {{
	local -a ids
	ids=(${{(f)"$(rune list --quiet 2>/dev/null)"}})
	_describe container ids
}}
_rune "$@"
"""


IDS = " \\\n\t\t'*:container:_rune_ids'"


def zsh_action(option: Option) -> str:
    """Give what zsh completes a value with."""
    if option.metavar in DIRECTORIES:
        return "_files -/"
    return "_files" if option.metavar in FILES else ""


def fish() -> str:
    """Give commands for fish."""
    lines = ["# fish completion of rune", "complete -c rune -f"]
    lines += [fish_option("__fish_use_subcommand", option) for option in GLOBAL_OPTIONS]
    for command in COMMANDS:
        seen = f"__fish_seen_subcommand_from {command.name}"
        lines.append(f"complete -c rune -n __fish_use_subcommand -a {command.name} -d {fish_quote(command.help)}")
        lines += [fish_option(quote(seen), option) for option in command.options]
        if names_container(command):
            lines.append(f"complete -c rune -n {quote(seen)} -a '(rune list --quiet 2>/dev/null)'")
    return "\n".join(lines) + "\n"


def fish_option(condition: str, option: Option) -> str:
    """Give the command for one option."""
    short = f" -s {option.short}" if option.short else ""
    value = "" if option.kind == "flag" else " -r" + (" -F" if option.metavar in (*FILES, *DIRECTORIES) else "")
    return f"complete -c rune -n {condition} -l {option.name}{short}{value} -d {fish_quote(option.help)}"


def fish_quote(text: str) -> str:
    """Give a word for fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote(text: str) -> str:
    """Give a word for a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
