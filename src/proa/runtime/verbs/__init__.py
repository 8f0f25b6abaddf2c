"""The OCI runtime command line, `proa-runtime`: one module per verb, loaded when it is asked for.

    proa-runtime --root DIR create --bundle B --pid-file P ID     verbs/create.py
    proa-runtime --root DIR start ID                              verbs/start.py  …

podman, containerd and CRI-O call it in place of runc, several times a container and each time as a new process: what
this module and the small verbs import is counted in milliseconds.
"""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


__all__ = ["main"]

# verb: what it does, and whether options end with the first other word, which is then a command's.
VERBS = {
    "create": "create a container from a bundle",
    "start": "run the program of a created container",
    "run": "create and start a container",
    "state": "print a container's state",
    "list": "list containers",
    "ps": "list a container's processes",
    "exec": "run one more program in a container",
    "kill": "send a signal to a container",
    "pause": "stop a container's processes for a while",
    "resume": "let a paused container go on",
    "update": "change a container's limits",
    "events": "tell what a container uses",
    "delete": "remove a container",
    "features": "print what this runtime can do",
    "spec": "write an example config.json",
}
_COMMAND_FOLLOWS = ("exec", "ps")
# Verbs whose process becomes, or starts, a process of the container.
_SEALED = ("create", "run", "exec")


def main() -> NoReturn:
    """Run the verb in sys.argv and leave the process with its exit status."""
    if any(word in _SEALED for word in sys.argv):
        _run_sealed()
    status = dispatch(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 1
    _keep_bundle()
    posix._exit(status)  # nothing is left to finalise: this saves the interpreter's shutdown


def _keep_bundle() -> None:
    """Write the code file for the next command when it is missing or has become stale."""
    from proa import bundle

    if bundle.stale:
        from proa.runtime.verbs.modules import COMMANDS, MODULES

        bundle.write(__file__.removesuffix("/proa/runtime/verbs/__init__.py"), "proa.runtime.verbs", MODULES, COMMANDS)


def dispatch(words: list[str]) -> int:
    """Run one command line and return its exit status; failures are told on stderr and in the log asked for."""
    from proa.errors import Invalid, ProaError
    from proa.runtime.verbs.options import Settings, parse, take_globals

    settings = Settings("", "", "text", "cgroupfs", debug=False)
    try:
        settings, given, rest = take_globals(words, default_root())
        if given.flag("version"):
            return _version()
        if given.flag("help") or not rest or rest[0] == "help":
            return _help()
        name = rest[0]
        if name not in VERBS:
            raise Invalid(f"unknown command `{name}`", code="usage", hint="see proa-runtime --help")
        _check_manager(settings.cgroup_manager)
        verb = _load(name)
        options, arguments = parse(verb.OPTIONS, rest[1:], interspersed=name not in _COMMAND_FOLLOWS)
        status: int = verb.run(settings, options, arguments)
        return status
    except (ProaError, OSError) as error:
        from proa.runtime.verbs.log import tell

        return tell(settings, error)
    except KeyboardInterrupt:
        return 130


def default_root() -> str:
    """Where containers are kept when the caller does not say."""
    directory = posix.environ.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape") if posix.geteuid() else ""
    return f"{directory}/proa-runtime" if directory.startswith("/") else "/run/proa-runtime"


def _load(name: str) -> Any:
    """A verb's module: OPTIONS, as `options.parse` takes them, and run(settings, options, words) -> exit status."""
    __import__(f"proa.runtime.verbs.{name}")
    verb: Any = sys.modules[f"proa.runtime.verbs.{name}"]
    return verb


def _check_manager(name: str) -> None:
    if name in ("cgroupfs", "disabled"):
        return
    from proa.errors import Invalid, Unsupported

    if name == "systemd":
        running = posix.access("/run/systemd/system", posix.F_OK)
        why = "which proa does not talk to" if running else "which does not run here"
        raise Unsupported(
            f"cgroups cannot be made by systemd, {why}",
            code="no-systemd",
            hint="have the caller use cgroupfs: leave out --systemd-cgroup, or set cgroup_manager = cgroupfs",
        )
    raise Invalid(f"unknown cgroup manager `{name}`", code="usage")


def _run_sealed() -> None:
    """Go on in a sealed copy of the interpreter, unless this is it already: a container may get to see it."""
    from proa.linux.memory_files import library_path, runs_sealed, sealed_interpreter

    if not runs_sealed():
        image = sealed_interpreter("proa-runtime")
        arguments = [sys.executable, "-I", "-S", "-X", "utf8", sys.argv[0], "--oci-runtime-sealed", *sys.argv[1:]]
        posix.execve(f"/proc/self/fd/{image}", arguments, {**posix.environ, **library_path()})


def _version() -> int:
    from proa._version import __version__

    sys.stdout.write(f"proa-runtime version {__version__}\nspec: 1.2.0\n")
    return 0


def _help() -> int:
    sys.stdout.write("Usage: proa-runtime [--root DIR] [--log FILE] [--log-format text|json] COMMAND …\n\nCommands:\n")
    for name, what in VERBS.items():
        sys.stdout.write(f"  {name:10} {what}\n")
    return 0
