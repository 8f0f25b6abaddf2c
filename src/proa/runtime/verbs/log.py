"""Tell callers what went wrong: a line on stderr, and one in the log they named, in the form they asked for."""

from __future__ import annotations

import posix
import sys
import time

from proa.errors import ProaError
from proa.runtime.verbs.documents import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.runtime.verbs.options import Settings

__all__ = ["debug", "now", "tell", "warn"]


def tell(settings: Settings, error: BaseException) -> int:
    """Tell of a failure; returns the exit status it means."""
    text = error.message if isinstance(error, ProaError) else str(error)
    if isinstance(error, ProaError) and error.hint:
        text += f" ({error.hint})"
    _write(settings, "error", text)
    try:
        sys.stderr.write(f"proa-runtime: {text}\n")
    except OSError:
        pass  # nobody listens
    return 1


def warn(settings: Settings, text: str) -> None:
    """Tell of something that was not done as asked: in the log, and to a person at a terminal.

    Otherwise stderr is the container's, and what callers show as an error.
    """
    _write(settings, "warning", text)
    if settings.debug or posix.isatty(2):
        sys.stderr.write(f"proa-runtime: warning: {text}\n")


def debug(settings: Settings, text: str) -> None:
    """Tell what is being done, if that is wanted."""
    if settings.debug:
        _write(settings, "debug", text)


def now() -> str:
    """The time as RFC 3339, in UTC."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


def _write(settings: Settings, level: str, text: str) -> None:
    if not settings.log:
        return
    entry = {"level": level, "msg": text, "time": now()}
    line = encode(entry) if settings.log_format == "json" else f"time={now()} level={level} msg={encode(text)}"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_NOCTTY | posix.O_CLOEXEC
    try:
        fd = posix.open(settings.log, flags, 0o600)
        try:
            posix.write(fd, f"{line}\n".encode("utf-8", "surrogateescape"))
        finally:
            posix.close(fd)
    except OSError:
        pass  # it is on stderr, too
