"""One code file for the modules that a program's common commands need, so that starting is one read instead of many.

Importing a module the ordinary way costs 150 us of searching. `proa run` needs some thirty of them, 4 ms of a command
that is to take 30; `proa-runtime create` twice as many. The bundle is to those modules what a `.pyc` is to one, and
lies beside the package that lists them: written by whichever command finds it missing or stale and may write there,
never needed. A module whose source has another time or size than the bundle noted is imported the ordinary way, and the
bundle then written anew.

    0     marshal((FORMAT, sys.hexversion, code of this module, size, {command: its modules}, {name: entry}))
    size  the marshalled code of one module after the other

bin/proa reads the first FIRST_BYTES, which are all that frequent commands need, runs this module's code in them and
calls `install`. The file is not kept open: a program may close all that it did not open, or pass it on.
"""

# No `from __future__ import annotations` here: it would be searched for before there is a bundle to find it in.

import sys
from _io import FileIO
from marshal import dumps, loads
from posix import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    Entry = tuple[str, int, int, int, int]  # source, its mtime in ns and size; where its code starts and ends

__all__ = ["FIRST_BYTES", "FORMAT", "BundleFinder", "install", "path_of", "write"]

# What bin/proa relies on: the start of the file, and what `install` takes.
FORMAT = 3
FIRST_BYTES = 128 << 10

# Whether a new bundle should be written: until `install` there is none.
stale = True


class BundleFinder:
    """Finds modules in the bundle (importlib.abc.MetaPathFinder and Loader, without importing those)."""

    def __init__(self, path: str, contents: bytes, size: int, modules: "dict[str, Entry]") -> None:
        self._path = path
        self._contents = contents
        self._size = size  # of the index
        self._modules = modules

    def find_spec(self, name: str, *_rest: object) -> "ModuleSpec | None":
        """The module's spec when the bundle has it as its source is now, else None."""
        entry = self._modules.get(name)
        if entry is None:
            return None
        if not _current(entry) or not self._has(entry):
            global stale  # what `main` looks at when the command is done
            stale = True
            return None
        source = entry[0]
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
        *_, start, end = self._modules[module.__name__]
        exec(loads(self._contents[self._size + start : self._size + end]), module.__dict__)  # noqa: S102, S302 - as importing does

    def load(self, name: str) -> bool:
        """Import a module whose own imports are there: 10 us instead of 50; False when the bundle's is not current."""
        spec = self.find_spec(name)
        parent, _, last = name.rpartition(".")
        if spec is None or (parent and parent not in sys.modules):
            return False
        module = sys.__class__(name)
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

    def _has(self, entry: "Entry") -> bool:
        """Read the rest of the file when this module is there; False when it is another file by now."""
        end = self._size + entry[4]
        if end > len(self._contents):
            try:
                with FileIO(self._path) as file:
                    contents = file.readall()
            except OSError:
                return False
            if contents[: self._size] != self._contents[: self._size] or end > len(contents):
                return False
            self._contents = contents
        return True


def _current(entry: "Entry") -> bool:
    source, modified, size, *_ = entry
    try:
        now = stat(source)
    except OSError:
        return False
    return now.st_mtime_ns == modified and now.st_size == size


def _same(source: str, path: str) -> bool:
    """Whether this module's source is the one of the package that the bundle lies in."""
    beside = stat(path.rpartition("/proa/")[0] + "/proa/bundle.py")
    now = stat(source)
    return (now.st_dev, now.st_ino) == (beside.st_dev, beside.st_ino)


def install(
    path: str,
    contents: bytes,
    size: int,
    commands: "dict[str, tuple[str, ...]]",
    modules: "dict[str, Entry]",
    words: "list[str]",
) -> bool:
    """Take modules from the bundle from now on, first of all those that a command is known to need.

    contents: the start of the file; size and those after it: as the index there has them.
    words:    of the command line; the first that is a command is the one.
    Returns False, and forgets this module, when this very code is not what its source says now: proa has been upgraded,
    or moved.
    """
    finder = BundleFinder(path, contents, size, modules)
    # A bundle that was copied along with its package stands for the modules where they were.
    if finder.find_spec("proa.bundle") is None or not _same(modules["proa.bundle"][0], path):
        del sys.modules[__name__]
        return False
    global stale
    stale = False
    sys.meta_path.insert(0, finder)
    for name in commands[next((word for word in words if word in commands), "")]:
        if not finder.load(name):
            break  # what comes after it may need it
    return True


def path_of(place: str, package: str) -> str:
    """Where the bundle of a package (`proa.cli`) lies, of the proa in the directory `place`."""
    return f"{place}/{package.replace('.', '/')}/__pycache__/bundle.{sys.implementation.cache_tag}"


def write(place: str, package: str, modules: "tuple[str, ...]", commands: "dict[str, tuple[str, ...]]") -> None:
    """Make a bundle anew when its directory is ours to write to. A failure costs the next command 4 ms, no more.

    modules:  all, in the order that they are to have; what is needed most should come first.
    commands: the modules that each needs at once, any after those it imports; "" is for all others.
    """
    from posix import W_OK, access, getpid, rename, unlink

    path = path_of(place, package)
    if sys.dont_write_bytecode or not access(path.rpartition("/")[0], W_OK):
        return
    temporary = f"{path}.{getpid()}"
    try:
        contents = _contents(place, ("proa.bundle", *modules), commands)
        with open(temporary, "xb") as file:
            file.write(contents)
        rename(temporary, path)
    except (OSError, ValueError):
        try:
            unlink(temporary)
        except OSError:
            pass


def _contents(place: str, names: "tuple[str, ...]", commands: "dict[str, tuple[str, ...]]") -> bytes:
    own = None
    codes = b""
    modules: dict[str, Entry] = {}
    for name in names:
        source = _source(place, name)
        try:
            is_now = stat(source)
        except OSError:
            continue  # part of the interpreter, as some of the standard library may be
        with open(source, "rb") as file:
            # Without docstrings it is smaller by a third, and faster to read.
            code = compile(file.read(), source, "exec", dont_inherit=True, optimize=2)
        start = len(codes)
        if name == __name__:
            own = code  # in the index, as it is what finds the others
        else:
            codes += dumps(code)
        modules[name] = (source, is_now.st_mtime_ns, is_now.st_size, start, len(codes))

    def index(size: int) -> bytes:
        return dumps((FORMAT, sys.hexversion, own, size, commands, modules))

    return index(len(index(0))) + codes  # a whole number takes as many bytes as another


def _source(place: str, name: str) -> str:
    if name.partition(".")[0] != "proa":
        return str(getattr(__import__(name, fromlist=["__spec__"]).__spec__, "origin", ""))
    path = f"{place}/{name.replace('.', '/')}"
    try:
        stat(f"{path}.py")
    except OSError:
        return f"{path}/__init__.py"
    return f"{path}.py"
