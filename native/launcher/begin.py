"""The first Python code of the launcher, run once, when it is built: it imports everything that a command may need.

What is left is then saved (snapshot.c), and each start goes on with enter().
"""

import marshal
import sys
from _frozen_importlib import spec_from_loader

import _launcher


class Loader:
    """A finder and loader (importlib.abc) of rune's own modules."""

    @staticmethod
    def find_spec(name, _path=None, _target=None):
        """Find a module."""
        entry = _launcher.modules.get(name)
        return entry and spec_from_loader(name, Loader, origin=entry[1], is_package=entry[2])

    @staticmethod
    def create_module(spec):
        """Leave it to importlib."""

    @staticmethod
    def exec_module(module):
        """Run a module's code."""
        module.__file__ = module.__spec__.origin
        exec(marshal.loads(_launcher.modules[module.__name__][0]), module.__dict__)


def enter():
    """Run what the program is called as, and end the process. The launcher has renewed sys.argv and the environment."""
    library = _launcher.library
    sys.path[0] = library
    inclavare.__file__ = f"{library}/inclavare/__init__.py"
    inclavare.__path__ = [f"{library}/inclavare"]
    name = sys.argv[0].rpartition("/")[2]
    (shim.main if name == SHIM else rune.main)()


SHIM = "containerd-shim-rune-v2"

# What most commands use comes first, and so lies together: a page of memory that no command touches costs nothing.
HOT = [f"inclavare.cli.{name}_command" for name in ("state", "kill", "start", "delete", "exec", "create", "run")]
HOT += ["inclavare.container.supervise", "inclavare.linux.seccomp", "_blake2"]
sys.meta_path.insert(0, Loader)
for name in ("inclavare.cli.rune", *HOT, *_launcher.modules):
    if name != "begin":
        __import__(name)
sys.meta_path.remove(Loader)
del _launcher.modules

import inclavare  # noqa: E402
from inclavare.cli import rune, shim  # noqa: E402
