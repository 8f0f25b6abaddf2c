"""One code file for the modules that common commands need, so that starting is one read instead of thirty searches.

Importing a module the ordinary way costs 150 us of searching, and `run` needs some thirty of them: 4 ms of a command
that is to take 30. The bundle is to those modules what a `.pyc` is to one, and lies beside them: written by whichever
command finds it missing or stale and may write there, never needed. A module whose source has another time or size
than the bundle noted is imported the ordinary way, and the bundle then written anew.

    0            marshal((FORMAT, sys.hexversion, code of this module, {name: entry}))
    INDEX_BYTES  the marshalled code of one module after the other

bin/proa reads the first part, runs this module's code in it and calls `install`.
"""

# No `from __future__ import annotations` here: it would be searched for before there is a bundle to find it in.

import sys
from marshal import dumps, loads
from posix import pread, stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    Entry = tuple[str, int, int, int, int]  # source, its mtime in ns and size; where its code starts, and its length

__all__ = ["COMMANDS", "FIRST", "FORMAT", "INDEX_BYTES", "MODULES", "BundleFinder", "install", "path_of", "write"]

# What bin/proa relies on: the first part of the file, and what `install` takes.
FORMAT = 1
INDEX_BYTES = 16 << 10

PACKAGES = ("proa", "proa.cli", "proa.cli.commands", "proa.client")

# Each module after those it imports; a test holds the lists complete and in order.
FIRST = (
    *("__future__", "proa", "proa.cli", "proa.errors", "proa.cli.options", "proa.cli.commands", "proa.client"),
    *("proa.client.endpoint", "proa.client.http", "proa.client.connection", "proa.client.jsonlite"),
    *("proa.client.failures", "proa.client.caller"),
)
COMMANDS = {
    "exec": ("proa.client.frames", "proa.cli.session", "proa.cli.commands.execute"),
    "ps": ("proa.cli.commands.ps", "proa.cli.terminal", "proa.cli.output"),
    "run": ("proa.cli.container_rows", "proa.cli.values", "proa.cli.container_spec", "proa.cli.commands.run"),
}
LATER = ("proa._version", "proa.cli.failures", "proa.cli.foreground", "proa.cli.pump")
MODULES = ("proa.cli.bundle", *FIRST, *(name for names in COMMANDS.values() for name in names), *LATER)

# Whether a new bundle should be written: until `install` there is none.
stale = True


class BundleFinder:
    """Finds modules in the bundle (importlib.abc.MetaPathFinder and Loader, without importing those)."""

    def __init__(self, file: int, modules: "dict[str, Entry]") -> None:
        self._file = file
        self._modules = modules

    def find_spec(self, name: str, *_rest: object) -> "ModuleSpec | None":
        """The module's spec when the bundle has it as its source is now, else None."""
        entry = self._modules.get(name)
        if entry is None:
            return None
        source, modified, size, _, _ = entry
        try:
            now = stat(source)
        except OSError:
            return None
        if now.st_mtime_ns != modified or now.st_size != size:
            global stale  # what `main` looks at when the command is done
            stale = True
            return None
        spec = sys.__spec__.__class__(
            name,
            self,  # type: ignore[arg-type]
            origin=source,
            is_package=source.endswith("/__init__.py"),
        )
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(source[: -len("/__init__.py")])
        return spec

    def create_module(self, spec: "ModuleSpec") -> None:
        """The default module object."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run the module's code."""
        _, _, _, start, length = self._modules[module.__name__]
        exec(loads(pread(self._file, length, start)), module.__dict__)  # noqa: S102, S302 - as importing does

    def load(self, name: str) -> bool:
        """Import a module whose own imports are there: 10 us instead of 50; False when the bundle's is not current."""
        spec = self.find_spec(name)
        if spec is None:
            return False
        module = sys.__class__(name)
        parent, _, last = name.rpartition(".")
        module.__spec__ = spec
        module.__loader__ = self  # type: ignore[assignment]
        module.__file__ = spec.origin
        module.__package__ = parent
        if spec.submodule_search_locations is not None:
            module.__package__ = name
            module.__path__ = spec.submodule_search_locations
        sys.modules[name] = module
        try:
            self.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        if parent:
            setattr(sys.modules[parent], last, module)
        return True


def install(file: int, modules: "dict[str, Entry]", command: str) -> bool:
    """Take modules from the bundle from now on, first of all those that this command is known to need.

    file: the open bundle; it is kept
    Returns False when this very code is not what its source says now: proa has been upgraded.
    """
    finder = BundleFinder(file, modules)
    if finder.find_spec("proa.cli.bundle") is None:
        return False
    global stale
    stale = False
    sys.meta_path.insert(0, finder)
    for name in (*FIRST, *COMMANDS[command]) if command in COMMANDS else FIRST[:3]:
        if not finder.load(name):
            break  # what comes after it may need it
    return True


def path_of(place: str) -> str:
    """Where the bundle lies."""
    return f"{place}/proa/cli/__pycache__/bundle.{sys.implementation.cache_tag}"


def write(place: str) -> None:
    """Make the bundle anew when its directory is ours to write to. A failure costs the next command 4 ms, no more."""
    from posix import W_OK, access, getpid, rename, unlink

    path = path_of(place)
    if sys.dont_write_bytecode or not access(path.rpartition("/")[0], W_OK):
        return
    temporary = f"{path}.{getpid()}"
    try:
        with open(temporary, "xb") as file:
            file.write(_contents(place))
        rename(temporary, path)
    except (OSError, ValueError):
        try:
            unlink(temporary)
        except OSError:
            pass


def _contents(place: str) -> bytes:
    import __future__

    codes = b""
    own = None
    modules: dict[str, Entry] = {}
    for name in MODULES:
        source = f"{place}/{name.replace('.', '/')}{'/__init__.py' if name in PACKAGES else '.py'}"
        if name == "__future__":
            source = str(__future__.__spec__.origin)
        is_now = stat(source)
        with open(source, "rb") as file:
            # Without docstrings it is smaller by a third, and faster to read.
            code = compile(file.read(), source, "exec", dont_inherit=True, optimize=2)
        own = own or code  # the first is this module's
        marshalled = dumps(code)
        modules[name] = (source, is_now.st_mtime_ns, is_now.st_size, INDEX_BYTES + len(codes), len(marshalled))
        codes += marshalled
    index = dumps((FORMAT, sys.hexversion, own, modules))
    if len(index) > INDEX_BYTES:
        raise ValueError(f"the bundle's index takes {len(index)} bytes")
    return index + bytes(INDEX_BYTES - len(index)) + codes
