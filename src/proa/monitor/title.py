"""How the nursery and its monitors look in ps, and how they say why they died."""

from __future__ import annotations

import ctypes
import os

from proa.linux import process

__all__ = ["report", "set_title"]

_ARG_START, _ARG_END = 45, 46  # fields 48 and 49 of proc_pid_stat(5), counted after the command's name

# Found and made once, before the fork: a new ctypes array type per call would dirty a hundred pages of each monitor.
_name = ctypes.create_string_buffer(16)
_area: tuple[int, int] | None = None


def set_title(title: str, name: str) -> None:
    """Replace the command line and the thread's name (15 bytes); a title longer than the first arguments is cut.

    With the last byte of the argument area not NUL, /proc/PID/cmdline ends at the first NUL: setproctitle's way,
    which needs no privilege (PR_SET_MM_ARG_START would).
    """
    global _area
    if _area is None:
        with open("/proc/self/stat", "rb", buffering=0) as stat:
            fields = stat.read(4096).rpartition(b")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        _area = (start, end - start)
    start, room = _area
    if room > 2:
        text = title.encode()[: room - 2]
        ctypes.memmove(start, text + bytes(room - 1 - len(text)) + b"\xff", room)
    _name.value = name.encode()[:15]
    process.prctl(process.PR_SET_NAME, ctypes.addressof(_name))


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
