"""Manual pages, completions and help say what the table of commands says."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from inclavare.cli import runectl
from inclavare.cli.table import COMMANDS, GLOBAL_OPTIONS, Command, Option

TOOL = Path(__file__).parents[3] / "tools/manual.py"


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("manual")
    spec = importlib.util.spec_from_file_location("manual", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(directory)
    return directory


def spellings(options: tuple[Option, ...]) -> list[str]:
    return [f"--{option.name}" for option in options] + [f"-{option.short}" for option in options if option.short]


def complete(manual: Path, *words: str) -> list[str]:
    script = f'source {manual}/rune.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _rune; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_every_command_has_a_module_and_every_module_a_command() -> None:
    paths = (TOOL.parents[1] / "src/inclavare/cli").glob("*_command.py")
    assert {path.name.removesuffix("_command.py") for path in paths} == {command.name for command in COMMANDS}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_page_has_every_option_of_its_command(manual: Path, command: Command) -> None:
    page = (manual / f"man8/rune-{command.name}.8").read_text().replace("\\-", "-")
    for word in spellings(command.options):
        assert f"\\fB{word}\\fR" in page
    assert command.help.split("'")[0] in page


def test_the_main_page_has_every_command_and_global_option(manual: Path) -> None:
    page = (manual / "man8/rune.8").read_text().replace("\\-", "-")
    assert all(f"\\fBrune-{command.name}\\fR(8)" in page for command in COMMANDS)
    assert all(f"\\fB{word}\\fR" in page for word in spellings(GLOBAL_OPTIONS))


def test_the_page_of_runectl_has_every_command_and_option(manual: Path) -> None:
    page = (manual / "man8/runectl.8").read_text().replace("\\-", "-")
    for name in runectl.COMMANDS:
        assert f".SS {name}\n" in page
    for word in ("--quote-type", "--need", "--socket", "--token", "--platform", "--attrs-mask"):
        assert f"\\fB{word}\\fR" in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_groff_has_nothing_to_say_about_the_pages(manual: Path) -> None:
    for page in (manual / "man8").iterdir():
        done = subprocess.run(
            ["groff", "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), page


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_bash_completes_every_option(manual: Path, command: Command) -> None:
    assert set(complete(manual, "rune", command.name, "--")) == {f"--{option.name}" for option in command.options}


def test_bash_completes_commands_global_options_and_nothing_else(manual: Path) -> None:
    assert complete(manual, "rune", "") == [command.name for command in COMMANDS]
    assert complete(manual, "rune", "--root", "/x", "--debug", "pau") == ["pause"]
    assert complete(manual, "rune", "--roo") == ["--root", "--rootless"]
    assert complete(manual, "rune", "nosuch", "--") == []


@pytest.mark.parametrize(("shell", "file"), [("zsh", "_rune"), ("fish", "rune.fish")])
def test_the_other_shells_read_their_files(manual: Path, shell: str, file: str) -> None:
    text = (manual / file).read_text()
    for command in COMMANDS:
        assert command.name in text
        assert all(option.name in text for option in command.options)
    if shutil.which(shell):
        done = subprocess.run([shell, "-n", manual / file], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
