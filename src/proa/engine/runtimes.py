"""What runs containers: proa itself, or another OCI runtime of this machine."""

from __future__ import annotations

import os

from proa.errors import Invalid, NotFound

__all__ = ["OWN", "available", "check_runtime", "runtime_program"]

OWN = "proa"
# Names are no paths: whoever may create containers has no say in which programs the engine runs (CVE-2021-20206).
_OTHERS = ("crun", "runc", "runsc")
_PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def available() -> dict[str, str]:
    """Runtimes of this machine: name to path of the program, `proa` for our own."""
    found = {OWN: OWN}
    for name in _OTHERS:
        path = _find(name)
        if path:
            found[name] = path
    return found


def check_runtime(name: str) -> None:
    """Raises Invalid, in Docker's words, for a name that is none."""
    if name not in ("", OWN, *_OTHERS):
        text = f"unknown or invalid runtime name: {name}"
        raise Invalid(text, code="unknown-runtime", subject=name, hint=f"there are {', '.join((OWN, *_OTHERS))}")


def runtime_program(name: str) -> str:
    """The program of a runtime; empty for our own. Raises NotFound when it is not installed."""
    check_runtime(name)
    if name in ("", OWN):
        return ""
    path = _find(name)
    if not path:
        raise NotFound(f"runtime {name} is not installed", code="no-such-runtime", subject=name)
    return path


def _find(name: str) -> str:
    for place in _PLACES:
        path = f"{place}/{name}"
        if os.access(path, os.X_OK):
            return path
    return ""
