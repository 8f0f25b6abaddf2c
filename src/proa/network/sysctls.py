"""Read and write /proc/sys/net of the calling thread's network namespace, with errors that say what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from proa.errors import Denied, Unsupported

__all__ = ["has_ipv6", "names", "read", "read_if_any", "write", "write_if_any"]

_ROOT = Path("/proc/sys/net")


def has_ipv6() -> bool:
    """Whether the kernel runs IPv6 at all (built in, not `ipv6.disable=1`)."""
    return (_ROOT / "ipv6/conf").exists()


def names(folder: str) -> list[str]:
    """The entries of a folder below /proc/sys/net."""
    return sorted(path.name for path in (_ROOT / folder).iterdir())


def read(name: str) -> str:
    """The value of `name`, a path below /proc/sys/net, without its newline. Raises Unsupported when there is none."""
    try:
        return (_ROOT / name).read_text().strip()
    except FileNotFoundError as error:
        raise Unsupported(f"this kernel has no net/{name}", code="sysctl-missing", subject=name) from error


def read_if_any(name: str) -> str:
    """The value of `name`; empty when there is none: links come and go."""
    try:
        return (_ROOT / name).read_text().strip()
    except OSError:
        return ""


def write_if_any(name: str, value: str) -> None:
    """Set `name` if it is there still."""
    try:
        (_ROOT / name).write_text(value)
    except FileNotFoundError:
        pass


def write(name: str, value: str) -> None:
    """Set `name` unless it has that value already. Raises Unsupported, Denied."""
    if read(name) == value:
        return
    try:
        (_ROOT / name).write_text(value)
    except OSError as error:
        if error.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise
        raise Denied(
            f"cannot set net/{name} to {value}: {error.strerror}",
            code="sysctl-denied",
            subject=name,
            hint=f"set net.{name.replace('/', '.')}={value} on the host, or run the engine with a writable /proc/sys",
        ) from error
