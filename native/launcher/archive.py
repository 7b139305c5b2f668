"""Makes what the launcher is built from, for the Python that runs this: archive.py DIRECTORY.

archive.bin  every module of `rune` as byte code: the size of an index (8 bytes, little-endian), the index and the body,
             all in marshal's format. The index gives for a module's name: where in the body a list is of what must be
             loaded before it, (name, code or None) in order; where its code is; whether it is a package. The lists of
             the hot commands have the code, read at one go in half the time; others have the names alone.
boot.bin     the code object of boot.py
frozen-*.bin the code objects of importlib (frozen.c)
flags        what the compiler must be told of this Python

Ends with status 3 where this Python cannot be linked into a program.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import cast

LAUNCHER = Path(__file__).resolve().parent
SOURCES = LAUNCHER.parents[1] / "src"
VERSIONS = ((3, 11),)  # the launcher leans on the private start-up of what was tried
ENTRY = "inclavare.cli.rune"
HOT = [f"inclavare.cli.{name}_command" for name in ("create", "delete", "exec", "kill", "run", "start", "state")]
# Of the standard library: what it has in C that commands need, in Python that they need, and what a whole interpreter
# begins with.
BUILTIN = ("_json", "_signal", "_socket", "_struct", "errno", "fcntl", "posix", "select", "time")
STANDARD = ("_collections_abc", "abc", "genericpath", "os", "posixpath", "stat", "struct")
WHOLE = ("codecs", "encodings", "encodings.aliases", "encodings.utf_8", "io")


def main(directory: Path) -> None:
    """Write the three files."""
    library = Path(_variable("LIBPL"), _variable("LIBRARY"))
    missing = set(BUILTIN) - {"_json", *sys.builtin_module_names}  # json.c is _json
    if sys.version_info[:2] not in VERSIONS or missing or not library.is_file():
        sys.exit(3)
    (directory / "archive.bin").write_bytes(_archive())
    (directory / "boot.bin").write_bytes(marshal.dumps(_compile(LAUNCHER / "boot.py", "boot.py")))
    for name in ("_bootstrap", "_bootstrap_external"):
        source = Path(_variable("LIBDEST"), "importlib", f"{name}.py")
        (directory / f"frozen{name}.bin").write_bytes(marshal.dumps(_compile(source, f"<frozen importlib.{name}>")))
    definitions = {
        "ARCHIVE": directory / "archive.bin",
        "BOOT": directory / "boot.bin",
        "FROZEN": directory / "frozen",
        "STDLIB": _variable("LIBDEST"),
    }
    words = [f"-I{_variable('INCLUDEPY')}", *(f"-D{name}='\"{value}\"'" for name, value in definitions.items())]
    libraries = [str(library), *(_variable(name) for name in ("MODLIBS", "LIBS", "SYSLIBS"))]
    (directory / "flags").write_text(" ".join([*words, *map(str, LAUNCHER.glob("*.c")), *libraries]) + "\n")


def _variable(name: str) -> str:
    return str(sysconfig.get_config_var(name) or "")


def _archive() -> bytes:
    sources = _sources()
    imports = {name: list(_imports(name, path)) for name, path in sources.items()}
    # The launcher makes a small `os` of these; the true one is loaded with all it needs by who asks for more.
    imports["os"] = []
    base: list[str] = []
    for name in ("stat", "genericpath", "posixpath", ENTRY):
        _order(name, imports, base, set())
    codes = {name: _compile(path, _file_name(name, path)) for name, path in sources.items()}
    index = {}
    body = b""
    for name in sorted(sources):
        needed: list[str] = []
        _order(name, imports, needed, set(base) - {name})
        if name == ENTRY:
            needed = base
        whole = name == ENTRY or name in HOT
        begin = len(body)
        body += marshal.dumps(tuple((needs, codes.get(needs) if whole else None) for needs in needed[:-1]))
        index[name] = (begin, len(body), sources[name].name == "__init__.py")
        body += marshal.dumps(codes[name])
    head = marshal.dumps(index)
    return len(head).to_bytes(8, "little") + head + body


def _sources() -> dict[str, Path]:
    found = {}
    for path in (SOURCES / "inclavare").rglob("*.py"):
        name = ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")
        if not name.startswith(("inclavare.sgx", "inclavare.cli.runectl")):
            found[name] = path
    for name in (*STANDARD, *WHOLE):
        place = Path(_variable("LIBDEST"), *name.split("."))
        found[name] = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return found


def _file_name(name: str, path: Path) -> str:
    """What tracebacks show."""
    return str(path.relative_to(SOURCES)) if path.is_relative_to(SOURCES) else f"{name}.py"


def _compile(path: Path, name: str) -> CodeType:
    """Without docstrings, and without the import of __future__, which would be carried out."""
    tree = ast.parse(path.read_bytes())
    flags = 0
    for node in list(tree.body):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            tree.body.remove(node)
            flags |= __future__.annotations.compiler_flag
    return cast(CodeType, compile(tree, name, "exec", flags, dont_inherit=True, optimize=2))


def _imports(name: str, path: Path) -> Iterator[str]:
    """Give what a module imports when it is loaded, parents first, whether it is in the archive or not."""
    yield from _parents(name)
    for node in _statements(ast.parse(path.read_bytes()).body):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from (*_parents(alias.name), alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (*_parents(node.module), node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Give what is executed on loading, in order, but for what is there for type checkers."""
    for node in body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            for part in ("body", "handlers", "orelse", "finalbody"):
                for inner in getattr(node, part, []):
                    yield from _statements(inner.body if isinstance(inner, ast.ExceptHandler) else [inner])


def _order(name: str, imports: dict[str, list[str]], done: list[str], begun: set[str]) -> None:
    """Append what `name` needs, and itself, each after what it needs (but for circles, which `os` has)."""
    if name in begun or (name not in imports and name not in BUILTIN):
        return
    begun.add(name)
    for needed in imports.get(name, ()):
        _order(needed, imports, done, begun)
    done.append(name)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main(Path(sys.argv[1]))
