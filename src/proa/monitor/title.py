"""How the nursery and its monitors look in ps, and how they say why they died."""

from __future__ import annotations

import ctypes
import os

__all__ = ["claim_arguments", "report", "set_title"]

_ARG_START, _ARG_END = 45, 46  # fields 48 and 49 of proc_pid_stat(5), counted after the command's name

# The argument area as memory to write to, found before the fork: calls through ctypes would dirty a hundred pages.
_arguments: memoryview | None = None


def claim_arguments() -> None:
    """Find this process's argument area; forked children have the same."""
    global _arguments
    with open("/proc/self/stat", "rb", buffering=0) as stat:
        fields = stat.read(4096).rpartition(b")")[2].split()
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    if end > start:
        area = (ctypes.c_char * (end - start)).from_address(start)
        _arguments = memoryview(area).cast("B")
        # With the last byte not NUL, /proc/PID/cmdline ends at the first NUL: setproctitle's way, which needs no
        # privilege (PR_SET_MM_ARG_START would).
        _arguments[-1] = 0xFF


def set_title(title: bytes, name: bytes) -> None:
    """Replace the command line and the thread's name (15 bytes); a title longer than the first arguments is cut."""
    if _arguments is not None:
        text = title[: len(_arguments) - 2] + b"\0"
        _arguments[: len(text)] = text
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, name)
    os.close(fd)


def report(where: str, error: BaseException) -> None:
    """One line on stderr: the traceback module would import and open source files."""
    trace = error.__traceback__
    places = []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}")
        trace = trace.tb_next
    line = f"proa {where} (pid {os.getpid()}): {type(error).__name__}: {error} at {' '.join(places[-8:])}\n"
    try:
        os.write(2, line.encode("utf-8", "replace"))
    except OSError:
        pass
