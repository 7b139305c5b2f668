"""Builds `rune` as a program for the Python that runs this: build.py DIRECTORY PROGRAM COMPILER [FLAG]...

In DIRECTORY: the launcher, and modules.bin: of every module that `rune` may need, and of begin.py, {name: (code, file,
is a package)} in marshal's format, the code in that format again. The launcher imports them and saves itself as PROGRAM
(snapshot.c). Ends with status 3 where this Python cannot be linked into a program.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import subprocess
import sys
import sysconfig
from pathlib import Path

LAUNCHER = Path(__file__).resolve().parent
SOURCES = LAUNCHER.parents[1] / "src"
VERSIONS = ((3, 11),)  # resume() of launcher.c knows these from inside
BUILTIN = {"_posixsubprocess", "_signal", "_socket", "_struct", "errno", "fcntl", "posix", "select", "time"}
ATTEMPTS = 5  # to save two that are the same, one after the other
REPLACED = ("malloc", "calloc", "realloc", "free", "pthread_self")  # by snapshot.c


def main(directory: Path, program: Path, compiler: list[str]) -> None:
    """Write modules.bin, the launcher and the program."""
    library = Path(_variable("LIBPL"), _variable("LIBRARY"))
    if sys.version_info[:2] not in VERSIONS or BUILTIN - set(sys.builtin_module_names) or not library.is_file():
        sys.exit(3)
    modules = directory / "modules.bin"
    modules.write_bytes(_modules())
    objects: list[str | Path] = []
    for source in sorted(LAUNCHER.glob("*.c")):
        objects.append(directory / f"{source.stem}.o")
        flags = ["-D_GNU_SOURCE", "-fno-pie", f"-I{_variable('INCLUDEPY')}", f'-DSTDLIB="{_variable("LIBDEST")}"']
        flags.append(f"-ffile-prefix-map={LAUNCHER}/=")  # Python's macros use __FILE__
        _run([*compiler, *flags, "-c", "-o", objects[-1], source])
    launcher = directory / "launcher"
    others = " ".join(_variable(name) for name in ("MODLIBS", "LIBS", "SYSLIBS")).split()
    flags = ["-static", "-no-pie", "-Wl,--no-warnings", *(f"-Wl,--wrap={name}" for name in REPLACED)]
    _run([*compiler, *flags, "-T", LAUNCHER / "snapshot.ld", "-o", launcher, *objects, library, *others])
    # The same twice: so nothing in it is an address of the one process that saved it, which would mislead all others.
    # What differs once in a while (the time of a folder that is written to meanwhile) is not: then it is tried again.
    before = now = b""
    for _ in range(ATTEMPTS):
        program.unlink(missing_ok=True)
        save(launcher, modules, program)
        before, now = now, program.read_bytes()
        if now == before:
            return
    program.unlink()
    different = [place for place in range(0, len(now), 8) if now[place : place + 8] != before[place : place + 8]]
    places = ", ".join(f"{place:#x}" for place in different[:8])
    sys.exit(f"the launcher keeps what belongs to one process: {len(different)} words of its file, at {places}")


def save(launcher: Path, modules: Path, program: Path) -> None:
    """Have the launcher save itself. Its input and output are pipes: what only other files can do is not remembered."""
    _run([launcher, modules, program], {"TZ": "UTC"})


def _run(words: list[str | Path], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        words, input=b"", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, check=False
    )
    sys.stderr.write(done.stdout.decode())
    if done.returncode:
        sys.exit(1)


def _modules() -> bytes:
    modules = {"begin": (_compile(LAUNCHER / "begin.py", "begin.py"), "begin.py", False)}
    for path in sorted((SOURCES / "inclavare").rglob("*.py")):
        place = path.relative_to(SOURCES)
        name = ".".join(place.with_suffix("").parts).removesuffix(".__init__")
        if not name.startswith(
            (
                "inclavare.aesm",
                "inclavare.carriers.",
                "inclavare.pcs",
                "inclavare.doctor",
                "inclavare.sgx",
                "inclavare.signing",
                "inclavare.cli.runectl",
                "inclavare.__main__",
            )
        ):
            modules[name] = (_compile(path, str(place)), str(place), path.name == "__init__.py")
    return marshal.dumps(modules)


def _variable(name: str) -> str:
    return str(sysconfig.get_config_var(name) or "")


def _compile(path: Path, name: str) -> bytes:
    """Without docstrings and annotations of functions, which nobody asks for, and without the import of __future__."""
    tree = ast.parse(path.read_bytes())
    flags = 0
    for node in list(tree.body):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            tree.body.remove(node)
            flags |= __future__.annotations.compiler_flag
    for inner in ast.walk(tree):
        if isinstance(inner, ast.FunctionDef):
            inner.returns = None
        elif isinstance(inner, ast.arg):
            inner.annotation = None
    return marshal.dumps(compile(tree, name, "exec", flags, dont_inherit=True, optimize=2))


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
