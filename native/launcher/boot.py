"""The first Python code of the launcher: where modules come from, and when the interpreter is made whole.

Modules come from the archive in the launcher (archive.py), together with all they import: importlib takes 60 to 100
microseconds for each module, this takes 5. What is neither in it nor in the program itself needs the whole interpreter
first: `import` of anything else upgrades and goes on as usual. A static program loads no extension modules.
"""

import _imp
import marshal
import posix
import sys
from _frozen_importlib import BuiltinImporter, ModuleSpec, _find_spec

import _launcher

MODULES = sys.modules
ARCHIVE = _launcher.archive
ModuleType = type(sys)


class Archive:
    """A finder and loader (importlib.abc) of what the archive holds."""

    def __init__(self):
        size = int.from_bytes(ARCHIVE[:8], "little")
        self.index = marshal.loads(ARCHIVE[8 : 8 + size])  # see archive.py
        self.body = ARCHIVE[8 + size :]
        self.whole = False

    def find_spec(self, name, path=None, _target=None):
        """Find a module in the archive, or where a whole interpreter finds it."""
        entry = self.index.get(name)
        if entry is not None:
            for needed, code in marshal.loads(self.body[entry[0] :]):
                if needed not in MODULES:
                    self.load(needed, code)
            return ModuleSpec(name, self, origin=self.file(name), is_package=entry[2])
        if self.whole or name in sys.builtin_module_names or _imp.is_frozen(name):
            return None
        self.upgrade()
        return _find_spec(name, path)

    def create_module(self, spec):
        """Leave it to importlib."""

    def exec_module(self, module, code=None):
        """Run a module's code."""
        name = module.__name__
        module.__file__ = self.file(name)
        _, begin, package = self.index[name]
        if package:
            module.__path__ = [module.__file__.rpartition("/")[0]]
        exec(code or marshal.loads(self.body[begin:]), module.__dict__)

    def load(self, name, code):
        """Import a module of which all that it imports is there."""
        entry = self.index.get(name)
        if entry is None:
            spec = ModuleSpec(name, BuiltinImporter, origin="built-in")
            module = MODULES[name] = _imp.create_builtin(spec)
            module.__spec__ = spec
            _imp.exec_builtin(module)
            return
        module = MODULES[name] = ModuleType(name)
        parent, _, child = name.rpartition(".")
        module.__package__ = name if entry[2] else parent
        try:
            self.exec_module(module, code)
        except BaseException:
            del MODULES[name]
            raise
        if parent:
            setattr(MODULES[parent], child, module)

    def file(self, name):
        """Give the path of a module's source."""
        place = name.replace(".", "/")
        return f"{_launcher.library}/{place}/__init__.py" if self.index[name][2] else f"{_launcher.library}/{place}.py"

    def upgrade(self):
        """Make the interpreter whole. No way back is needed: it is a question of time only."""
        if not self.whole:
            self.whole = True
            _launcher.upgrade()


class Stream:
    """What print() and tracebacks need of sys.stdout and sys.stderr until the upgrade brings the real ones."""

    def __init__(self, fd):
        self.fd = fd

    def write(self, text):
        """Write all of it at once."""
        data = memoryview(text.encode("utf-8", "surrogateescape"))
        while data:
            data = data[posix.write(self.fd, data) :]

    def flush(self):
        """Nothing is kept."""


def make_os():
    """Make the module `os` of what takes no time. Whoever asks it for more gets all of it, in the same module.

    A quarter of all time for modules would go to its abstract base classes and its copy of the environment.
    """
    module = MODULES["os"] = ModuleType("os")
    place = module.__dict__
    place.update({name: value for name, value in posix.__dict__.items() if not name.startswith("__")})
    del place["environ"]  # of bytes; that of os is one of the things that take time
    place.update(name="posix", sep="/", SEEK_SET=0, SEEK_CUR=1, SEEK_END=2)

    def getenv(key, default=None):
        value = posix.environ.get(key.encode("utf-8", "surrogateescape"))
        return default if value is None else value.decode("utf-8", "surrogateescape")

    def complete(name):
        if name == "path":
            module.path = MODULES["os.path"] = MODULES["posixpath"]
            return module.path
        if name in ("__file__", "__loader__", "__path__", "__spec__"):  # importlib asks every module
            raise AttributeError(name)
        del module.__getattr__
        archive.exec_module(module)
        return getattr(module, name)

    module.getenv = getenv
    module.__getattr__ = complete


def open_when_whole(*args, **kwargs):
    """Stand in for the built-in function open, which comes with the upgrade."""
    archive.upgrade()
    return open(*args, **kwargs)


archive = Archive()
sys.meta_path.insert(0, archive)
sys.stdout = Stream(1)
sys.stderr = Stream(2)
MODULES["builtins"].open = open_when_whole
make_os()
from inclavare.cli.rune import main  # noqa: E402

main()
