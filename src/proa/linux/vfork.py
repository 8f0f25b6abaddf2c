"""Start a process that shares this one's memory until it executes its program: vfork(2), for a child that runs Python.

A copy of an interpreter costs its page tables, a fault for each page that either side then writes, and the unmapping of
it all at execve: 1.2 to 1.7 ms of a start for a heap of 20 MB, beside 0.15 ms when memory is shared. The kernel stops
the parent until the child has executed or ended, so they never run at once and no lock is needed.

The child runs on a stack of its own. It leaves by execve(2) from the middle of Python calls that never return, so
what the interpreter noted of them in its thread state has to be put back. That is the one thing here that knows CPython
from inside, and it knows no more than the thread state's size: it is copied before and written back after. Everything
else that the child changes in memory stays changed, as after a function call: so this is for a process that has nothing
left to do but to tell how it went.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from typing import NoReturn

from proa.linux._libc import call, fail
from proa.linux.process import CLONE_PIDFD

__all__ = ["available", "prepare", "vfork"]

CLONE_VM = 0x100
CLONE_VFORK = 0x4000

STACK_BYTES = 1 << 20
# sizeof(PyThreadState) on 64 bits: frame, recursion, exceptions and data stack are in it.
THREAD_STATE_BYTES = {(3, 11): 360, (3, 12): 288, (3, 13): 304}

_library = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter lock, which is in the shared memory, too
_Entry = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
_clone = _library["clone"]
_clone.restype = ctypes.c_int
_clone.argtypes = (_Entry, ctypes.c_void_p, ctypes.c_int, *[ctypes.c_void_p] * 4)
_mprotect = call("mprotect")
_thread_state = ctypes.pythonapi["PyThreadState_Get"]
_thread_state.restype = ctypes.c_void_p

_stack: mmap.mmap | None = None
_stack_top = 0
_run: Callable[[], NoReturn]


_entry = _Entry(lambda _argument: _run())


def available() -> bool:
    """Whether this interpreter is one of those that `vfork` knows.

    From 3.14 on CPython takes a stack that it did not make for an overflow; without the lock nothing here holds.
    """
    known = (
        sys.implementation.name == "cpython" and sys.version_info[:2] in THREAD_STATE_BYTES and sys.maxsize > 1 << 32
    )
    locked = getattr(sys, "_is_gil_enabled", None)
    return known and (locked is None or locked())


def prepare() -> None:
    """Make the child's stack, ahead of the time when it is waited for; it is no memory yet. Raises OSError."""
    global _stack, _stack_top
    stack = mmap.mmap(-1, STACK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_STACK)
    bottom = ctypes.addressof(ctypes.c_char.from_buffer(stack))
    if _mprotect(bottom, mmap.PAGESIZE, 0) < 0:  # an overflow shall end the child, and damage nothing
        fail("mprotect")
    _stack, _stack_top = stack, bottom + STACK_BYTES


def vfork(flags: int, exit_signal: int, run: Callable[[], NoReturn]) -> tuple[int, int]:
    """Run `run` in a new process, which must end in execve(2) or os._exit; returns (pid, pidfd) once it has.

    flags: clone(2)'s, as for `process.clone3` except CLONE_INTO_CGROUP. Only for single-threaded processes that will
    soon end. The child must not wait for this process, cannot enter another time namespace, and has to execute by a
    call that keeps the interpreter's lock (os.execve does). One that is killed while it has given it up, in a read say,
    takes this process with it (SIGSEGV): whoever waits for this one must be ready for that. Raises OSError.
    """
    global _run
    if _stack is None:
        prepare()
    _run = run
    pidfd = ctypes.c_int(-1)
    state, size = _thread_state(), THREAD_STATE_BYTES[sys.version_info[:2]]
    saved = ctypes.create_string_buffer(size)
    flags |= CLONE_VM | CLONE_VFORK | CLONE_PIDFD | exit_signal
    ctypes.memmove(saved, state, size)
    pid = _clone(_entry, _stack_top, flags, None, ctypes.addressof(pidfd), None, None)
    ctypes.memmove(state, saved, size)
    if pid < 0:
        fail("clone")
    return pid, pidfd.value
